#include "model/model.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "formats/checkpoint.h"
#include "model/binder.h"
#include "model/block.h"
#include "model/names.h"

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
  const Matrix* embedding = nullptr;  // own_embedding, or the head where they are tied
  std::unique_ptr<Matrix> own_embedding;
  Linear head;
  Norm norm;
  std::vector<Block> blocks;
  std::vector<MtpLayer> mtp;
  std::unique_ptr<Rope> rope;
  std::map<std::string, Index> formats;
  Index n_weight_bytes = 0;
  bool all_f32 = false;

  void bind(Binder& binder, const LoadOptions& options);
  void bind_mtp(Binder& binder, const LoadOptions& options);
  ForwardResult finish(Ops& ops, Mat x, const Norm& final_norm, const Batch& batch) const;
};

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;

void Model::Parts::bind(Binder& binder, const LoadOptions& options) {
  const ModelConfig& c = config;
  const TensorName &embedding_name = names::kEmbedTokens, &head_name = names::kLmHead;
  if (c.tie_word_embeddings) {
    binder.linear(embedding_name, c.vocab_size, c.hidden_size, head);
    binder.ignore("lm_head.weight");  // some files keep a copy
  } else {
    binder.embedding(embedding_name, c.vocab_size, c.hidden_size, own_embedding);
    binder.linear(head_name, c.vocab_size, c.hidden_size, head);
  }
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
  parts->embedding = parts->own_embedding ? parts->own_embedding.get() : parts->head.w.get();
  parts->formats = binder.formats();
  parts->n_weight_bytes = binder.n_packed_bytes();
  parts->all_f32 = binder.all_f32();
  return std::unique_ptr<const Model>(new Model(std::move(parts)));
}

const ModelConfig& Model::config() const { return parts_->config; }
Device& Model::device() const { return *parts_->device; }
bool Model::has_mtp() const { return !parts_->mtp.empty(); }
Index Model::n_cache_layers() const {
  return static_cast<Index>(parts_->blocks.size() + parts_->mtp.size());
}
DType Model::default_cache_dtype() const { return parts_->all_f32 ? DType::f32 : DType::bf16; }

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
ForwardResult Model::Parts::finish(Ops& ops, Mat x, const Norm& final_norm,
                                   const Batch& batch) const {
  ForwardResult result;
  const Mat hidden = ops.rms_norm(x, final_norm);
  result.hidden = hidden;
  if (batch.logit_rows.empty()) return result;
  const Mat chosen = ops.arena.matrix(static_cast<Index>(batch.logit_rows.size()), x.cols);
  ops.gather_rows(hidden, batch.logit_rows, chosen);
  result.logits = ops.linear(chosen, head);
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
  const Mat x = ops.embed(*m.embedding, batch.ids);
  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    m.blocks[i].forward(step, batch.cache.layer(static_cast<Index>(i)), x);
  }
  workspace.expert_bytes = ops.expert_bytes;
  return m.finish(ops, x, m.norm, batch);
}

// x = W_eh [enorm(Emb(next)) ; hnorm(hidden)], then the layer; the embedding half comes first.
ForwardResult Model::forward_mtp(Index k, std::span<const std::int32_t> next_ids, ConstMat hidden,
                                 const Batch& batch, Workspace& workspace) const {
  const Parts& m = *parts_;
  KOGIA_CHECK(k >= 0 && k < static_cast<Index>(m.mtp.size()));
  KOGIA_CHECK(static_cast<Index>(next_ids.size()) == hidden.rows);
  const MtpLayer& layer = m.mtp[static_cast<std::size_t>(k)];
  workspace.arena.reset();
  Ops ops(*m.device, workspace.arena);
  const Step step{ops, batch, *m.rope,
                  m.rope->tables(batch.sequences, hidden.rows, workspace.arena)};
  const Index d = m.config.hidden_size;
  const Mat pair = ops.arena.matrix(hidden.rows, 2 * d);
  ops.norm_into(ops.embed(*m.embedding, next_ids), layer.enorm, pair.columns(0, d));
  ops.norm_into(hidden, layer.hnorm, pair.columns(d, d));
  const Mat x = ops.linear(pair, layer.eh_proj);
  layer.block.forward(step, batch.cache.layer(static_cast<Index>(m.blocks.size()) + k), x);
  return m.finish(ops, x, layer.head_norm, batch);
}

}  // namespace kogia
