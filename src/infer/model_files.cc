#include "infer/model_files.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "formats/gguf_writer.h"
#include "formats/quantize_types.h"
#include "formats/safetensors_writer.h"
#include "infer/converted_text.h"
#include "model/config_write.h"
#include "tensor/convert.h"
#include "tensor/quantize.h"

namespace kogia {
namespace {

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

std::optional<ConvertedText> text_of(const Checkpoint& source, const ModelConfig& config,
                                     const FileOptions& options) {
  return options.tokenizer ? read_text(source, config.vocab_size) : std::nullopt;
}

}  // namespace

ModelConfig config_of(const Checkpoint& source) {
  ModelConfig config = ModelConfig::from_checkpoint(source);
  read_rope_freqs(source, config);
  return config;
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

DType main_type(const std::vector<TargetTensor>& targets) {
  std::map<DType, Index> sizes;
  for (const TargetTensor& t : targets) {
    if (t.use == TensorUse::kMatrix || t.use == TensorUse::kEmbedding) {
      sizes[is_block(t.dtype) || t.is_fp8() ? DType::bf16 : t.dtype] += t.rows() * t.cols();
    }
  }
  const auto most = std::ranges::max_element(sizes, {}, [](const auto& s) { return s.second; });
  return most == sizes.end() ? DType::bf16 : most->first;
}

bool write_gguf_file(const Checkpoint& source, const ModelConfig& config,
                     const std::vector<TargetTensor>& targets, std::uint32_t file_type,
                     const std::filesystem::path& path, const FileOptions& options) {
  const auto text = text_of(source, config, options);
  GgufWriter writer(path);
  set_gguf_architecture(writer, config, options.mtp);
  writer.set("general.name", model_name(source));
  writer.set("general.file_type", file_type);
  writer.set("general.quantization_version", std::uint32_t{2});
  set_gguf_tokenizer(writer, text ? &*text : nullptr);
  write_tensors(source, targets, writer, options.rewrite);
  writer.commit();
  return text.has_value();
}

bool write_folder_files(const Checkpoint& source, ModelConfig config,
                        const std::vector<TargetTensor>& targets, const std::filesystem::path& path,
                        const FileOptions& options) {
  if (!has_mtp(source, config)) config.num_nextn_predict_layers = 0;
  const auto text = text_of(source, config, options);
  ConfigExtras extras = config_extras(source, text ? &*text : nullptr);
  extras.torch_dtype = main_type(targets);
  extras.fp8 = std::ranges::any_of(targets, &TargetTensor::is_fp8);
  for (const TargetTensor& t : targets) {
    constexpr std::string_view kSuffix = ".weight";
    if (extras.fp8 && !t.is_fp8() && is_fp8_weight(t.name, t.shape)) {
      extras.fp8_not.push_back(t.name.substr(0, t.name.size() - kSuffix.size()));
    }
  }
  SafetensorsWriter writer(path, options.max_shard_bytes);
  writer.add_text("config.json", official_config_json(config, extras));
  if (options.tokenizer) add_tokenizer_files(writer, source, text ? &*text : nullptr);
  write_tensors(source, targets, writer, options.rewrite);
  writer.commit();
  return text.has_value();
}

}  // namespace kogia
