#pragma once
// The kernels of a backward pass, of one instruction set: as kernel_table.h, plain data and slices.

#include <cstddef>
#include <cstdint>

#include "base/index.h"
#include "device/cpu_device.h"
#include "device/device.h"

namespace kogia {

/// Some outputs of a LinearWgradArgs: x and its columns whole, dy, dw and db from the first of
/// these outputs on.
struct WgradTile {
  const float* x = nullptr;
  Index x_stride = 0;
  const float* dy = nullptr;
  Index dy_stride = 0;
  Index n = 0, cols = 0;
  const TokenBlock* blocks = nullptr;
  Index n_blocks = 0;
  float* dw = nullptr;
  Index dw_stride = 0;
  float* db = nullptr;

  Index scratch_floats() const { return kTokenBlock * (round_up(n, 48) + round_up(cols, 48)); }
};

/// Attention's gradient of one key head of one sequence and the group of heads that share it; row
/// 0 is the sequence's first, head 0 the group's.
struct AttentionVjpHead {
  const float* q = nullptr;  // row r, head h at q + r * q_stride + h * k_dim
  Index q_stride = 0;
  const float* k = nullptr;
  Index k_stride = 0;
  const float* v = nullptr;  // k: the values are the first v_dim numbers of the keys
  Index v_stride = 0;
  const float* dout = nullptr;  // row r, head h at dout + r * dout_stride + h * v_dim
  Index dout_stride = 0;
  float* dq = nullptr;  // with the strides of q, k and v
  float* dk = nullptr;
  float* dv = nullptr;
  Index n_rows = 0, n_heads = 0, k_dim = 0, v_dim = 0;
  float scale = 1;
};

/// CombineVjpArgs without its span.
struct CombineVjpSlice {
  const std::int32_t* row_of = nullptr;
  const float* weights = nullptr;
  Index rows = 0, top_k = 0, n = 0;
  const float* dy = nullptr;
  Index dy_stride = 0;
  float* dexpert_rows = nullptr;
  Index expert_stride = 0;
};

/// A piece of AdamWArgs with its factors worked out:
///   g = grad_scale grad,  m = m + rate1 (g − m),  v = beta2 v + rate2 g²,
///   w = keep w − lr m / (√v root2 + eps)
struct AdamWSlice {
  float* w = nullptr;
  const float* grad = nullptr;
  std::byte* m = nullptr;
  std::byte* v = nullptr;
  bool bf16 = false;  // moments
  Index n = 0;
  float grad_scale = 1, rate1 = 0, beta2 = 0, rate2 = 0, keep = 1, lr = 0, root2 = 1, eps = 0;
};

struct GradientKernels {
  void (*linear_wgrad)(const WgradTile& tile, float* scratch);
  /// Of rows [begin, end). sums [n], if not null, gets Σ dy n̂ of these rows added.
  void (*rms_norm_vjp)(const RmsNormVjpArgs& args, Index begin, Index end, float* sums);
  void (*silu_mul_vjp)(const SiluMulVjpArgs& args);
  Index (*attention_vjp_floats)(const AttentionVjpHead& head);  // of scratch
  void (*attention_vjp)(const AttentionVjpHead& head, float* scratch);
  void (*combine_vjp)(const CombineVjpSlice& args);
  /// logits := dloss (softmax(logits) − 1[target]), target >= 0; returns log_prob's bits.
  float (*cross_entropy)(float* logits, Index n, Index target, float dloss);
  void (*adamw)(const AdamWSlice& args);
  double (*sum_squares)(const float* x, Index n);
  void (*add)(const AddArgs& args);
  void (*fp8_rows)(const Fp8Args& args);
  void (*fp8_columns)(const Fp8Args& args);  // all rows are one block
  void (*fp8_decode)(const Fp8DecodeArgs& args);
};

const GradientKernels& gradient_kernels(Isa isa);

}  // namespace kogia
