#include "device/cpu_device.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/thread_pool.h"
#include "device/cpu/attention.h"
#include "device/cpu/cpu_features.h"
#include "device/cpu/gradients.h"
#include "device/cpu/kernel_table.h"
#include "device/cpu/limits.h"
#include "device/cpu/linear.h"
#include "device/cpu/row_slices.h"
#include "device/reference/cache.h"
#include "device/reference/route.h"

namespace kogia {
namespace {

class CpuDevice final : public Device {
 public:
  CpuDevice(Isa isa, int n_threads, bool slow_bf16)
      : kernels_(kernels(isa)),
        matrices_(matrix_ops(isa, slow_bf16)),
        limit_loops_(limit_loops(isa)),
        pool_(n_threads),
        attention_(!slow_bf16),
        gradients_(gradient_kernels(isa)) {}

  std::string name() const override { return std::string("cpu/") + kernels_.name; }
  int n_threads() const override { return pool_.n_threads(); }
  Compute default_compute(DType weights) const override {
    return matrices_.default_compute(weights);
  }

  PackedForm packed_form(const MatrixSource& source, const PackOptions& options,
                         std::optional<int> variant) const override {
    return matrices_.packed_form(source, options, variant);
  }
  void pack_rows(const MatrixSource& source, const PackOptions& options, const PackedForm& form,
                 Index first, Index n, std::byte* to) const override {
    matrices_.pack_rows(source, options, form, first, n, to);
  }
  std::unique_ptr<Matrix> adopt(const MatrixSource& source, const PackOptions& options,
                                const PackedForm& form,
                                std::shared_ptr<const std::byte> packed) const override {
    return matrices_.adopt(source, options, form, std::move(packed));
  }
  std::unique_ptr<Matrix> borrow(const MatrixSource& source,
                                 const PackOptions& options) const override {
    return matrices_.borrow(source, options);
  }
  Index cache_page_bytes(const CacheSpec& spec) const override {
    return PageLayout(spec).head_bytes * spec.n_kv_heads;
  }

  void embed(const EmbedArgs& args) override { matrices_.embed(args, pool_); }
  void linear(std::span<const LinearArgs> products) override { matrices_.linear(products, pool_); }
  void rms_norm(const RmsNormArgs& args) override;
  void rope(const RopeArgs& args) override;
  void cache_append(const CacheAppendArgs& args) override { kogia::cache_append(args, pool_); }
  void cache_read(const CacheReadArgs& args) override { kogia::cache_read(args, pool_); }
  void attention(const AttentionArgs& args) override { attention_.run(args, kernels_, pool_); }
  void silu_mul(const SiluMulArgs& args) override;
  void route(const RouteArgs& args) override;
  void gather_rows(const GatherRowsArgs& args) override;
  void combine(const CombineArgs& args) override;
  void log_prob(const LogProbArgs& args) override;

  void linear_wgrad(std::span<const LinearWgradArgs> products) override {
    gradients_.linear_wgrad(products, pool_);
  }
  void rms_norm_vjp(const RmsNormVjpArgs& args) override { gradients_.rms_norm_vjp(args, pool_); }
  void silu_mul_vjp(const SiluMulVjpArgs& args) override { gradients_.silu_mul_vjp(args, pool_); }
  void attention_vjp(const AttentionVjpArgs& args) override {
    gradients_.attention_vjp(args, pool_);
  }
  void combine_vjp(const CombineVjpArgs& args) override { gradients_.combine_vjp(args, pool_); }
  void route_vjp(const RouteVjpArgs& args) override { gradients_.route_vjp(args, pool_); }
  void balance_loss(const BalanceLossArgs& args) override { gradients_.balance_loss(args, pool_); }
  void embed_vjp(const EmbedVjpArgs& args) override { gradients_.embed_vjp(args, pool_); }
  void cross_entropy(const CrossEntropyArgs& args) override {
    gradients_.cross_entropy(args, pool_);
  }
  void adamw(const AdamWArgs& args) override { gradients_.adamw(args, pool_); }
  double sum_squares(std::span<const float> x) override { return gradients_.sum_squares(x, pool_); }
  void add(const AddArgs& args) override { gradients_.add(args, pool_); }
  void fp8(const Fp8Args& args) override { gradients_.fp8(args, pool_); }
  void fp8_decode(const Fp8DecodeArgs& args) override { gradients_.fp8_decode(args, pool_); }

  MachineLimits measure_limits() override { return kogia::measure_limits(limit_loops_, pool_); }
  MachineLimits measure_product_limits() override {
    return kogia::measure_limits(limit_loops_, pool_, {.memory_bytes = 0, .pass_s = 0.03});
  }

  void parallel(Index n, const std::function<void(Index)>& job) override {
    pool_.run(n, [&](Index i, int) { job(i); });
  }

 private:
  template <class Body>
  void for_rows(Index rows, Index floats, const Body& body) {
    kogia::for_rows(pool_, rows, floats, body);
  }

  const KernelTable& kernels_;
  const MatrixOps& matrices_;
  const LimitLoops& limit_loops_;
  ThreadPool pool_;
  CpuAttention attention_;
  CpuGradients gradients_;
};

void CpuDevice::rms_norm(const RmsNormArgs& args) {
  KOGIA_CHECK(args.rows >= 0 && args.n > 0);
  for_rows(args.rows, args.n, [&](Index begin, Index end) {
    RmsNormArgs a = args;
    a.x += begin * a.x_stride;
    a.y += begin * a.y_stride;
    a.rows = end - begin;
    kernels_.rms_norm(a);
  });
}

void CpuDevice::rope(const RopeArgs& args) {
  KOGIA_CHECK(args.rows >= 0 && args.n_rot >= 0 && args.n_rot % 2 == 0);
  for_rows(args.rows, args.n_heads * args.n_rot, [&](Index begin, Index end) {
    RopeArgs a = args;
    a.x += begin * a.row_stride;
    a.cos += begin * (a.n_rot / 2);
    a.sin += begin * (a.n_rot / 2);
    a.rows = end - begin;
    kernels_.rope(a);
  });
}

void CpuDevice::silu_mul(const SiluMulArgs& args) {
  KOGIA_CHECK(args.rows >= 0 && args.n >= 0);
  for_rows(args.rows, 4 * args.n, [&](Index begin, Index end) {
    SiluMulArgs a = args;
    a.gate += begin * a.gate_stride;
    a.up += begin * a.up_stride;
    a.y += begin * a.y_stride;
    a.rows = end - begin;
    kernels_.silu_mul(a);
  });
}

void CpuDevice::route(const RouteArgs& args) {
  KOGIA_CHECK(args.rows >= 0 && args.top_k > 0 && args.top_k <= args.n_experts);
  KOGIA_CHECK(args.n_group >= 1 && args.n_experts % args.n_group == 0);
  KOGIA_CHECK(args.topk_group >= 1 && args.topk_group <= args.n_group);
  for_rows(args.rows, 64 * args.n_experts, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) reference::route_row(args, r);
  });
}

void CpuDevice::gather_rows(const GatherRowsArgs& args) {
  for_rows(static_cast<Index>(args.index.size()), args.n, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const float* row = args.x + args.index[static_cast<std::size_t>(i)] * args.x_stride;
      std::memcpy(args.y + i * args.y_stride, row,
                  static_cast<std::size_t>(args.n) * sizeof(float));
    }
  });
}

void CpuDevice::combine(const CombineArgs& args) {
  KOGIA_CHECK(static_cast<Index>(args.row_of.size()) == args.rows * args.top_k);
  for_rows(args.rows, args.n * args.top_k, [&](Index begin, Index end) {
    kernels_.combine({.expert_rows = args.expert_rows,
                      .expert_stride = args.expert_stride,
                      .row_of = args.row_of.data() + begin * args.top_k,
                      .weights = args.weights + begin * args.top_k,
                      .rows = end - begin,
                      .top_k = args.top_k,
                      .n = args.n,
                      .y = args.y + begin * args.y_stride,
                      .y_stride = args.y_stride});
  });
}

void CpuDevice::log_prob(const LogProbArgs& args) {
  for_rows(static_cast<Index>(args.ids.size()), args.n, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const Index id = args.ids[static_cast<std::size_t>(r)];
      KOGIA_CHECK(id >= 0 && id < args.n);
      args.log_prob[r] = kernels_.log_prob(args.logits + r * args.stride, args.n, id);
    }
  });
}

}  // namespace

std::unique_ptr<Device> make_cpu_device(const CpuOptions& options) {
  const std::vector<Isa> isas = available_isas();
  const Isa isa = options.isa.value_or(isas.back());
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    throw Error(ErrorCode::kUsage,
                fmt::format("this processor cannot run {} kernels; the best here is {}", name(isa),
                            name(isas.back())),
                "leave --isa out");
  }
  return std::make_unique<CpuDevice>(isa, options.n_threads,
                                     options.slow_bf16.value_or(cpu_features().slow_bf16));
}

}  // namespace kogia
