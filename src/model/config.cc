#include "model/config.h"

#include "base/error.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/hf_config.h"
#include "model/config_check.h"

namespace kogia {

std::string_view name(Family family) {
  switch (family) {
    case Family::deepseek_v2:
      return "deepseek_v2";
    case Family::deepseek_v3:
      return "deepseek_v3";
    case Family::qwen2:
      return "qwen2";
    case Family::qwen3:
      return "qwen3";
    case Family::llama:
      return "llama";
  }
  return "";
}

ModelConfig ModelConfig::from_checkpoint(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() == nullptr) {
    const auto text = checkpoint.text_file("config.json");
    if (!text) {
      throw Error(ErrorCode::kNotFound, checkpoint.path() + ": no config.json",
                  "a model directory holds config.json beside its *.safetensors");
    }
    return from_hf(HfConfig::parse(*text, "config.json"));
  }
  ModelConfig c = from_gguf(checkpoint.gguf()->metadata());
  // What metadata leaves to the tensors: the rows of the embedding, a head of its own, and the
  // router of files that were written before expert_gating_func existed.
  if (const TensorEntry* embedding = checkpoint.find("token_embd.weight")) {
    if (embedding->view.shape.size() == 2) c.vocab_size = embedding->view.shape[0];
    c.tie_word_embeddings = checkpoint.find("output.weight") == nullptr;
  }
  const auto first_moe = "blk." + std::to_string(c.first_k_dense_replace) + ".exp_probs_b.bias";
  if (c.n_routed_experts > 0 && checkpoint.find(first_moe) != nullptr) {
    c.topk_method = TopkMethod::kNoauxTc;
    c.family = Family::deepseek_v3;
    if (!checkpoint.gguf()->metadata().has("deepseek2.expert_gating_func")) {
      c.scoring_func = RouterScore::kSigmoid;
    }
  }
  check(c, checkpoint.path());
  return c;
}

namespace {

Index mlp_parameters(const ModelConfig& c, Index width) { return 3 * c.hidden_size * width; }

Index attention_parameters(const ModelConfig& c) {
  const Index d = c.hidden_size, h = c.num_attention_heads;
  if (c.is_mla()) {
    const Index q = c.q_lora_rank > 0
                        ? c.q_lora_rank * (d + 1) + h * c.qk_head_dim() * c.q_lora_rank
                        : h * c.qk_head_dim() * d;
    const Index kv = (c.kv_lora_rank + c.qk_rope_head_dim) * d + c.kv_lora_rank;
    const Index up = h * (c.qk_nope_head_dim + c.v_head_dim) * c.kv_lora_rank;
    return q + kv + up + h * c.v_head_dim * d;
  }
  const Index q = h * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  return d * (2 * q + 2 * kv) + (c.attention_bias ? q + 2 * kv : 0) +
         (c.qk_norm ? 2 * c.head_dim : 0);
}

/// Parameters of a decoder layer, all of them and those a token meets.
struct LayerCount {
  Index total, active;
};

LayerCount layer_parameters(const ModelConfig& c, bool moe) {
  const Index common = attention_parameters(c) + 2 * c.hidden_size;
  if (!moe) {
    const Index n = common + mlp_parameters(c, c.intermediate_size);
    return {n, n};
  }
  const Index bias = c.topk_method == ModelConfig::TopkMethod::kNoauxTc ? c.n_routed_experts : 0;
  const Index shared = common + c.n_routed_experts * c.hidden_size + bias +
                       mlp_parameters(c, c.shared_intermediate_size());
  const Index expert = mlp_parameters(c, c.moe_intermediate_size);
  return {shared + c.n_routed_experts * expert, shared + c.num_experts_per_tok * expert};
}

}  // namespace

ParameterCount count_parameters(const ModelConfig& c) {
  const Index embedding = c.vocab_size * c.hidden_size;
  ParameterCount n;
  n.total = embedding * (c.tie_word_embeddings ? 1 : 2) + c.hidden_size;
  n.active = n.total;
  for (Index layer = 0; layer < c.num_hidden_layers; ++layer) {
    const LayerCount l = layer_parameters(c, c.is_moe_layer(layer));
    n.total += l.total;
    n.active += l.active;
  }
  for (Index k = 0; k < c.num_nextn_predict_layers; ++k) {
    // enorm, hnorm, shared_head.norm and eh_proj around one more layer
    n.mtp += layer_parameters(c, c.n_routed_experts > 0).total + 3 * c.hidden_size +
             2 * c.hidden_size * c.hidden_size;
  }
  return n;
}

CacheCost cache_cost(const ModelConfig& c) {
  const Index heads = c.num_attention_heads;
  if (c.is_mla()) {
    return {c.num_hidden_layers * (c.kv_lora_rank + c.qk_rope_head_dim),
            c.num_hidden_layers * 2 * heads * c.v_head_dim};
  }
  return {c.num_hidden_layers * 2 * c.num_key_value_heads * c.head_dim,
          c.num_hidden_layers * 2 * heads * c.head_dim};
}

}  // namespace kogia
