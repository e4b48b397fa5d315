// What a GGUF or a folder made of a checkpoint holds, and which rows of the source it is made of.

#include <algorithm>
#include <set>

#include "base/error.h"
#include "model/config_write.h"
#include "model/names.h"
#include "model/rewrite.h"

namespace kogia {
namespace {

using Order = RowPiece::Order;
using Shape = std::vector<Index>;

std::string text(const Shape& shape) {
  std::string s = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

bool is_fp8(DType dtype) { return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2; }

Index folded_rows(const Shape& shape) {
  Index n = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

/// Collects targets and remembers what of the source they take.
class Planner {
 public:
  Planner(const Checkpoint& source, const ModelConfig& config)
      : source_(source), c_(config), from_gguf_(source.gguf() != nullptr) {}

  void to_gguf(const MappedTensor& t) {
    if (t.relation == TensorRelation::kLatentUp) return latent_up(t);
    RowPiece::Order order = Order::kAsStored;
    if (t.relation == TensorRelation::kRotaryRows && !from_gguf_) order = Order::kPairsFromHalves;
    std::vector<RowPiece> pieces;
    if (t.relation == TensorRelation::kExperts) {
      for (std::size_t e = 0; e < t.hf.size(); ++e) pieces.push_back(expert(t, e));
    } else {
      pieces = {whole(from_gguf_ ? t.gguf[0] : t.hf[0], t, order)};
    }
    add(t.gguf[0], t.gguf_shapes[0], t.use, std::move(pieces));
  }

  void to_folder(const MappedTensor& t) {
    for (std::size_t i = 0; i < t.hf.size(); ++i) {
      std::vector<RowPiece> pieces;
      if (t.relation == TensorRelation::kExperts) {
        pieces = {expert(t, i)};
      } else if (t.relation == TensorRelation::kLatentUp && from_gguf_ && !has_whole_kv_b(t)) {
        pieces = joined_kv_b(t);
      } else if (t.relation == TensorRelation::kLatentUp) {
        pieces = {piece(whole_kv_b(t), t.hf_shape, 0, folded_rows(t.hf_shape))};
      } else {
        const bool halves = t.relation == TensorRelation::kRotaryRows && from_gguf_;
        pieces = {whole(from_gguf_ ? t.gguf[0] : t.hf[0], t,
                        halves ? Order::kHalvesFromPairs : Order::kAsStored)};
      }
      add(t.hf[i], t.hf_shape, t.use, std::move(pieces));
    }
  }

  void ignore(const std::string& name_or_prefix) { ignored_.push_back(name_or_prefix); }
  bool has(const MappedTensor& t) const {
    return source_.find(from_gguf_ ? t.gguf[0] : t.hf[0]) != nullptr;
  }

  std::vector<TargetTensor> finish() {
    std::string extra;
    Index n = 0;
    for (const TensorEntry& t : source_.tensors()) {
      const auto covers = [&](const std::string& pattern) {
        return t.name == pattern || (pattern.ends_with('.') && t.name.starts_with(pattern));
      };
      if (taken_.contains(t.name) || std::ranges::any_of(ignored_, covers)) continue;
      if (++n <= 3) extra += (n > 1 ? ", " : "") + t.name;
    }
    if (n > 3) extra += fmt::format(" and {} more", n - 3);
    if (n == 0) return std::move(out_);
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: tensors that a {} model of this configuration does not have: {}",
                            source_.path(), kogia::name(c_.family), extra),
                "they would be lost on the way; is the config right?");
  }

 private:
  const TensorEntry& take(const std::string& name, const Shape& shape) {
    const TensorEntry& entry = source_.require(name);
    if (entry.view.shape != shape) {
      throw Error(
          ErrorCode::kInvalid,
          fmt::format("{}: {} is {} {}, expected {}", entry.file, name, text(entry.view.shape),
                      kogia::name(entry.view.dtype), text(shape)),
          "the configuration asks for that shape: is it the config of this very checkpoint?");
    }
    if (!is_floating(entry.view.dtype)) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected a floating or quantised type",
                  entry.file, name, kogia::name(entry.view.dtype));
    }
    taken_.insert(name);
    return entry;
  }

  RowPiece piece(const std::string& name, const Shape& shape, Index first, Index n) {
    const TensorEntry& entry = take(name, shape);
    RowPiece p{.source = &entry, .first_row = first, .n_rows = n};
    if (is_fp8(entry.view.dtype)) attach_scale(p, shape);
    return p;
  }
  RowPiece whole(const std::string& name, const MappedTensor& t, Order order) {
    RowPiece p = piece(name, t.hf_shape, 0, folded_rows(t.hf_shape));
    p.order = order;
    if (order != Order::kAsStored) p.head_rows = p.n_rows / t.n_heads;
    return p;
  }

  void attach_scale(RowPiece& p, const Shape& shape) {
    const std::string name = p.source->name + "_scale_inv";
    if (shape.size() != 2 || source_.find(name) == nullptr) {
      throw Error(ErrorCode::kNotFound,
                  fmt::format("{}: {} is {} but there is no {}", p.source->file, p.source->name,
                              kogia::name(p.source->view.dtype), name),
                  "an FP8 weight needs the scales of its blocks; the checkpoint is incomplete");
    }
    const TensorEntry& scale = take_scale(
        name, {ceil_div(shape[0], c_.fp8_block_rows), ceil_div(shape[1], c_.fp8_block_cols)});
    p.scale = &scale;
    p.block_rows = c_.fp8_block_rows;
    p.block_cols = c_.fp8_block_cols;
  }
  const TensorEntry& take_scale(const std::string& name, const Shape& shape) {
    const TensorEntry& scale = source_.require(name);
    const DType dtype = scale.view.dtype;
    if (scale.view.shape != shape) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected {}", scale.file, name,
                  text(scale.view.shape), text(shape));
    }
    if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f8_e8m0) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected f32, bf16 or f8_e8m0", scale.file,
                  name, kogia::name(dtype));
    }
    taken_.insert(name);
    return scale;
  }

  /// The matrix of expert e.
  RowPiece expert(const MappedTensor& t, std::size_t e) {
    const Index rows = t.hf_shape[0], at = static_cast<Index>(e) * rows;
    if (!from_gguf_) return piece(t.hf[e], t.hf_shape, 0, rows);
    if (source_.find(t.gguf[0]) != nullptr) return piece(t.gguf[0], t.gguf_shapes[0], at, rows);
    return gate_or_up(t, at);
  }
  /// From files that keep gate and up of an expert as one matrix.
  RowPiece gate_or_up(const MappedTensor& t, Index at) {
    const auto ends = [&](NamePair p) {
      return t.gguf[0].ends_with(std::string(p.gguf) + ".weight");
    };
    const bool gate = ends(names::kExpertGate);
    if (!gate && !ends(names::kExpertUp)) source_.require(t.gguf[0]);  // throws
    const std::string layer = t.gguf[0].substr(0, t.gguf[0].rfind("ffn_"));
    const std::string fused = layer + std::string(names::kExpertGateUp.gguf) + ".weight";
    if (source_.find(fused) == nullptr) source_.require(t.gguf[0]);
    Shape shape = t.gguf_shapes[0];
    const Index rows = shape[1];
    shape[1] *= 2;
    return piece(fused, shape, 2 * at + (gate ? 0 : rows), rows);
  }

  std::string whole_kv_b(const MappedTensor& t) const {
    if (!from_gguf_) return t.hf[0];
    const std::string layer = t.gguf[0].substr(0, t.gguf[0].rfind("attn_"));
    return layer + std::string(names::kKvB.gguf) + ".weight";
  }
  bool has_whole_kv_b(const MappedTensor& t) const {
    return source_.find(whole_kv_b(t)) != nullptr;
  }
  void latent_up(const MappedTensor& t) {
    const Shape &k_shape = t.gguf_shapes[0], &v_shape = t.gguf_shapes[1];
    const Index rank = k_shape[1], nope = k_shape[2], v = v_shape[1];
    std::vector<RowPiece> keys, values;
    if (from_gguf_ && !has_whole_kv_b(t)) {
      keys = {piece(t.gguf[0], k_shape, 0, folded_rows(k_shape))};
      values = {piece(t.gguf[1], v_shape, 0, folded_rows(v_shape))};
    } else {
      const std::string name = whole_kv_b(t);
      for (Index h = 0; h < t.n_heads; ++h) {
        keys.push_back(piece(name, t.hf_shape, h * (nope + v), rank));
        keys.back().order = Order::kTransposed;
        values.push_back(piece(name, t.hf_shape, h * (nope + v) + nope, v));
      }
      if (from_gguf_) ignore_split(t);
    }
    add(t.gguf[0], k_shape, t.use, std::move(keys));
    add(t.gguf[1], v_shape, t.use, std::move(values));
  }
  /// Files of the experimental branch carry both forms.
  void ignore_split(const MappedTensor& t) {
    ignore(t.gguf[0]);
    ignore(t.gguf[1]);
  }
  std::vector<RowPiece> joined_kv_b(const MappedTensor& t) {
    const Shape &k_shape = t.gguf_shapes[0], &v_shape = t.gguf_shapes[1];
    std::vector<RowPiece> pieces;
    for (Index h = 0; h < t.n_heads; ++h) {
      pieces.push_back(piece(t.gguf[0], k_shape, h * k_shape[1], k_shape[2]));
      pieces.back().order = Order::kTransposed;
      pieces.push_back(piece(t.gguf[1], v_shape, h * v_shape[1], v_shape[1]));
    }
    return pieces;
  }

  void add(const std::string& name, const Shape& shape, TensorUse use,
           std::vector<RowPiece> pieces) {
    const DType stored = pieces.front().source->view.dtype;
    out_.push_back({.name = name,
                    .shape = shape,
                    .dtype = is_fp8(stored) ? DType::bf16 : stored,
                    .use = use,
                    .pieces = std::move(pieces)});
  }

  const Checkpoint& source_;
  const ModelConfig& c_;
  const bool from_gguf_;
  std::vector<TargetTensor> out_;
  std::set<std::string, std::less<>> taken_;
  std::vector<std::string> ignored_;
};

/// Copies of the embedding, the head and its norm inside a prediction layer may be missing.
bool is_optional(const MappedTensor& t) {
  return t.gguf[0].ends_with("nextn.embed_tokens.weight") ||
         t.gguf[0].ends_with("nextn.shared_head_head.weight") ||
         t.gguf[0].ends_with("nextn.shared_head_norm.weight");
}

std::vector<TargetTensor> plan(const Checkpoint& source, const ModelConfig& c, bool mtp,
                               bool to_gguf) {
  Planner planner(source, c);
  const bool keep_mtp = mtp && has_mtp(source, c);
  for (const MappedTensor& t : map_tensors(c, keep_mtp)) {
    if (is_optional(t) && !planner.has(t)) continue;
    to_gguf ? planner.to_gguf(t) : planner.to_folder(t);
  }
  const bool from_gguf = source.gguf() != nullptr;
  for (Index k = 0; !keep_mtp && k < c.num_nextn_predict_layers; ++k) {
    const TensorName prefix = LayerNames(c.num_hidden_layers + k).prefix();
    planner.ignore(from_gguf ? prefix.gguf : prefix.hf);
  }
  if (c.tie_word_embeddings) planner.ignore(names::kLmHead.hf + ".weight");
  if (from_gguf) planner.ignore("rope_freqs.weight");
  for (Index i = 0; i < c.num_hidden_layers; ++i) {
    planner.ignore(LayerNames(i).prefix().hf + "self_attn.rotary_emb.inv_freq");
  }
  return planner.finish();
}

}  // namespace

std::vector<TargetTensor> plan_same(const Checkpoint& source) {
  KOGIA_CHECK(source.gguf() != nullptr);
  std::vector<TargetTensor> targets;
  for (const TensorEntry& t : source.tensors()) {
    if (t.view.n_bytes == 0) {
      throw_error(ErrorCode::kUnsupported, "{}: {} is empty", t.file, t.name);
    }
    targets.push_back({.name = t.name, .shape = t.view.shape, .dtype = t.view.dtype, .pieces = {}});
    TargetTensor& target = targets.back();
    if (target.shape.empty()) target.shape = {1};
    target.pieces = {{.source = &t, .n_rows = target.rows()}};
  }
  return targets;
}

bool has_mtp(const Checkpoint& source, const ModelConfig& c) {
  if (c.num_nextn_predict_layers == 0) return false;
  const TensorName name = LayerNames(c.num_hidden_layers)(names::kMtpProj);
  return source.find((source.gguf() ? name.gguf : name.hf) + ".weight") != nullptr;
}

std::vector<TargetTensor> plan_gguf(const Checkpoint& source, const ModelConfig& config, bool mtp) {
  std::vector<TargetTensor> targets = plan(source, config, mtp, true);
  if (const auto divisors = rope_divisors(config.rope); !divisors.empty()) {
    targets.push_back({.name = "rope_freqs.weight",
                       .shape = {static_cast<Index>(divisors.size())},
                       .use = TensorUse::kVector,
                       .pieces = {},
                       .values = divisors});
  }
  return targets;
}

std::vector<TargetTensor> plan_folder(const Checkpoint& source, const ModelConfig& config,
                                      bool mtp) {
  return plan(source, config, mtp, false);
}

}  // namespace kogia
