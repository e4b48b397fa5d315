#include "model/tensor_map.h"

#include "model/names.h"

namespace kogia {
namespace {

using Use = TensorUse;
using Relation = TensorRelation;
using Shape = std::vector<Index>;

class Mapper {
 public:
  explicit Mapper(const ModelConfig& config) : c_(config) {}

  std::vector<MappedTensor> map(bool mtp) {
    const Shape table = {c_.vocab_size, c_.hidden_size};
    weight(names::kEmbedTokens, table, Use::kEmbedding);
    for (Index i = 0; i < c_.num_hidden_layers; ++i) layer(LayerNames(i), c_.is_moe_layer(i));
    norm(names::kFinalNorm, c_.hidden_size);
    if (!c_.tie_word_embeddings) weight(names::kLmHead, table, Use::kEmbedding);
    for (Index k = 0; mtp && k < c_.num_nextn_predict_layers; ++k) {
      mtp_layer(LayerNames(c_.num_hidden_layers + k));
    }
    return std::move(out_);
  }

 private:
  MappedTensor& add(const TensorName& full, Shape shape, Use use) {
    return out_.emplace_back(MappedTensor{.hf = {full.hf},
                                          .gguf = {full.gguf},
                                          .hf_shape = shape,
                                          .gguf_shapes = {std::move(shape)},
                                          .use = use});
  }
  MappedTensor& weight(const TensorName& name, Shape shape, Use use = Use::kMatrix) {
    return add({name.hf + ".weight", name.gguf + ".weight"}, std::move(shape), use);
  }
  void norm(const TensorName& name, Index n) { weight(name, {n}, Use::kVector); }

  void layer(const LayerNames& name, bool moe) {
    norm(name(names::kInputNorm), c_.hidden_size);
    c_.is_mla() ? mla(name) : gqa(name);
    norm(name(names::kPostAttentionNorm), c_.hidden_size);
    if (moe) {
      experts(name);
    } else {
      mlp(name, names::kGate, names::kUp, names::kDown, c_.intermediate_size);
    }
  }

  void gqa(const LayerNames& name) {
    const Index d = c_.hidden_size, q = c_.num_attention_heads * c_.head_dim;
    const Index kv = c_.num_key_value_heads * c_.head_dim;
    projection(name(names::kQ), q, c_.num_attention_heads);
    projection(name(names::kK), kv, c_.num_key_value_heads);
    projection(name(names::kV), kv, 0);
    weight(name(names::kO), {d, q});
    if (c_.qk_norm) {
      norm(name(names::kQNorm), c_.head_dim);
      norm(name(names::kKNorm), c_.head_dim);
    }
  }
  void projection(const TensorName& name, Index rows, Index rotary_heads) {
    MappedTensor& t = weight(name, {rows, c_.hidden_size});
    if (c_.family == Family::llama && rotary_heads > 0) {
      t.relation = Relation::kRotaryRows;
      t.n_heads = rotary_heads;
    }
    if (c_.attention_bias) add({name.hf + ".bias", name.gguf + ".bias"}, {rows}, Use::kVector);
  }

  void mla(const LayerNames& name) {
    const Index d = c_.hidden_size, h = c_.num_attention_heads, q = h * c_.qk_head_dim();
    if (c_.q_lora_rank > 0) {
      weight(name(names::kQA), {c_.q_lora_rank, d});
      norm(name(names::kQANorm), c_.q_lora_rank);
      weight(name(names::kQB), {q, c_.q_lora_rank});
    } else {
      weight(name(names::kQ), {q, d});
    }
    weight(name(names::kKvA), {c_.kv_lora_rank + c_.qk_rope_head_dim, d});
    norm(name(names::kKvANorm), c_.kv_lora_rank);
    const Index nope = c_.qk_nope_head_dim, v = c_.v_head_dim, rank = c_.kv_lora_rank;
    out_.push_back({.hf = {name(names::kKvB).hf + ".weight"},
                    .gguf = {name(names::kKB).gguf + ".weight", name(names::kVB).gguf + ".weight"},
                    .hf_shape = {h * (nope + v), rank},
                    .gguf_shapes = {{h, rank, nope}, {h, v, rank}},
                    .relation = Relation::kLatentUp,
                    .n_heads = h});
    weight(name(names::kO), {d, h * v});
  }

  void mlp(const LayerNames& name, NamePair gate, NamePair up, NamePair down, Index width) {
    weight(name(gate), {width, c_.hidden_size});
    weight(name(up), {width, c_.hidden_size});
    weight(name(down), {c_.hidden_size, width});
  }
  void experts(const LayerNames& name) {
    const Index d = c_.hidden_size, n = c_.n_routed_experts, width = c_.moe_intermediate_size;
    weight(name(names::kRouter), {n, d}, Use::kRouter);
    if (c_.topk_method == ModelConfig::TopkMethod::kNoauxTc) {
      add(name(names::kRouterBias), {n}, Use::kRouterBias);
    }
    stack(name, names::kExpertGate, width, d);
    stack(name, names::kExpertUp, width, d);
    stack(name, names::kExpertDown, d, width);
    if (c_.n_shared_experts > 0) {
      mlp(name, names::kSharedGate, names::kSharedUp, names::kSharedDown,
          c_.shared_intermediate_size());
    }
  }
  void stack(const LayerNames& name, NamePair matrix, Index rows, Index cols) {
    MappedTensor& t = out_.emplace_back();
    for (Index e = 0; e < c_.n_routed_experts; ++e) {
      t.hf.push_back(name.expert(e, matrix) + ".weight");
    }
    t.gguf = {name(matrix).gguf + ".weight"};
    t.hf_shape = {rows, cols};
    t.gguf_shapes = {{c_.n_routed_experts, rows, cols}};
    t.relation = Relation::kExperts;
  }

  void mtp_layer(const LayerNames& name) {
    const Shape table = {c_.vocab_size, c_.hidden_size};
    weight(name(names::kMtpEmbedTokens), table, Use::kEmbedding);
    norm(name(names::kMtpNormE), c_.hidden_size);
    norm(name(names::kMtpNormH), c_.hidden_size);
    weight(name(names::kMtpProj), {c_.hidden_size, 2 * c_.hidden_size});
    layer(name, c_.n_routed_experts > 0);
    norm(name(names::kMtpHeadNorm), c_.hidden_size);
    weight(name(names::kMtpHead), table, Use::kEmbedding);
  }

  const ModelConfig& c_;
  std::vector<MappedTensor> out_;
};

}  // namespace

std::vector<MappedTensor> map_tensors(const ModelConfig& config, bool mtp) {
  return Mapper(config).map(mtp);
}

}  // namespace kogia
