#include "formats/quantize_checkpoint.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/interrupt.h"
#include "formats/gguf.h"
#include "formats/gguf_reader.h"
#include "formats/gguf_types.h"
#include "formats/gguf_writer.h"
#include "formats/weight_rows.h"
#include "tensor/quantize.h"

namespace kogia {
namespace {

constexpr Index kSlabBytes = Index{8} << 20;  // of encoded rows at once
constexpr Index kTaskValues = 16384;          // of rows that a thread takes at once

struct Plan {
  const TensorEntry* entry;
  DType type;
  std::span<const float> importance;  // empty: none
};

MixtureFacts facts_of(const GgufMetadata& m, bool has_importance) {
  MixtureFacts facts{.architecture = m.require_string("general.architecture"),
                     .has_importance = has_importance};
  const auto number = [&](std::string_view key) {
    return m.get_int(facts.architecture + "." + std::string(key)).value_or(0);
  };
  facts.n_layers = number("block_count");
  facts.n_experts = number("expert_count");
  facts.n_heads = number("attention.head_count");
  facts.n_heads_kv = number("attention.head_count_kv");
  return facts;
}

/// The mean squares of a tensor's columns, matrix after matrix.
std::span<const float> importance_of(const QuantizeOptions& options, const TensorEntry& t) {
  if (options.importance == nullptr || t.name == "token_embd.weight") return {};
  const std::vector<Index>& shape = t.view.shape;
  Index n = shape.back();
  for (std::size_t i = 0; i + 2 < shape.size(); ++i) n *= shape[i];
  return options.importance->find(t.name, n);
}

std::vector<Plan> plan_tensors(const Checkpoint& source, const QuantizeOptions& options,
                               QuantizeReport& report) {
  std::vector<TensorToQuantize> tensors;
  for (const TensorEntry& t : source.tensors()) {
    if (t.view.n_bytes == 0) {
      throw_error(ErrorCode::kUnsupported, "{}: {} is empty", t.file, t.name);
    }
    tensors.push_back({.name = t.name, .shape = t.view.shape, .dtype = t.view.dtype});
  }
  const MixtureFacts facts = facts_of(source.gguf()->metadata(), options.importance != nullptr);
  const std::vector<DType> types = choose_types(options.target, tensors, facts);
  std::vector<Plan> plans;
  Index n_found = 0;
  for (std::size_t i = 0; i < types.size(); ++i) {
    const TensorEntry& t = source.tensors()[i];
    Plan plan{.entry = &t, .type = types[i], .importance = {}};
    const Index cols = t.view.shape.back();
    if (plan.type != t.view.dtype) {
      if (is_block(t.view.dtype)) ++report.n_requantized;
      plan.importance = importance_of(options, t);
      n_found += plan.importance.empty() ? 0 : 1;
      if (options.importance != nullptr && plan.importance.empty())
        report.without_importance.push_back(t.name);
      if (cols % 256 != 0 && options.target != Quantization::kQ8_0 &&
          options.target != Quantization::kQ4_0) {
        report.fallbacks.push_back(
            fmt::format("{}: rows of {} values: {}", t.name, cols, name(plan.type)));
      }
    }
    ++report.tensors[std::string(name(plan.type))];
    plans.push_back(plan);
  }
  if (options.importance != nullptr && n_found == 0) {
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: the importance matrix knows none of the tensors that are "
                            "quantised, such as {}",
                            source.path(),
                            report.without_importance.empty() ? std::string("none")
                                                              : report.without_importance.front()),
                "it is of another model, or these tensors have the type already");
  }
  return plans;
}

/// Keys that are about the file, not the model.
bool belongs_to_the_file(std::string_view key) {
  static const std::set<std::string_view> kKeys = {
      "general.alignment", "general.file_type", "general.quantization_version",
      "split.no",          "split.count",       "split.tensors.count"};
  return kKeys.contains(key);
}

class GgufQuantizer {
 public:
  GgufQuantizer(const Checkpoint& source, const QuantizeOptions& options)
      : source_(source), options_(options), pool_(options.n_threads) {
    for (const TensorEntry& t : source.tensors()) total_ += t.view.n_bytes;
  }

  void write(const Plan& plan, TensorWriter& out) {
    const WeightRows rows(source_, *plan.entry);
    const bool same = plan.type == plan.entry->view.dtype;
    const Index bytes = row_bytes(plan.type, rows.cols());
    const Index n = std::clamp<Index>(kSlabBytes / std::max<Index>(bytes, 1), 1, rows.rows());
    for (Index begin = 0; begin < rows.rows(); begin += n) {
      throw_if_interrupted();
      const Index end = std::min(begin + n, rows.rows());
      const Index stored = (end - begin) * rows.stored_bytes();
      if (same) {
        out.append({rows.stored(begin), static_cast<std::size_t>(stored)});
      } else {
        encode(plan, rows, begin, end, bytes);
        out.append(encoded_);
      }
      source_.release(rows.stored(begin), stored);
      done_ += stored;
      if (options_.on_progress) options_.on_progress(done_, total_);
    }
  }

 private:
  void encode(const Plan& plan, const WeightRows& rows, Index begin, Index end, Index bytes) {
    encoded_.resize(static_cast<std::size_t>((end - begin) * bytes));
    const std::vector<Index>& shape = plan.entry->view.shape;
    const Index rows_per_matrix = shape.size() > 1 ? shape[shape.size() - 2] : 1;
    pool_.parallel_for(
        end - begin, std::max<Index>(kTaskValues / std::max<Index>(rows.cols(), 1), 1),
        [&](Index first, Index last, int) {
          std::vector<float> values(static_cast<std::size_t>(rows.cols()));
          for (Index i = first; i < last; ++i) {
            rows.read(begin + i, values.data());
            const float* importance =
                plan.importance.empty()
                    ? nullptr
                    : plan.importance.data() + (begin + i) / rows_per_matrix * rows.cols();
            encode_row(plan.type, values.data(), importance, encoded_.data() + i * bytes,
                       rows.cols());
          }
        });
  }

  const Checkpoint& source_;
  const QuantizeOptions& options_;
  ThreadPool pool_;
  std::vector<std::byte> encoded_;
  Index total_ = 0, done_ = 0;
};

}  // namespace

QuantizeReport quantize_gguf(const Checkpoint& source, const std::filesystem::path& target,
                             const QuantizeOptions& options) {
  KOGIA_CHECK(source.gguf() != nullptr && options.target != Quantization::kFp8);
  QuantizeReport report;
  const std::vector<Plan> plans = plan_tensors(source, options, report);
  GgufWriter out(target);
  for (const GgufStoredKey& key : source.gguf()->stored_keys()) {
    if (!belongs_to_the_file(key.name)) out.set_stored(key.name, key.value);
  }
  out.set("general.file_type", gguf_file_type(options.target));
  out.set("general.quantization_version", std::uint32_t{2});
  for (const Plan& plan : plans) {
    out.declare(plan.entry->name, plan.type, plan.entry->view.shape);
    report.bytes_before += plan.entry->view.n_bytes;
  }
  report.bytes_after = out.n_declared_bytes();
  out.begin();
  GgufQuantizer quantizer(source, options);
  for (const Plan& plan : plans) quantizer.write(plan, out);
  throw_if_interrupted();
  out.commit();
  return report;
}

}  // namespace kogia
