#include "model/model.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "model/binder.h"
#include "model/block.h"
#include "model/loss.h"
#include "model/names.h"
#include "model/tape.h"

namespace kogia {

std::string_view name(MlaForm form) {
  return form == MlaForm::kAuto ? "auto" : form == MlaForm::kExpanded ? "expanded" : "absorbed";
}

namespace {

/// One multi-token prediction layer (DeepSeek-V3, arXiv:2412.19437 §2.2): its own block, cache,
/// norms and projection; embedding and head are those of the main model (the files hold copies).
struct MtpLayer {
  Norm enorm, hnorm, head_norm;
  Linear eh_proj;
  Block block;
};

}  // namespace

struct Model::Parts {
  ModelConfig config;
  Device* device = nullptr;
  /// Of the main model and of each MTP layer: one table (own_embedding, or the head where they are
  /// tied) with a gradient each.
  std::vector<Embedding> embeddings;
  std::unique_ptr<Matrix> own_embedding;
  Linear head;
  Linear guessing_head;  // empty: guesses take `head`
  Norm norm;
  std::vector<Block> blocks;
  std::vector<MtpLayer> mtp;
  std::unique_ptr<Rope> rope;
  std::map<std::string, Index> formats;
  Index n_weight_bytes = 0;
  bool asks_for_f32 = false;

  void bind(Binder& binder, const LoadOptions& options);
  void bind_mtp(Binder& binder, const LoadOptions& options);
  Index n_uses() const { return 1 + config.num_nextn_predict_layers; }
  void bind_ends(Binder& binder);
  ForwardResult finish(Ops& ops, Mat x, const Norm& final_norm, const Linear& of_logits,
                       const Batch& batch) const;
  Mat mtp_hidden(Ops& ops, Index k, std::span<const std::int32_t> next_ids, ConstMat hidden,
                 const Batch& batch) const;
};

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;

// Gradients of the head's uses, then (where they are tied, of the same tensor) the embedding's.
void Model::Parts::bind_ends(Binder& binder) {
  const ModelConfig& c = config;
  const TensorName &embedding_name = names::kEmbedTokens, &head_name = names::kLmHead;
  const Index uses = n_uses();
  if (c.tie_word_embeddings) {
    binder.linear(embedding_name, c.vocab_size, c.hidden_size, head, {}, 2 * uses);
    binder.ignore("lm_head.weight");  // some files keep a copy
  } else {
    binder.embedding(embedding_name, c.vocab_size, c.hidden_size, own_embedding);
    binder.linear(head_name, c.vocab_size, c.hidden_size, head, {}, uses);
  }
  for (Index use = 0; use < uses; ++use) {
    const Index first = c.tie_word_embeddings ? uses : 0;
    embeddings.push_back({.grad = binder.gradient(embedding_name, first + use, first + uses)});
  }
}

void Model::Parts::bind(Binder& binder, const LoadOptions& options) {
  const ModelConfig& c = config;
  bind_ends(binder);
  binder.norm(names::kFinalNorm, c.hidden_size, norm, c.rms_norm_eps);
  blocks.resize(static_cast<std::size_t>(c.num_hidden_layers));
  for (Index i = 0; i < c.num_hidden_layers; ++i) {
    blocks[static_cast<std::size_t>(i)].bind(binder, c, i, c.is_moe_layer(i), options.mla);
    binder.ignore(LayerNames(i)({"self_attn.rotary_emb.inv_freq", ""}).hf);  // recomputed
  }
  bind_mtp(binder, options);
}

void Model::Parts::bind_mtp(Binder& binder, const LoadOptions& options) {
  const ModelConfig& c = config;
  KOGIA_CHECK(!options.guess_in_int8 || options.training == nullptr);
  binder.guess(options.guess_in_int8);
  mtp.reserve(static_cast<std::size_t>(c.num_nextn_predict_layers));  // jobs point into the layers
  for (Index k = 0; k < c.num_nextn_predict_layers; ++k) {
    const Index layer = c.num_hidden_layers + k;
    const LayerNames name(layer);
    if (!options.load_mtp || !binder.has(name(names::kMtpProj))) {
      binder.ignore(binder.gguf() ? name.prefix().gguf : name.prefix().hf);
      continue;
    }
    MtpLayer& m = mtp.emplace_back();
    binder.norm(name(names::kMtpNormE), c.hidden_size, m.enorm, c.rms_norm_eps);
    binder.norm(name(names::kMtpNormH), c.hidden_size, m.hnorm, c.rms_norm_eps);
    binder.linear(name(names::kMtpProj), c.hidden_size, 2 * c.hidden_size, m.eh_proj);
    const TensorName head_norm = name(names::kMtpHeadNorm);
    binder.norm(binder.has(head_norm) ? head_norm : names::kFinalNorm, c.hidden_size, m.head_norm,
                c.rms_norm_eps);
    m.block.bind(binder, c, layer, c.n_routed_experts > 0, options.mla);
    for (const NamePair copied : {names::kMtpEmbedTokens, names::kMtpHead}) {
      const TensorName copy = name(copied);
      binder.ignore((binder.gguf() ? copy.gguf : copy.hf) + ".weight");
    }
  }
  const TensorName& head_name = c.tie_word_embeddings ? names::kEmbedTokens : names::kLmHead;
  if (!mtp.empty() && binder.guesses(head_name, c.hidden_size)) {
    binder.linear(head_name, c.vocab_size, c.hidden_size, guessing_head);
  }
  binder.guess(false);
}

std::unique_ptr<const Model> Model::load(const Checkpoint& checkpoint, Device& device,
                                         const LoadOptions& options) {
  auto parts = std::make_unique<Parts>();
  parts->config = ModelConfig::from_checkpoint(checkpoint);
  parts->device = &device;
  Binder binder(checkpoint, device, parts->config, options);
  parts->bind(binder, options);
  std::vector<float> rope_divisors;
  if (binder.gguf() && binder.has({"", "rope_freqs"})) {
    binder.vector({"", "rope_freqs"}, parts->config.rope.dims / 2, rope_divisors);
  }
  try {
    parts->rope = std::make_unique<Rope>(parts->config.rope, rope_divisors);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", checkpoint.path(), e.what()), e.help());
  }
  binder.finish();
  binder.pack();
  for (Embedding& e : parts->embeddings) {
    e.table = parts->own_embedding ? parts->own_embedding.get() : parts->head.w.get();
  }
  parts->formats = binder.formats();
  parts->n_weight_bytes = binder.n_packed_bytes();
  parts->asks_for_f32 = binder.asks_for_f32();
  return std::unique_ptr<const Model>(new Model(std::move(parts)));
}

const ModelConfig& Model::config() const { return parts_->config; }
Device& Model::device() const { return *parts_->device; }
Index Model::n_mtp_layers() const { return static_cast<Index>(parts_->mtp.size()); }
Index Model::n_cache_layers() const {
  return static_cast<Index>(parts_->blocks.size() + parts_->mtp.size());
}
DType Model::default_cache_dtype() const { return parts_->asks_for_f32 ? DType::f32 : DType::bf16; }

CacheSpec Model::cache_spec(DType cache_dtype) const {
  const ModelConfig& c = parts_->config;
  if (c.is_mla()) {
    return {.n_kv_heads = 1,
            .k_dim = c.kv_lora_rank + c.qk_rope_head_dim,
            .v_dim = 0,
            .latent_v_dim = c.kv_lora_rank,
            .dtype = cache_dtype};
  }
  return {.n_kv_heads = c.num_key_value_heads,
          .k_dim = c.head_dim,
          .v_dim = c.head_dim,
          .dtype = cache_dtype};
}

Index Model::n_weight_bytes() const { return parts_->n_weight_bytes; }

ActiveWeights Model::active_weights() const {
  ActiveWeights active;
  for (const Block& block : parts_->blocks) block.tally(active);
  active.head.add(parts_->head);
  return active;
}

std::string Model::weights_summary() const {
  std::vector<std::pair<Index, std::string>> by_size;
  for (const auto& [format, bytes] : parts_->formats) by_size.emplace_back(bytes, format);
  std::sort(by_size.rbegin(), by_size.rend());
  std::string text;
  for (const auto& [bytes, format] : by_size) text += (text.empty() ? "" : ", ") + format;
  return text;
}

namespace {

void check_batch(const Batch& batch, Index vocab_size) {
  Index row = 0;
  for (const SequenceRows& s : batch.sequences) {
    KOGIA_CHECK(s.row_begin == row && s.n_rows >= 0 && s.first_pos >= 0);
    row += s.n_rows;
  }
  KOGIA_CHECK(row == static_cast<Index>(batch.ids.size()));
  for (const std::int32_t id : batch.ids) KOGIA_CHECK(id >= 0 && id < vocab_size);
  for (const std::int32_t r : batch.logit_rows) KOGIA_CHECK(r >= 0 && r < row);
}

}  // namespace

// hidden = RMSNorm(x);  logits = hidden[logit_rows] W_headᵀ
ForwardResult Model::Parts::finish(Ops& ops, Mat x, const Norm& final_norm, const Linear& of_logits,
                                   const Batch& batch) const {
  ForwardResult result;
  const Mat hidden = ops.rms_norm(x, final_norm);
  result.hidden = hidden;
  if (batch.logit_rows.empty()) return result;
  const Mat chosen = ops.arena.matrix(static_cast<Index>(batch.logit_rows.size()), x.cols);
  ops.gather_rows(hidden, batch.logit_rows, chosen);
  result.logits = ops.linear(chosen, of_logits);
  return result;
}

ForwardResult Model::forward(const Batch& batch, Workspace& workspace) const {
  const Parts& m = *parts_;
  check_batch(batch, m.config.vocab_size);
  workspace.arena.reset();
  Ops ops(*m.device, workspace.arena);
  const Step step{
      ops, batch, *m.rope,
      m.rope->tables(batch.sequences, static_cast<Index>(batch.ids.size()), workspace.arena)};
  const Mat x = ops.embed(m.embeddings[0], batch.ids);
  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    m.blocks[i].forward(step, batch.cache.layer(static_cast<Index>(i)), x);
  }
  workspace.expert_bytes = ops.expert_bytes;
  return m.finish(ops, x, m.norm, m.head, batch);
}

// x = W_eh [enorm(Emb(next)) ; hnorm(hidden)], then the layer; the embedding half comes first.
Mat Model::Parts::mtp_hidden(Ops& ops, Index k, std::span<const std::int32_t> next_ids,
                             ConstMat hidden, const Batch& batch) const {
  const MtpLayer& layer = mtp[static_cast<std::size_t>(k)];
  const Step step{ops, batch, *rope, rope->tables(batch.sequences, hidden.rows, ops.lasting())};
  const Index d = config.hidden_size;
  const Mat x = ops.arena.matrix(hidden.rows, d);
  {
    const Arena::Scope scope(ops.arena);
    const Mat pair = ops.arena.matrix(hidden.rows, 2 * d);
    const Embedding& embedding = embeddings[static_cast<std::size_t>(k) + 1];
    ops.norm_into(ops.embed(embedding, next_ids), layer.enorm, pair.columns(0, d));
    ops.norm_into(hidden, layer.hnorm, pair.columns(d, d));
    const Product product{.x = pair, .l = &layer.eh_proj, .y = x};
    ops.run({&product, 1});
  }
  layer.block.forward(step, batch.cache.layer(static_cast<Index>(blocks.size()) + k), x);
  return x;
}

ForwardResult Model::forward_mtp(Index k, std::span<const std::int32_t> next_ids, ConstMat hidden,
                                 const Batch& batch, Workspace& workspace) const {
  const Parts& m = *parts_;
  KOGIA_CHECK(k >= 0 && k < static_cast<Index>(m.mtp.size()));
  KOGIA_CHECK(static_cast<Index>(next_ids.size()) == hidden.rows);
  workspace.arena.reset();
  Ops ops(*m.device, workspace.arena);
  const Mat x = m.mtp_hidden(ops, k, next_ids, hidden, batch);
  return m.finish(ops, x, m.mtp[static_cast<std::size_t>(k)].head_norm,
                  m.guessing_head.w != nullptr ? m.guessing_head : m.head, batch);
}

namespace {

/// What a depth of multi-token prediction sees of a batch: of each sequence the rows that have a
/// token `depth` places ahead.
struct Shortened {
  std::vector<std::int32_t> kept;  // rows of the depth before
  std::vector<std::int32_t> row;   // of the batch
  std::vector<SequenceRows> sequences;
  std::vector<Index> packed_rows;
};

/// One row less of each sequence; those that have none left remain, empty.
Shortened shorten(const Shortened& before) {
  Shortened after;
  std::size_t packed = 0;
  for (const SequenceRows& s : before.sequences) {
    for (; packed < before.packed_rows.size() && before.packed_rows[packed] <= s.row_begin;
         ++packed) {
      after.packed_rows.push_back(static_cast<Index>(after.row.size()));
    }
    SequenceRows& shorter = after.sequences.emplace_back(s);
    shorter.row_begin = static_cast<Index>(after.row.size());
    shorter.n_rows = std::max<Index>(0, s.n_rows - 1);
    for (Index r = s.row_begin; r < s.row_begin + shorter.n_rows; ++r) {
      after.kept.push_back(static_cast<std::int32_t>(r));
      after.row.push_back(before.row[static_cast<std::size_t>(r)]);
    }
  }
  return after;
}

Shortened whole(const TrainBatch& batch) {
  Shortened all;
  all.row.resize(batch.ids.size());
  std::iota(all.row.begin(), all.row.end(), 0);
  all.sequences.assign(batch.sequences.begin(), batch.sequences.end());
  all.packed_rows.assign(batch.packed_rows.begin(), batch.packed_rows.end());
  return all;
}

}  // namespace

namespace {

/// Which guesses of each depth are what the main model chooses. Without rows it does nothing.
class GuessCheck {
 public:
  explicit GuessCheck(std::size_t n_rows) : main_(n_rows), right_(n_rows, true), now_(n_rows) {}

  /// Room for what the rows of a depth choose.
  std::span<std::int32_t> choices(std::size_t n) {
    return std::span(now_).first(std::min(n, now_.size()));
  }
  /// Depth k has chosen for its rows, which are those of the batch.
  void add(std::size_t k, std::span<const std::int32_t> rows, std::span<const std::int32_t> targets,
           TrainLoss& loss) {
    if (k == 0) main_ = now_;
    if (k == 0) return;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto row = static_cast<std::size_t>(rows[i]);
      if (targets[i] < 0 || !right_[row]) continue;
      ++loss.n_drafted;
      right_[row] = now_[i] == main_[row + k];
      loss.n_accepted += right_[row] ? 1 : 0;
    }
  }

 private:
  std::vector<std::int32_t> main_;  // of each row of the batch
  std::vector<bool> right_;         // so far
  std::vector<std::int32_t> now_;
};

}  // namespace

// Depth k predicts from row i the token k places behind the target of i, which is the target of
// row i + k; its input is the token there.
std::vector<TrainLoss> Model::forward_train(const TrainBatch& batch, Workspace& workspace) const {
  const Parts& m = *parts_;
  Batch rows{
      .ids = batch.ids, .sequences = batch.sequences, .logit_rows = {}, .cache = batch.cache};
  check_batch(rows, m.config.vocab_size);
  workspace.arena.reset();
  Tape* const tape = workspace.tape;
  if (tape != nullptr) tape->begin(workspace.arena);
  Ops ops(*m.device, workspace.arena, tape);
  ops.watch = workspace.watch;
  ops.loads = &workspace.loads;
  workspace.loads.clear();
  Shortened depth = whole(batch);
  GuessCheck guesses(tape == nullptr ? batch.ids.size() : 0);
  std::vector<TrainLoss> losses;
  Mat hidden;
  for (std::size_t k = 0; k < batch.loss_weights.size() && k <= m.mtp.size(); ++k) {
    const Norm& head_norm = k == 0 ? m.norm : m.mtp[k - 1].head_norm;
    std::vector<std::int32_t> ids, targets;
    if (k > 0) {
      const Mat before = hidden;
      depth = shorten(depth);
      hidden = ops.arena.matrix(static_cast<Index>(depth.row.size()), before.cols);
      ops.gather_rows(before, depth.kept, hidden);
    }
    for (const std::int32_t r : depth.row) {
      ids.push_back(batch.ids[static_cast<std::size_t>(r) + k]);
      targets.push_back(batch.targets[static_cast<std::size_t>(r) + k]);
    }
    if (tape != nullptr) {
      tape->set_rows(depth.packed_rows, depth.sequences, static_cast<Index>(ids.size()),
                     batch.row_weights[k]);
    }
    rows.sequences = depth.sequences;
    Mat x;
    if (k == 0) {
      const Step step{
          ops, rows, *m.rope,
          m.rope->tables(rows.sequences, static_cast<Index>(ids.size()), ops.lasting())};
      x = ops.embed(m.embeddings[0], ids);
      for (std::size_t i = 0; i < m.blocks.size(); ++i) {
        m.blocks[i].forward(step, batch.cache.layer(static_cast<Index>(i)), x);
      }
    } else {
      x = m.mtp_hidden(ops, static_cast<Index>(k) - 1, ids, hidden, rows);
    }
    ops.rms_norm_in_place(x, head_norm);
    hidden = x;
    losses.push_back(cross_entropy(ops, hidden, m.head, static_cast<Index>(k), targets,
                                   batch.loss_weights[k], guesses.choices(targets.size())));
    if (tape == nullptr) guesses.add(k, depth.row, targets, losses.back());
  }
  return losses;
}

}  // namespace kogia
