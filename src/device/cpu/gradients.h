#pragma once
// How the backward operations are cut into tasks. The cut never changes a bit: a task owns outputs,
// and each of them is summed in an order that does not know the task.

#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "device/cpu/gradient_table.h"
#include "device/device.h"
#include "tensor/arena.h"

namespace kogia {

/// Contracts as in device.h. Holds scratch from call to call.
class CpuGradients {
 public:
  explicit CpuGradients(const GradientKernels& kernels) : kernels_(kernels) {}

  void linear_wgrad(std::span<const LinearWgradArgs> products, ThreadPool& pool);
  void rms_norm_vjp(const RmsNormVjpArgs& args, ThreadPool& pool);
  void silu_mul_vjp(const SiluMulVjpArgs& args, ThreadPool& pool);
  void attention_vjp(const AttentionVjpArgs& args, ThreadPool& pool);
  void combine_vjp(const CombineVjpArgs& args, ThreadPool& pool);
  void route_vjp(const RouteVjpArgs& args, ThreadPool& pool);
  void balance_loss(const BalanceLossArgs& args, ThreadPool& pool);
  void embed_vjp(const EmbedVjpArgs& args, ThreadPool& pool);
  void cross_entropy(const CrossEntropyArgs& args, ThreadPool& pool);
  void adamw(const AdamWArgs& args, ThreadPool& pool);
  double sum_squares(std::span<const float> x, ThreadPool& pool);
  void add(const AddArgs& args, ThreadPool& pool);
  void fp8(const Fp8Args& args, ThreadPool& pool);
  void fp8_decode(const Fp8DecodeArgs& args, ThreadPool& pool);

 private:
  const GradientKernels& kernels_;
  std::vector<WgradTile> wgrad_tiles_;
  std::vector<AttentionVjpHead> heads_;
  Arena scratch_;
};

}  // namespace kogia
