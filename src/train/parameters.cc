#include "train/parameters.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/error.h"
#include "base/random.h"
#include "formats/hf_config.h"
#include "formats/quantize_types.h"
#include "model/rewrite.h"
#include "model/synth_plan.h"
#include "tensor/convert.h"
#include "tensor/quantize.h"

namespace kogia {
namespace {

ModelConfig parse(const std::string& config_json) {
  return ModelConfig::from_hf(HfConfig::parse(config_json, "config.json"));
}

/// Layers of multi-token prediction store copies of the embedding and the head.
bool is_copy(std::string_view name) {
  return name.starts_with("model.layers.") &&
         (name.ends_with(".embed_tokens.weight") || name.ends_with(".shared_head.head.weight"));
}

constexpr const char* kScale = "_scale_inv";

/// A master in blocks of 128 x 128.
void encode_fp8(const TensorEntry& master, std::uint8_t* codes, float* scales) {
  const auto* const x = reinterpret_cast<const float*>(master.view.data);
  const Index rows = master.view.shape[0], cols = master.view.shape[1];
  for (Index r = 0; r < rows; r += kFp8Block) {
    for (Index c = 0; c < cols; c += kFp8Block) {
      *scales++ = encode_fp8_block(x + r * cols + c, cols, std::min(kFp8Block, rows - r),
                                   std::min(kFp8Block, cols - c), codes + r * cols + c, cols);
    }
  }
}

std::string text_of(const Checkpoint& from) {
  const auto text = from.text_file("config.json");
  if (text) return *text;
  throw Error(ErrorCode::kUsage, fmt::format("{}: has no config.json", from.path()),
              "train from a folder: kogia convert makes one of a GGUF");
}

}  // namespace

Parameters::Parameters(Device& device, const std::string& config_json, double initializer_range,
                       std::uint64_t seed, Recipe recipe, MlaForm form)
    : recipe_(recipe),
      config_json_(config_json),
      masters_("the model", config_json),
      weights_(1 + parse(config_json).num_nextn_predict_layers) {
  plan(initializer_range, seed);
  build(device, form);
}

Parameters::Parameters(Device& device, const Checkpoint& from, Recipe recipe, MlaForm form)
    : recipe_(recipe),
      config_json_(text_of(from)),
      masters_(from.path(), config_json_),
      weights_(1 + parse(config_json_).num_nextn_predict_layers) {
  for (const SynthTensor& t : plan_folder(parse(config_json_), false)) {
    if (is_copy(t.name)) continue;
    const TensorEntry& entry = from.require(t.name);
    if (entry.view.shape != t.shape || is_block(entry.view.dtype) ||
        entry.view.dtype == DType::f8_e4m3) {
      throw Error(ErrorCode::kInvalid,
                  fmt::format("{}: {} has another shape or type than training takes (f32, bf16 or "
                              "f16)",
                              entry.file, t.name),
                  "kogia convert --type f32 makes a folder of it");
    }
    auto* const to = reinterpret_cast<float*>(masters_.add(t.name, DType::f32, t.shape));
    dequantize_row(entry.view.dtype, entry.view.data, to, entry.view.n_values());
  }
  build(device, form);
}

Parameters::~Parameters() = default;

// Each tensor has random numbers of its own, by its place.
void Parameters::plan(double initializer_range, std::uint64_t seed) {
  std::uint64_t place = 0;
  for (const SynthTensor& t : plan_folder(parse(config_json_), false)) {
    if (is_copy(t.name)) continue;
    auto* const to = reinterpret_cast<float*>(masters_.add(t.name, DType::f32, t.shape));
    const Index n = masters_.require(t.name).view.n_values();
    const Philox random(seed, place++);
    if (t.fill == SynthTensor::Fill::kOnes) {
      std::fill_n(to, n, 1.0f);
    } else if (t.shape.size() > 1) {
      for (Index i = 0; i < n; ++i) {
        to[i] =
            static_cast<float>(initializer_range) * random.normal(static_cast<std::uint64_t>(i));
      }
    }
  }
}

// bf16: every matrix but the routers', whose products are f32's everywhere. fp8: of those, the
// matrices that are FP8 in DeepSeek's files.
DType Parameters::computed_dtype(std::string_view name, std::span<const Index> shape) const {
  const bool router = name.ends_with(".mlp.gate.weight");
  if (recipe_ == Recipe::kF32 || shape.size() < 2 || router) return DType::f32;
  return recipe_ == Recipe::kFp8 && is_fp8_weight(name, shape) ? DType::f8_e4m3 : DType::bf16;
}

void Parameters::copy_masters() {
  for (const TensorEntry& entry : masters_.tensors()) {
    const auto* const from = reinterpret_cast<const float*>(entry.view.data);
    std::byte* const to = computed_->data(entry.name);
    const Index n = entry.view.n_values();
    const DType dtype = computed_dtype(entry.name, entry.view.shape);
    if (dtype == DType::f32) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
    } else if (dtype == DType::bf16) {
      quantize_row(DType::bf16, from, to, n);
    } else {
      encode_fp8(entry, reinterpret_cast<std::uint8_t*>(to),
                 reinterpret_cast<float*>(computed_->data(entry.name + kScale)));
    }
  }
}

void Parameters::build(Device& device, MlaForm form) {
  if (recipe_ != Recipe::kF32) {
    computed_ = std::make_unique<MemoryCheckpoint>(masters_.path(), config_json_);
    for (const TensorEntry& entry : masters_.tensors()) {
      const DType dtype = computed_dtype(entry.name, entry.view.shape);
      computed_->add(entry.name, dtype, entry.view.shape);
      if (dtype != DType::f8_e4m3) continue;
      computed_->add(
          entry.name + kScale, DType::f32,
          {ceil_div(entry.view.shape[0], kFp8Block), ceil_div(entry.view.shape[1], kFp8Block)});
    }
    copy_masters();
  }
  const Checkpoint& checkpoint = computed_ ? *computed_ : masters_;
  LoadOptions options{.mla = form, .training = &weights_};
  if (recipe_ == Recipe::kFp8) options.compute = Compute::fp8;
  model_ = Model::load(checkpoint, device, options);
  for (const TensorEntry& entry : masters_.tensors()) {
    Parameter p{.name = entry.name, .shape = entry.view.shape};
    p.master = reinterpret_cast<float*>(masters_.data(entry.name));
    p.n = entry.view.n_values();
    p.decays = p.shape.size() > 1;
    const auto gradient = weights_.gradients().find(entry.name);
    if (gradient != weights_.gradients().end()) p.grad = gradient->second.values.data();
    parameters_.push_back(std::move(p));
  }
}

std::vector<Parameters::Exported> Parameters::exported() const {
  std::vector<Exported> out;
  const auto named = [&](std::string_view name) -> const Parameter* {
    const auto at = std::ranges::find(parameters_, name, &Parameter::name);
    return at == parameters_.end() ? nullptr : &*at;
  };
  for (const SynthTensor& t : plan_folder(parse(config_json_), false)) {
    const Parameter* of = named(t.name);
    if (is_copy(t.name)) {
      of = named(t.stream == "head" ? "lm_head.weight" : "model.embed_tokens.weight");
      if (of == nullptr) of = named("model.embed_tokens.weight");  // tied
    }
    KOGIA_CHECK(of != nullptr);
    out.push_back({t.name, of});
  }
  return out;
}

float* Parameters::router_bias(Index layer) {
  const std::string name = fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", layer);
  if (masters_.find(name) == nullptr) return nullptr;
  return reinterpret_cast<float*>(masters_.data(name));
}

void Parameters::refresh() {
  if (computed_) copy_masters();
  weights_.refresh();
}

Index Parameters::n_values() const {
  Index n = 0;
  for (const Parameter& p : parameters_) n += p.n;
  return n;
}

}  // namespace kogia
