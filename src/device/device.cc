#include "device/device.h"

#include "base/error.h"
#include "base/page_memory.h"

namespace kogia {

std::string_view name(Compute compute) {
  switch (compute) {
    case Compute::f32:
      return "f32";
    case Compute::bf16:
      return "bf16";
    case Compute::int16:
      return "int16";
    case Compute::int8:
      return "int8";
    case Compute::fp8:
      return "fp8";
  }
  return "?";
}

std::optional<double> MachineLimits::peak_gflop_s(Compute compute) const {
  switch (compute) {
    case Compute::f32:
      break;
    case Compute::bf16:
    case Compute::fp8:
      return bf16_gflop_s ? bf16_gflop_s : f32_gflop_s;
    case Compute::int16:
      return int16_gop_s ? int16_gop_s : f32_gflop_s;
    case Compute::int8:
      return int8_gop_s ? int8_gop_s : f32_gflop_s;
  }
  return f32_gflop_s;
}

std::unique_ptr<Matrix> Device::pack(const MatrixSource& source, const PackOptions& options) const {
  const PackedForm form = packed_form(source, options);
  const std::shared_ptr<std::byte> memory = allocate_pages(form.n_bytes);
  const Index rows = options.transpose ? source.cols : source.rows;
  pack_rows(source, options, form, 0, rows, memory.get());
  return adopt(source, options, form, memory);
}

namespace {
[[noreturn]] void only_runs_models(const Device& device) {
  throw Error(ErrorCode::kUnsupported, fmt::format("the device {} has no gradients", device.name()),
              "train on a CPU");
}
}  // namespace

void Device::linear_wgrad(std::span<const LinearWgradArgs>) { only_runs_models(*this); }
void Device::rms_norm_vjp(const RmsNormVjpArgs&) { only_runs_models(*this); }
void Device::silu_mul_vjp(const SiluMulVjpArgs&) { only_runs_models(*this); }
void Device::attention_vjp(const AttentionVjpArgs&) { only_runs_models(*this); }
void Device::combine_vjp(const CombineVjpArgs&) { only_runs_models(*this); }
void Device::route_vjp(const RouteVjpArgs&) { only_runs_models(*this); }
void Device::balance_loss(const BalanceLossArgs&) { only_runs_models(*this); }
void Device::embed_vjp(const EmbedVjpArgs&) { only_runs_models(*this); }
void Device::cross_entropy(const CrossEntropyArgs&) { only_runs_models(*this); }
void Device::adamw(const AdamWArgs&) { only_runs_models(*this); }
double Device::sum_squares(std::span<const float>) { only_runs_models(*this); }
void Device::add(const AddArgs&) { only_runs_models(*this); }
void Device::fp8(const Fp8Args&) { only_runs_models(*this); }
void Device::fp8_decode(const Fp8DecodeArgs&) { only_runs_models(*this); }

}  // namespace kogia
