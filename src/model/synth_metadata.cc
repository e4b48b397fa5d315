// The texts of a synthetic checkpoint: config.json, and the keys of a GGUF.

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "formats/gguf_writer.h"
#include "model/synth_plan.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;

void put_deepseek(Json& j, const ModelConfig& c) {
  j["moe_intermediate_size"] = c.moe_intermediate_size;
  j["first_k_dense_replace"] = c.first_k_dense_replace;
  j["moe_layer_freq"] = c.moe_layer_freq;
  j["n_routed_experts"] = c.n_routed_experts;
  j["n_shared_experts"] = c.n_shared_experts;
  j["num_experts_per_tok"] = c.num_experts_per_tok;
  const bool v3 = c.family == Family::deepseek_v3;
  j["n_group"] = c.n_group;
  j["topk_group"] = c.topk_group;
  j["topk_method"] = v3 ? "noaux_tc" : "greedy";
  j["scoring_func"] = v3 ? "sigmoid" : "softmax";
  j["norm_topk_prob"] = c.norm_topk_prob;
  j["routed_scaling_factor"] = c.routed_scaling_factor;
  j["q_lora_rank"] = c.q_lora_rank > 0 ? Json(c.q_lora_rank) : Json(nullptr);
  j["kv_lora_rank"] = c.kv_lora_rank;
  j["qk_nope_head_dim"] = c.qk_nope_head_dim;
  j["qk_rope_head_dim"] = c.qk_rope_head_dim;
  j["v_head_dim"] = c.v_head_dim;
  j["attention_bias"] = false;
  if (c.num_nextn_predict_layers > 0) j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  j["rope_scaling"] = {{"type", "yarn"},
                       {"factor", c.rope.factor},
                       {"original_max_position_embeddings",
                        static_cast<Index>(c.rope.original_max_position_embeddings)},
                       {"beta_fast", c.rope.beta_fast},
                       {"beta_slow", c.rope.beta_slow},
                       {"mscale", c.rope.mscale},
                       {"mscale_all_dim", c.rope.mscale_all_dim}};
}

std::string architecture(Family family) {
  switch (family) {
    case Family::deepseek_v2:
      return "DeepseekV2ForCausalLM";
    case Family::deepseek_v3:
      return "DeepseekV3ForCausalLM";
    default:
      return "Qwen2ForCausalLM";
  }
}

/// Spells a byte in GPT-2's alphabet: itself where printable in Latin-1, else the next free
/// character from U+0100 on. Two bytes of UTF-8 at most.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
    const unsigned c = printable ? b : next++;
    if (c < 0x80) {
      tokens.emplace_back(1, static_cast<char>(c));
    } else {
      tokens.push_back({static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))});
    }
  }
  return tokens;
}

void set_tokenizer(GgufWriter& w, const ModelConfig& c) {
  constexpr std::int32_t kNormal = 1, kControl = 3, kUnused = 5;
  std::vector<std::string> tokens = byte_tokens();
  std::vector<std::int32_t> types(tokens.size(), kNormal);
  for (const char* control : {"<s>", "</s>"}) {
    tokens.emplace_back(control);
    types.push_back(kControl);
  }
  while (static_cast<Index>(tokens.size()) < c.vocab_size) {
    tokens.push_back(fmt::format("<unused {}>", tokens.size()));
    types.push_back(kUnused);
  }
  w.set("tokenizer.ggml.model", "gpt2");
  w.set("tokenizer.ggml.pre", "gpt-2");
  w.set("tokenizer.ggml.tokens", tokens);
  w.set("tokenizer.ggml.token_type", types);
  w.set("tokenizer.ggml.merges", std::span<const std::string>());
  w.set("tokenizer.ggml.bos_token_id", std::uint32_t{256});
  w.set("tokenizer.ggml.eos_token_id", std::uint32_t{257});
  w.set("tokenizer.ggml.add_bos_token", false);
}

/// Keys of one architecture.
class ArchKeys {
 public:
  ArchKeys(GgufWriter& writer, std::string arch) : w_(writer), arch_(std::move(arch)) {}
  void set(std::string_view key, Index value) {
    w_.set(full(key), static_cast<std::uint32_t>(value));
  }
  void set(std::string_view key, double value) { w_.set(full(key), static_cast<float>(value)); }
  void set(std::string_view key, bool value) { w_.set(full(key), value); }
  void set(std::string_view key, const char* value) { w_.set(full(key), value); }

 private:
  std::string full(std::string_view key) const { return fmt::format("{}.{}", arch_, key); }
  GgufWriter& w_;
  std::string arch_;
};

void set_mla(ArchKeys& k, const ModelConfig& c) {
  k.set("attention.head_count_kv", Index{1});
  if (c.q_lora_rank > 0) k.set("attention.q_lora_rank", c.q_lora_rank);
  k.set("attention.kv_lora_rank", c.kv_lora_rank);
  k.set("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  k.set("attention.value_length", c.kv_lora_rank);
  k.set("attention.key_length_mla", c.qk_head_dim());
  k.set("attention.value_length_mla", c.v_head_dim);
  k.set("rope.dimension_count", c.qk_rope_head_dim);
  k.set("rope.scaling.type", "yarn");
  k.set("rope.scaling.factor", c.rope.factor);
  k.set("rope.scaling.original_context_length",
        static_cast<Index>(c.rope.original_max_position_embeddings));
  k.set("rope.scaling.yarn_log_multiplier", 0.1 * c.rope.mscale_all_dim);
  k.set("leading_dense_block_count", c.first_k_dense_replace);
  k.set("expert_count", c.n_routed_experts);
  k.set("expert_used_count", c.num_experts_per_tok);
  k.set("expert_shared_count", c.n_shared_experts);
  k.set("expert_feed_forward_length", c.moe_intermediate_size);
  k.set("expert_weights_scale", c.routed_scaling_factor);
  if (c.norm_topk_prob) k.set("expert_weights_norm", true);
  k.set("expert_gating_func", Index{c.scoring_func == RouterScore::kSigmoid ? 2 : 1});
  if (c.n_group > 1) {
    k.set("expert_group_count", c.n_group);
    k.set("expert_group_used_count", c.topk_group);
  }
}

}  // namespace

std::string synth_config_json(const ModelConfig& c, bool fp8) {
  Json j;
  j["architectures"] = {architecture(c.family)};
  j["model_type"] = name(c.family);
  j["vocab_size"] = c.vocab_size;
  j["hidden_size"] = c.hidden_size;
  j["intermediate_size"] = c.intermediate_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_key_value_heads"] = c.num_key_value_heads;
  j["hidden_act"] = "silu";
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["rope_theta"] = c.rope.theta;
  if (c.is_mla()) put_deepseek(j, c);
  j["bos_token_id"] = 0;
  j["eos_token_id"] = 1;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["torch_dtype"] = "bfloat16";
  if (fp8) {
    j["quantization_config"] = {{"activation_scheme", "dynamic"},
                                {"fmt", "e4m3"},
                                {"quant_method", "fp8"},
                                {"weight_block_size", {c.fp8_block_rows, c.fp8_block_cols}}};
  }
  return j.dump(2) + "\n";
}

void set_gguf_keys(GgufWriter& w, const ModelConfig& c, const std::string& name) {
  const std::string arch = c.is_mla() ? "deepseek2" : "qwen2";
  w.set("general.architecture", arch);
  w.set("general.name", name + " (random weights)");
  ArchKeys k(w, arch);
  k.set("block_count", c.num_hidden_layers);
  k.set("context_length", c.max_position_embeddings);
  k.set("embedding_length", c.hidden_size);
  k.set("feed_forward_length", c.intermediate_size);
  k.set("attention.head_count", c.num_attention_heads);
  k.set("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  k.set("rope.freq_base", c.rope.theta);
  k.set("vocab_size", c.vocab_size);
  if (c.is_mla()) {
    set_mla(k, c);
  } else {
    k.set("attention.head_count_kv", c.num_key_value_heads);
  }
  set_tokenizer(w, c);
}

}  // namespace kogia
