#include "infer/quantize.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_reader.h"
#include "formats/gguf_writer.h"
#include "infer/model_files.h"
#include "tensor/quantize.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

MixtureFacts facts_of(const GgufMetadata& m) {
  MixtureFacts facts{.architecture = m.require_string("general.architecture")};
  const auto number = [&](std::string_view key) {
    return m.get_int(facts.architecture + "." + std::string(key)).value_or(0);
  };
  facts.n_layers = number("block_count");
  facts.n_experts = number("expert_count");
  facts.n_heads = number("attention.head_count");
  facts.n_heads_kv = number("attention.head_count_kv");
  return facts;
}

MixtureFacts facts_of(const ModelConfig& c, bool mtp) {
  return {.architecture = c.is_mla() ? "deepseek2" : std::string(name(c.family)),
          .n_layers = c.num_hidden_layers + (mtp ? c.num_nextn_predict_layers : 0),
          .n_experts = c.n_routed_experts,
          .n_heads = c.num_attention_heads,
          .n_heads_kv = c.is_mla() ? 1 : c.num_key_value_heads};
}

/// Keys that are about the file, not the model.
bool belongs_to_the_file(std::string_view key) {
  static const std::set<std::string_view> kKeys = {
      "general.alignment", "general.file_type", "general.quantization_version",
      "split.no",          "split.count",       "split.tensors.count"};
  return kKeys.contains(key);
}

/// The mean squares of a tensor's columns, matrix after matrix; empty: none.
std::span<const float> importance_of(const QuantizeOptions& options, const TargetTensor& t) {
  if (options.importance == nullptr || t.name == "token_embd.weight") return {};
  Index n = t.cols();
  for (std::size_t i = 0; i + 2 < t.shape.size(); ++i) n *= t.shape[i];
  return options.importance->find(t.name, n);
}

class Quantizer {
 public:
  Quantizer(const Checkpoint& source, const QuantizeOptions& options)
      : source_(source), options_(options) {
    for (const TensorEntry& t : source.tensors()) report_.bytes_before += t.view.n_bytes;
  }

  QuantizeReport gguf_of_gguf(const fs::path& path) {
    std::vector<TargetTensor> targets = plan_same(source_);
    mix(targets, facts_of(source_.gguf()->metadata()));
    GgufWriter out(path);
    for (const GgufStoredKey& key : source_.gguf()->stored_keys()) {
      if (!belongs_to_the_file(key.name)) out.set_stored(key.name, key.value);
    }
    out.set("general.file_type", gguf_file_type(options_.target));
    out.set("general.quantization_version", std::uint32_t{2});
    write_tensors(source_, targets, out, rewrite_options());
    out.commit();
    return std::move(report_);
  }

  QuantizeReport gguf_of_folder(const fs::path& path) {
    const ModelConfig config = config_of(source_);
    const bool has = has_mtp(source_, config), mtp = options_.mtp && has;
    report_.left_out_mtp = has && !mtp;
    std::vector<TargetTensor> targets = plan_gguf(source_, config, mtp);
    for (TargetTensor& t : targets) t.dtype = gguf_type(t, {});
    mix(targets, facts_of(config, mtp));
    write_gguf_file(source_, config, targets, gguf_file_type(options_.target), path,
                    {.mtp = mtp, .rewrite = rewrite_options()});
    return std::move(report_);
  }

  QuantizeReport fp8_folder(const fs::path& path) {
    const ModelConfig config = config_of(source_);
    std::vector<TargetTensor> targets = plan_folder(source_, config, true);
    check_kept(targets);
    for (TargetTensor& t : targets) {
      const bool fp8 = is_fp8_weight(t.name, t.shape) && !is_kept(t.name);
      t.dtype = t.use == TensorUse::kRouterBias ? DType::f32 : fp8 ? DType::f8_e4m3 : DType::bf16;
      count(t);
    }
    write_folder_files(source_, config, targets, path, {.mtp = true, .rewrite = rewrite_options()});
    return std::move(report_);
  }

 private:
  bool is_kept(std::string_view name) const {
    return std::ranges::any_of(options_.keep_bf16, [&](const std::string& part) {
      return name.find(part) != std::string_view::npos;
    });
  }
  void check_kept(const std::vector<TargetTensor>& targets) const {
    for (const std::string& part : options_.keep_bf16) {
      const bool is_part = std::ranges::any_of(targets, [&](const TargetTensor& t) {
        return is_fp8_weight(t.name, t.shape) && t.name.find(part) != std::string::npos;
      });
      if (is_part && !part.empty()) continue;
      throw Error(
          ErrorCode::kUsage,
          fmt::format("{}: no weight that becomes FP8 has '{}' in its name", source_.path(), part),
          "names are those of a Hugging Face folder, such as "
          "model.layers.3.self_attn.q_proj.weight");
    }
  }

  RewriteOptions rewrite_options() const {
    RewriteOptions rewrite{
        .n_threads = options_.n_threads, .on_progress = options_.on_progress, .finite = true};
    if (options_.importance != nullptr) {
      rewrite.encode = [this](const RowsToEncode& rows) { encode(rows); };
    }
    return rewrite;
  }

  /// Gives each tensor the type that the mixture has for it.
  void mix(std::vector<TargetTensor>& targets, MixtureFacts facts) {
    facts.has_importance = options_.importance != nullptr;
    std::vector<TensorToQuantize> tensors;
    for (const TargetTensor& t : targets) {
      tensors.push_back({.name = t.name, .shape = t.shape, .dtype = t.dtype});
    }
    const std::vector<DType> types = choose_types(options_.target, tensors, facts);
    for (std::size_t i = 0; i < types.size(); ++i) {
      TargetTensor& t = targets[i];
      t.dtype = types[i];
      count(t);
      if (t.dtype == t.source_dtype() || t.dtype == tensors[i].dtype) continue;
      check_type(t);
      note_fallback(t);
      note_importance(t);
    }
    if (facts.has_importance && importance_.empty()) refuse_importance();
  }

  void count(const TargetTensor& t) {
    ++report_.tensors[std::string(name(t.dtype))];
    report_.bytes_after += t.rows() * row_bytes(t.dtype, t.cols());
    if (t.is_fp8())
      report_.bytes_after += 4 * ceil_div(t.rows(), kFp8Block) * ceil_div(t.cols(), kFp8Block);
    const DType source = t.source_dtype();
    if (is_block(source) && source != t.dtype) ++report_.n_requantized;
  }
  void check_type(const TargetTensor& t) const {
    if (is_floating(t.source_dtype())) return;
    throw_error(ErrorCode::kUnsupported, "{}: {} is {}, expected a floating or quantised type",
                source_.path(), t.name, name(t.source_dtype()));
  }
  void note_fallback(const TargetTensor& t) {
    const Quantization q = options_.target;
    if (t.cols() % 256 == 0 || q == Quantization::kQ8_0 || q == Quantization::kQ4_0) return;
    report_.fallbacks.push_back(
        fmt::format("{}: rows of {} values: {}", t.name, t.cols(), name(t.dtype)));
  }
  void note_importance(const TargetTensor& t) {
    if (options_.importance == nullptr) return;
    const std::span<const float> found = importance_of(options_, t);
    if (found.empty()) {
      report_.without_importance.push_back(t.name);
    } else {
      importance_[t.name] = found;
    }
  }
  [[noreturn]] void refuse_importance() const {
    throw Error(
        ErrorCode::kInvalid,
        fmt::format("{}: the importance matrix knows none of the tensors that are "
                    "quantised, such as {}",
                    source_.path(),
                    report_.without_importance.empty() ? std::string("none")
                                                       : report_.without_importance.front()),
        "it is of another model, or these tensors have the type already");
  }

  void encode(const RowsToEncode& rows) const {
    const TargetTensor& t = rows.target;
    const auto known = importance_.find(t.name);
    if (known == importance_.end()) return encode_plain(rows);
    const Index cols = t.cols(), bytes = row_bytes(t.dtype, cols);
    const Index rows_per_matrix = t.shape.size() > 1 ? t.shape[t.shape.size() - 2] : 1;
    for (Index i = 0; i < rows.n_rows; ++i) {
      const float* importance =
          known->second.data() + (rows.first_row + i) / rows_per_matrix * cols;
      encode_row(t.dtype, rows.x + i * cols, importance, rows.out + i * bytes, cols);
    }
  }

  const Checkpoint& source_;
  const QuantizeOptions& options_;
  QuantizeReport report_;
  std::map<std::string, std::span<const float>, std::less<>> importance_;
};

}  // namespace

QuantizeReport quantize_checkpoint(const Checkpoint& source, const fs::path& target,
                                   const QuantizeOptions& options) {
  Quantizer quantizer(source, options);
  if (options.target == Quantization::kFp8) return quantizer.fp8_folder(target);
  return source.gguf() != nullptr ? quantizer.gguf_of_gguf(target)
                                  : quantizer.gguf_of_folder(target);
}

}  // namespace kogia
