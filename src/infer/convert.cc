#include "infer/convert.h"

#include <algorithm>

#include "base/error.h"
#include "formats/quantize_types.h"
#include "infer/model_files.h"
#include "tensor/convert.h"
#include "tensor/quantize.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

constexpr DType kTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                            DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                            DType::q4_k, DType::q5_k, DType::q6_k};

bool is_gguf_path(const fs::path& path) { return path.extension() == ".gguf"; }

void check_target(const Checkpoint& source, const fs::path& target) {
  std::error_code error;
  if (fs::equivalent(source.path(), target, error)) {
    throw_error(ErrorCode::kUsage, "DST is SRC: {}", target.string());
  }
  const bool folder = fs::is_directory(target, error);
  if (is_gguf_path(target) ? fs::exists(target, error)
                           : fs::exists(target, error) && !(folder && fs::is_empty(target))) {
    throw Error(ErrorCode::kUsage, fmt::format("{}: is there already", target.string()),
                "name another place, or remove it");
  }
}

/// All values of a small tensor are held by `dtype` exactly.
bool holds_exactly(const TargetTensor& t, DType dtype) {
  std::vector<float> x(static_cast<std::size_t>(t.rows() * t.cols()));
  read_rows(t, 0, t.rows(), x.data());
  const auto kept = [&](float v) {
    return (dtype == DType::bf16 ? round_bf16(v) : round_f16(v)) == v;
  };
  return dtype == DType::f32 || std::ranges::all_of(x, kept);
}

/// A GGUF widened norms and routers to f32: they go back to the model's type where that loses
/// nothing.
void choose_folder_types(std::vector<TargetTensor>& targets, std::optional<DType> wanted,
                         bool from_gguf) {
  const DType main = wanted.value_or(main_type(targets));
  for (TargetTensor& t : targets) {
    if (t.use == TensorUse::kRouterBias) {
      t.dtype = from_gguf || wanted ? DType::f32 : t.dtype;
    } else if (wanted) {
      t.dtype = *wanted;
    } else if (is_block(t.dtype)) {
      t.dtype = DType::bf16;
    } else if (from_gguf && t.dtype == DType::f32 &&
               (t.use == TensorUse::kVector || t.use == TensorUse::kRouter) &&
               holds_exactly(t, main)) {
      t.dtype = main;
    }
  }
}

ConvertReport report_of(const std::vector<TargetTensor>& targets) {
  ConvertReport report;
  for (const TargetTensor& t : targets) {
    report.n_bytes += t.rows() * row_bytes(t.dtype, t.cols());
    ++report.tensors[std::string(name(t.dtype))];
  }
  return report;
}

FileOptions file_options(const ConvertOptions& options, bool mtp) {
  // What no block and no scale can hold would become something else in silence.
  const bool finite = options.type && is_block(*options.type);
  return {
      .mtp = mtp,
      .tokenizer = options.tokenizer,
      .max_shard_bytes = options.max_shard_bytes,
      .rewrite = {
          .n_threads = options.n_threads, .on_progress = options.on_progress, .finite = finite}};
}

ConvertReport to_gguf(const Checkpoint& source, const ModelConfig& config, const fs::path& target,
                      const ConvertOptions& options) {
  const bool has = has_mtp(source, config), mtp = options.mtp && has;
  std::vector<TargetTensor> targets = plan_gguf(source, config, mtp);
  for (TargetTensor& t : targets) t.dtype = gguf_type(t, options.type);
  ConvertReport report = report_of(targets);
  report.left_out_mtp = has && !mtp;
  const std::uint32_t type = gguf_file_type(options.type.value_or(main_type(targets)));
  report.has_tokenizer =
      write_gguf_file(source, config, targets, type, target, file_options(options, mtp));
  return report;
}

ConvertReport to_folder(const Checkpoint& source, const ModelConfig& config, const fs::path& target,
                        const ConvertOptions& options) {
  if (options.type && (is_block(*options.type) || *options.type == DType::f8_e4m3)) {
    throw Error(ErrorCode::kUsage,
                fmt::format("a folder of safetensors cannot hold {}", name(*options.type)),
                "expected f32, f16 or bf16; FP8 is made by `kogia quantize`");
  }
  std::vector<TargetTensor> targets = plan_folder(source, config, true);
  choose_folder_types(targets, options.type, source.gguf() != nullptr);
  ConvertReport report = report_of(targets);
  report.has_tokenizer =
      write_folder_files(source, config, targets, target, file_options(options, true));
  return report;
}

}  // namespace

ConvertReport convert_checkpoint(const Checkpoint& source, const fs::path& target,
                                 const ConvertOptions& options) {
  check_target(source, target);
  if (options.type && std::ranges::find(kTypes, *options.type) == std::end(kTypes)) {
    throw_error(ErrorCode::kUsage, "{} cannot be written", name(*options.type));
  }
  const ModelConfig config = config_of(source);
  return is_gguf_path(target) ? to_gguf(source, config, target, options)
                              : to_folder(source, config, target, options);
}

std::vector<std::string> convert_types() {
  std::vector<std::string> names;
  for (const DType type : kTypes) names.emplace_back(name(type));
  return names;
}

}  // namespace kogia
