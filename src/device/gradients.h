#pragma once
// The operations of a backward pass and of the optimizer's step, as plain data. For y = f(x) and a
// loss L they take dy = ∂L/∂y; gradients are added to what is there, so that several uses of one x
// add up. The mathematics, as templates: device/reference/gradients.h.
//
// Determinism (docs/design, gradient order): a row's gradient depends on its own row alone, in
// attention on its own sequence. Sums over tokens run block by block as the caller cuts them.
// Nothing depends on the number of threads.

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/index.h"
#include "device/operations.h"
#include "tensor/dtype.h"

namespace kogia {

/// Tokens whose contributions to a sum are added up by themselves, from zero, before they join the
/// sum. Blocks start anew at each packed row, so that the sum does not know how rows were batched.
inline constexpr Index kTokenBlock = 128;
struct TokenBlock {
  Index begin = 0, n = 0;  // rows [begin, begin + n), n <= kTokenBlock
};

/// Of y = x Wᵀ + b:  dw[o,i] += Σ_r dy[r,o] x[r,i],  db[o] += Σ_r dy[r,o],
/// block by block in their order, each block summed from zero in order of r.
/// (dx = dy W is linear() with the transposed weights.)
struct LinearWgradArgs {
  const float* x = nullptr;  // [rows, cols]
  Index x_stride = 0;
  const float* dy = nullptr;  // [rows, n]
  Index dy_stride = 0;
  Index n = 0, cols = 0;  // outputs and inputs
  std::span<const TokenBlock> blocks;
  float* dw = nullptr;  // [n, cols]
  Index dw_stride = 0;
  float* db = nullptr;  // [n] or null
};

/// Of y = x / rms(x) ⊙ w, with n̂ = x / rms(x) and g = dy ⊙ w:
///   dx += (g − n̂ mean(g ⊙ n̂)) / rms(x),  dw += Σ_r dy[r] ⊙ n̂[r]                  arXiv:1910.07467
struct RmsNormVjpArgs {
  const float* x = nullptr;
  Index x_stride = 0;
  const float* weight = nullptr;  // [n]
  const float* dy = nullptr;
  Index dy_stride = 0;
  float* dx = nullptr;
  Index dx_stride = 0;
  bool accumulate = true;  // false: dx is written, not added to, and may be dy
  Index rows = 0, n = 0;
  float eps = 1e-6F;
  /// In ascending order and apart from one another; rows in none of them add nothing to dweight.
  std::span<const TokenBlock> blocks;
  float* dweight = nullptr;  // [n]; null: not wanted
};

/// Of h = silu(gate) ⊙ up, with s = σ(gate):
///   dgate = dh ⊙ up ⊙ s (1 + gate (1 − s)),  dup += dh ⊙ gate s                 arXiv:2002.05202
struct SiluMulVjpArgs {
  const float* gate = nullptr;
  const float* up = nullptr;
  const float* dh = nullptr;
  float* dgate = nullptr;  // may be dh
  float* dup = nullptr;
  Index rows = 0, n = 0;
  Index gate_stride = 0, up_stride = 0, dh_stride = 0, dgate_stride = 0, dup_stride = 0;
};

/// Of causal attention over whole sequences (no cache, first position 0): the keys of row r are the
/// rows of its sequence up to r.
///   p_rt = softmax_t(scale q_r · k_t);  dv_t += p_rt dout_r;  dp_rt = dout_r · v_t
///   ds_rt = scale p_rt (dp_rt − Σ_j p_rj dp_rj);  dq_r += Σ_t ds_rt k_t;  dk_t += ds_rt q_r
///                                                                          arXiv:2205.14135 B.2
struct AttentionVjpArgs {
  const float* q = nullptr;  // [rows, n_heads, k_dim]
  Index q_stride = 0;
  const float* k = nullptr;  // [rows, n_kv_heads, k_dim]
  Index k_stride = 0;
  /// [rows, n_kv_heads, v_dim], or k itself where there is one key head (latent attention: the
  /// values are the first v_dim numbers of the key); then dv is dk.
  const float* v = nullptr;
  Index v_stride = 0;
  const float* dout = nullptr;  // [rows, n_heads, v_dim]
  Index dout_stride = 0;
  float* dq = nullptr;  // with the strides of q, k and v
  float* dk = nullptr;
  float* dv = nullptr;
  Index n_heads = 0, n_kv_heads = 0, k_dim = 0, v_dim = 0;
  float scale = 1;
  std::span<const SequenceRows> sequences;  // row_begin and n_rows alone are looked at
};

/// Of y[t,:] += Σ_k weights[t,k] expert_rows[row_of[t,k],:]:
///   dexpert_rows[row_of[t,k],:] += weights[t,k] dy[t,:]
struct CombineVjpArgs {
  std::span<const std::int32_t> row_of;  // [rows * top_k], no row twice
  const float* weights = nullptr;        // [rows, top_k]
  Index rows = 0, top_k = 0, n = 0;
  const float* dy = nullptr;
  Index dy_stride = 0;
  float* dexpert_rows = nullptr;
  Index expert_stride = 0;
};

/// Of the weights that route() gave the chosen experts: dlogits += ∂L/∂logits. The choice has no
/// gradient, nor has the bias that it looks at.
struct RouteVjpArgs {
  const float* logits = nullptr;          // [rows, n_experts]
  const std::int32_t* experts = nullptr;  // [rows, top_k]
  Index rows = 0, n_experts = 0, top_k = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool normalise = false;
  float scale = 1;
  const float* dweights = nullptr;  // [rows, top_k]
  float* dlogits = nullptr;         // [rows, n_experts]
};

/// The sequence-wise balance loss of V3 (arXiv:2412.19437 eq. 17-20), of each sequence of T rows:
///   loss = α Σ_e f_e P_e,  f_e = E / (K T) Σ_t [e among the K best scores of t],
///   P_e = 1/T Σ_t s_te / Σ_j s_tj
/// f counts without the selection bias and has no gradient; dlogits += dloss ∂loss/∂logits.
/// Each sequence has a dloss of its own.
struct BalanceLossArgs {
  const float* logits = nullptr;  // [rows, n_experts]
  Index n_experts = 0, top_k = 0;
  RouterScore score = RouterScore::kSigmoid;
  std::span<const SequenceRows> sequences;  // row_begin and n_rows alone are looked at
  float alpha = 0;
  const float* dloss = nullptr;  // ∂L/∂loss [sequences]; not looked at where dlogits is null
  float* loss = nullptr;         // [sequences]
  float* dlogits = nullptr;      // [rows, n_experts]; null: only the loss
};

/// Of y[r,:] = table[ids[r],:]:  dtable[ids[r],:] += dy[r,:], in order of the rows.
struct EmbedVjpArgs {
  std::span<const std::int32_t> ids;
  const float* dy = nullptr;
  Index dy_stride = 0;
  Index cols = 0;
  float* dtable = nullptr;  // [vocab, cols]
};

/// Cross-entropy and its gradient in place: log_prob[r] = log softmax(logits[r,:])[target], with
/// the bits that log_prob() gives, and logits[r,:] := dloss (softmax(logits[r,:]) − 1[target]).
/// A row whose target is negative does not count: zeros, and log_prob 0.
struct CrossEntropyArgs {
  float* logits = nullptr;
  Index stride = 0, n = 0;                // n: vocabulary
  std::span<const std::int32_t> targets;  // [rows]
  float dloss = 1;
  float* log_prob = nullptr;  // [rows]
};

/// AdamW with decoupled decay (arXiv:1711.05101) as torch.optim.AdamW has it, g = grad_scale ·
/// grad:
///   w ← (1 − lr weight_decay) w;  m ← β1 m + (1 − β1) g;  v ← β2 v + (1 − β2) g²
///   w ← w − lr / (1 − β1^step) m / (√v / √(1 − β2^step) + eps)
/// bf16 moments are rounded to nearest even when they are kept, after this step has used them.
struct AdamWArgs {
  float* w = nullptr;
  const float* grad = nullptr;
  std::byte* m = nullptr;
  std::byte* v = nullptr;
  DType moments = DType::f32;  // or bf16
  Index n = 0;
  float lr = 0, beta1 = 0.9F, beta2 = 0.95F, eps = 1e-8F, weight_decay = 0, grad_scale = 1;
  Index step = 1;  // counts from 1
};

/// Columns of a tile along a row.
inline constexpr Index kFp8Tile = 128;

/// x as E4M3 holds it (DeepSeek-V3, arXiv:2412.19437 §3.3): for each tile
///   s = max(max |x|, 1e-4) / 448,  code = e4m3(x / s),  y = s · code
/// without blocks a tile is kFp8Tile columns of a row, counted from the first; with them it is a
/// column of the rows of a block. What is not finite stays so.
struct Fp8Args {
  const float* x = nullptr;
  Index x_stride = 0;
  Index rows = 0, cols = 0;
  std::span<const TokenBlock> blocks;
  float* y = nullptr;  // may be x; null: not wanted
  Index y_stride = 0;
  std::uint8_t* codes = nullptr;  // [rows, cols], of tiles along rows; null: not wanted
  float* scales = nullptr;        // [rows, ceil(cols / kFp8Tile)], with the codes
};

/// y from what fp8() made of tiles along rows.
struct Fp8DecodeArgs {
  const std::uint8_t* codes = nullptr;
  const float* scales = nullptr;
  Index rows = 0, cols = 0;
  float* y = nullptr;
  Index y_stride = 0;
};

/// y += x
struct AddArgs {
  const float* x = nullptr;
  Index x_stride = 0;
  float* y = nullptr;
  Index y_stride = 0;
  Index rows = 0, n = 0;
};

}  // namespace kogia
