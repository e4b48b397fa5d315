#include "infer/convert.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/hf_config.h"
#include "formats/quantize_types.h"
#include "formats/safetensors_writer.h"
#include "infer/converted_text.h"
#include "model/config_write.h"
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

DType gguf_type(const TargetTensor& t, std::optional<DType> wanted) {
  switch (t.use) {
    case TensorUse::kVector:
    case TensorUse::kRouter:
    case TensorUse::kRouterBias:
      return DType::f32;
    default:
      break;
  }
  const DType type = wanted.value_or(t.dtype);
  if (!can_encode(type) && type != t.source_dtype()) return DType::bf16;
  // A stored block type whose rows are laid otherwise in the target may not fit.
  return type_that_fits(type, t.cols());
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

/// The type most of the weights are in: what torch_dtype says.
DType main_type(const std::vector<TargetTensor>& targets) {
  std::map<DType, Index> sizes;
  for (const TargetTensor& t : targets) {
    if (t.use == TensorUse::kMatrix || t.use == TensorUse::kEmbedding) {
      sizes[is_block(t.dtype) ? DType::bf16 : t.dtype] += t.rows() * t.cols();
    }
  }
  const auto most = std::ranges::max_element(sizes, {}, [](const auto& s) { return s.second; });
  return most == sizes.end() ? DType::bf16 : most->first;
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

RewriteOptions rewrite_options(const ConvertOptions& options) {
  return {.n_threads = options.n_threads, .on_progress = options.on_progress};
}

ConvertReport write_gguf(const Checkpoint& source, const ModelConfig& config,
                         const fs::path& target, const ConvertOptions& options) {
  std::vector<TargetTensor> targets = plan_gguf(source, config, options.mtp);
  for (TargetTensor& t : targets) t.dtype = gguf_type(t, options.type);
  if (const auto divisors = rope_divisors(config.rope); !divisors.empty()) {
    targets.push_back({.name = "rope_freqs.weight",
                       .shape = {static_cast<Index>(divisors.size())},
                       .use = TensorUse::kVector,
                       .pieces = {},
                       .values = divisors});
  }
  ConvertReport report = report_of(targets);
  report.left_out_mtp = !options.mtp && has_mtp(source, config);

  const std::optional<ConvertedText> text =
      options.tokenizer ? read_text(source, config.vocab_size) : std::nullopt;
  GgufWriter writer(target);
  set_gguf_architecture(writer, config, options.mtp && has_mtp(source, config));
  writer.set("general.name", model_name(source));
  writer.set("general.file_type", gguf_file_type(options.type.value_or(main_type(targets))));
  writer.set("general.quantization_version", std::uint32_t{2});
  set_gguf_tokenizer(writer, text ? &*text : nullptr);
  write_tensors(source, targets, writer, rewrite_options(options));
  writer.commit();
  report.has_tokenizer = text.has_value();
  return report;
}

ConvertReport write_folder(const Checkpoint& source, ModelConfig config, const fs::path& target,
                           const ConvertOptions& options) {
  if (options.type && (is_block(*options.type) || *options.type == DType::f8_e4m3)) {
    throw Error(ErrorCode::kUsage,
                fmt::format("a folder of safetensors cannot hold {}", name(*options.type)),
                "expected f32, f16 or bf16; FP8 is made by `kogia quantize`");
  }
  std::vector<TargetTensor> targets = plan_folder(source, config, true);
  choose_folder_types(targets, options.type, source.gguf() != nullptr);
  if (!has_mtp(source, config)) config.num_nextn_predict_layers = 0;
  ConvertReport report = report_of(targets);

  const std::optional<ConvertedText> text =
      options.tokenizer ? read_text(source, config.vocab_size) : std::nullopt;
  ConfigExtras extras = config_extras(source, text ? &*text : nullptr);
  extras.torch_dtype = main_type(targets);
  SafetensorsWriter writer(target, options.max_shard_bytes);
  writer.add_text("config.json", official_config_json(config, extras));
  if (options.tokenizer) add_tokenizer_files(writer, source, text ? &*text : nullptr);
  write_tensors(source, targets, writer, rewrite_options(options));
  writer.commit();
  report.has_tokenizer = text.has_value();
  return report;
}

/// llama3's scaling lies in a tensor of a GGUF.
void read_rope_freqs(const Checkpoint& source, ModelConfig& config) {
  const TensorEntry* freqs = source.gguf() ? source.find("rope_freqs.weight") : nullptr;
  if (freqs == nullptr) return;
  const std::vector<Index> expected = {config.rope.dims / 2};
  if (freqs->view.dtype != DType::f32 || freqs->view.shape != expected) {
    throw_error(ErrorCode::kInvalid, "{}: rope_freqs.weight is no f32 [{}]", freqs->file,
                expected[0]);
  }
  std::vector<float> divisors(static_cast<std::size_t>(expected[0]));
  dequantize_row(DType::f32, freqs->view.data, divisors.data(), expected[0]);
  if (std::ranges::all_of(divisors, [](float d) { return d == 1; })) return;
  config.rope = llama3_rope_of(config.rope, divisors, freqs->file);
}

}  // namespace

ConvertReport convert_checkpoint(const Checkpoint& source, const fs::path& target,
                                 const ConvertOptions& options) {
  check_target(source, target);
  if (options.type && std::ranges::find(kTypes, *options.type) == std::end(kTypes)) {
    throw_error(ErrorCode::kUsage, "{} cannot be written", name(*options.type));
  }
  ModelConfig config = ModelConfig::from_checkpoint(source);
  read_rope_freqs(source, config);
  return is_gguf_path(target) ? write_gguf(source, config, target, options)
                              : write_folder(source, config, target, options);
}

std::vector<std::string> convert_types() {
  std::vector<std::string> names;
  for (const DType type : kTypes) names.emplace_back(name(type));
  return names;
}

}  // namespace kogia
