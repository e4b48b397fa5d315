#include "model/config_write.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/gguf_writer.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;
using Kind = RopeConfig::Kind;

std::string architecture(Family family) {
  switch (family) {
    case Family::deepseek_v2:
      return "DeepseekV2ForCausalLM";
    case Family::deepseek_v3:
      return "DeepseekV3ForCausalLM";
    case Family::qwen2:
      return "Qwen2ForCausalLM";
    case Family::qwen3:
      return "Qwen3ForCausalLM";
    case Family::llama:
      break;
  }
  return "LlamaForCausalLM";
}

std::string torch_name(DType dtype) {
  return dtype == DType::f32 ? "float32" : dtype == DType::f16 ? "float16" : "bfloat16";
}

std::string topk_method(const ModelConfig& c) {
  switch (c.topk_method) {
    case ModelConfig::TopkMethod::kNoauxTc:
      return "noaux_tc";
    case ModelConfig::TopkMethod::kGroupLimitedGreedy:
      return "group_limited_greedy";
    case ModelConfig::TopkMethod::kGreedy:
      break;
  }
  return "greedy";
}

/// A number that is whole is written as one.
Json number(double x) {
  return x == std::floor(x) && std::fabs(x) < 1e15 ? Json(static_cast<Index>(x)) : Json(x);
}
/// The decimal that was meant where a GGUF holds a float: 0.707, not 0.70700000525.
Json decimal(double x) {
  const double short_one = std::stod(fmt::format("{:.6g}", x));
  return Json(std::fabs(short_one - x) <= 1.2e-7 * std::fabs(x) ? short_one : x);
}

void put_moe(Json& j, const ModelConfig& c) {
  j["moe_intermediate_size"] = c.moe_intermediate_size;
  j["first_k_dense_replace"] = c.first_k_dense_replace;
  j["moe_layer_freq"] = c.moe_layer_freq;
  j["n_routed_experts"] = c.n_routed_experts;
  j["n_shared_experts"] = c.n_shared_experts;
  j["num_experts_per_tok"] = c.num_experts_per_tok;
  j["n_group"] = c.n_group;
  j["topk_group"] = c.topk_group;
  j["topk_method"] = topk_method(c);
  j["scoring_func"] = c.scoring_func == RouterScore::kSigmoid ? "sigmoid" : "softmax";
  j["norm_topk_prob"] = c.norm_topk_prob;
  j["routed_scaling_factor"] = decimal(c.routed_scaling_factor);
}

void put_mla(Json& j, const ModelConfig& c) {
  j["q_lora_rank"] = c.q_lora_rank > 0 ? Json(c.q_lora_rank) : Json(nullptr);
  j["kv_lora_rank"] = c.kv_lora_rank;
  j["qk_nope_head_dim"] = c.qk_nope_head_dim;
  j["qk_rope_head_dim"] = c.qk_rope_head_dim;
  j["v_head_dim"] = c.v_head_dim;
  j["attention_bias"] = false;
  if (c.rope.layout == RopeLayout::kHalves) j["rope_interleave"] = false;
  if (c.num_nextn_predict_layers > 0) j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
}

Json yarn(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  const bool deepseek = c.is_mla();
  Json s;
  s[deepseek ? "type" : "rope_type"] = "yarn";
  s["factor"] = number(r.factor);
  s["original_max_position_embeddings"] = number(r.original_max_position_embeddings);
  s["beta_fast"] = number(r.beta_fast);
  s["beta_slow"] = number(r.beta_slow);
  if (deepseek || r.mscale_all_dim != 0) {
    s["mscale"] = decimal(r.mscale);
    s["mscale_all_dim"] = decimal(r.mscale_all_dim);
  }
  if (r.attention_factor) s["attention_factor"] = *r.attention_factor;
  if (!r.truncate) s["truncate"] = false;
  return s;
}

Json rope_scaling(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  switch (r.kind) {
    case Kind::kDefault:
      return nullptr;
    case Kind::kLinear:
      return {{c.is_mla() ? "type" : "rope_type", "linear"}, {"factor", number(r.factor)}};
    case Kind::kYarn:
      return yarn(c);
    case Kind::kLlama3:
      break;
  }
  return {{"rope_type", "llama3"},
          {"factor", r.factor},
          {"low_freq_factor", r.low_freq_factor},
          {"high_freq_factor", r.high_freq_factor},
          {"original_max_position_embeddings", number(r.original_max_position_embeddings)}};
}

/// Keys of the source that are said otherwise, or no longer true.
bool is_superseded(const std::string& key) {
  static const std::set<std::string> kKeys = {"rope_parameters", "dtype", "transformers_version",
                                              "quantization_config", "num_nextn_predict_layers"};
  return kKeys.contains(key);
}

void put_ids(Json& j, const char* key, const std::vector<Index>& ids) {
  if (ids.empty()) return;
  j[key] = ids.size() == 1 ? Json(ids[0]) : Json(ids);
}

// -- GGUF
// ------------------------------------------------------------------------------------------

/// Keys of one architecture.
class Keys {
 public:
  Keys(GgufWriter& writer, std::string arch) : w_(writer), arch_(std::move(arch)) {}
  void set(const char* key, Index value) { w_.set(full(key), static_cast<std::uint32_t>(value)); }
  void set(const char* key, double value) { w_.set(full(key), static_cast<float>(value)); }
  void set(const char* key, bool value) { w_.set(full(key), value); }
  void set(const char* key, const char* value) { w_.set(full(key), value); }

 private:
  std::string full(const char* key) const { return arch_ + "." + key; }
  GgufWriter& w_;
  std::string arch_;
};

[[noreturn]] void no_key_for(const std::string& what) {
  throw Error(ErrorCode::kUnsupported, fmt::format("a GGUF cannot say {}", what),
              "llama.cpp would compute something else; keep this model as a folder");
}

std::string gguf_architecture(const ModelConfig& c) {
  if (c.is_mla()) return "deepseek2";
  return std::string(name(c.family));
}

void set_yarn(Keys& k, const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  if (r.attention_factor) no_key_for("rope_scaling.attention_factor as Kogia reads it");
  if (!r.truncate) no_key_for("rope_scaling.truncate = false");
  const bool has_mscale = c.is_mla() || r.mscale_all_dim != 0;
  if (has_mscale && r.mscale != r.mscale_all_dim) {
    no_key_for(
        fmt::format("an mscale of {} beside an mscale_all_dim of {}", r.mscale, r.mscale_all_dim));
  }
  k.set("rope.scaling.type", "yarn");
  k.set("rope.scaling.factor", r.factor);
  k.set("rope.scaling.original_context_length",
        static_cast<Index>(r.original_max_position_embeddings));
  if (has_mscale) k.set("rope.scaling.yarn_log_multiplier", 0.1 * r.mscale_all_dim);
  k.set("rope.scaling.yarn_beta_fast", r.beta_fast);
  k.set("rope.scaling.yarn_beta_slow", r.beta_slow);
}

void set_rope(Keys& k, const ModelConfig& c) {
  k.set("rope.dimension_count", c.rope.dims);
  k.set("rope.freq_base", c.rope.theta);
  if (c.rope.kind == Kind::kYarn) set_yarn(k, c);
  if (c.rope.kind == Kind::kLinear) {
    k.set("rope.scaling.type", "linear");
    k.set("rope.scaling.factor", c.rope.factor);
  }
  if (c.rope.kind == Kind::kLlama3 && c.family != Family::llama) {
    no_key_for("rope type llama3 of " + std::string(name(c.family)));
  }
}

void set_mla(Keys& k, const ModelConfig& c) {
  if (c.rope.layout != RopeLayout::kInterleaved) no_key_for("rope_interleave = false");
  k.set("attention.head_count_kv", Index{1});
  if (c.q_lora_rank > 0) k.set("attention.q_lora_rank", c.q_lora_rank);
  k.set("attention.kv_lora_rank", c.kv_lora_rank);
  k.set("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
  k.set("attention.value_length", c.kv_lora_rank);
  k.set("attention.key_length_mla", c.qk_head_dim());
  k.set("attention.value_length_mla", c.v_head_dim);
}

void set_moe(Keys& k, const ModelConfig& c) {
  if (c.n_routed_experts > 0 && c.moe_layer_freq != 1) {
    no_key_for(fmt::format("moe_layer_freq {}", c.moe_layer_freq));
  }
  const bool dense = c.n_routed_experts == 0;
  k.set("leading_dense_block_count", dense ? c.num_hidden_layers : c.first_k_dense_replace);
  k.set("expert_count", c.n_routed_experts);
  k.set("expert_used_count", c.num_experts_per_tok);
  k.set("expert_shared_count", c.n_shared_experts);
  k.set("expert_feed_forward_length", c.moe_intermediate_size);
  // V2 does not scale weights that it normalises (moe.cc); llama.cpp does both.
  const bool scales = c.family != Family::deepseek_v2 || !c.norm_topk_prob;
  k.set("expert_weights_scale", scales ? c.routed_scaling_factor : 1.0);
  k.set("expert_weights_norm", c.norm_topk_prob);
  k.set("expert_gating_func", Index{c.scoring_func == RouterScore::kSigmoid ? 2 : 1});
  if (c.n_group > 1) {
    k.set("expert_group_count", c.n_group);
    k.set("expert_group_used_count", c.topk_group);
  }
}

void set_gqa(Keys& k, const ModelConfig& c) {
  if (c.attention_bias != (c.family == Family::qwen2)) {
    no_key_for(fmt::format("attention_bias = {} of {}", c.attention_bias, name(c.family)));
  }
  k.set("attention.head_count_kv", c.num_key_value_heads);
  k.set("attention.key_length", c.head_dim);
  k.set("attention.value_length", c.head_dim);
}

}  // namespace

std::string official_config_json(const ModelConfig& c, const ConfigExtras& extras) {
  Json j;
  j["architectures"] = {architecture(c.family)};
  j["model_type"] = name(c.family);
  j["vocab_size"] = c.vocab_size;
  j["hidden_size"] = c.hidden_size;
  j["intermediate_size"] = c.intermediate_size;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_key_value_heads"] = c.num_key_value_heads;
  if (!c.is_mla()) {
    j["head_dim"] = c.head_dim;
    j["attention_bias"] = c.attention_bias;
  }
  if (c.family == Family::llama) j["mlp_bias"] = false;
  j["hidden_act"] = "silu";
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["initializer_range"] = 0.02;
  j["rms_norm_eps"] = decimal(c.rms_norm_eps);
  j["rope_theta"] = number(c.rope.theta);
  j["rope_scaling"] = rope_scaling(c);
  if (c.n_routed_experts > 0) put_moe(j, c);
  if (c.is_mla()) put_mla(j, c);
  j["attention_dropout"] = 0.0;
  put_ids(j, "bos_token_id", extras.bos);
  put_ids(j, "eos_token_id", extras.eos);
  put_ids(j, "pad_token_id", extras.pad);
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["torch_dtype"] = torch_name(extras.torch_dtype);
  j["use_cache"] = true;
  if (extras.fp8) {
    j["quantization_config"] = {{"activation_scheme", "dynamic"},
                                {"fmt", "e4m3"},
                                {"quant_method", "fp8"},
                                {"weight_block_size", {128, 128}}};
    if (!extras.fp8_not.empty()) {
      Json& modules = j["quantization_config"]["modules_to_not_convert"];
      modules = extras.fp8_not;
      modules.push_back("lm_head");  // a list of one's own takes the place of the default
    }
  }
  if (!extras.source.empty()) {
    const Json source = Json::parse(extras.source);
    for (const auto& [key, value] : source.items()) {
      if (!j.contains(key) && !is_superseded(key)) j[key] = value;
    }
  }
  return j.dump(2) + "\n";
}

void set_gguf_architecture(GgufWriter& w, const ModelConfig& c, bool mtp) {
  const std::string arch = gguf_architecture(c);
  w.set("general.architecture", arch);
  Keys k(w, arch);
  const Index n_mtp = mtp ? c.num_nextn_predict_layers : 0;
  k.set("block_count", c.num_hidden_layers + n_mtp);
  if (n_mtp > 0) k.set("nextn_predict_layers", n_mtp);
  k.set("context_length", c.max_position_embeddings);
  k.set("embedding_length", c.hidden_size);
  k.set("feed_forward_length", c.intermediate_size);
  k.set("attention.head_count", c.num_attention_heads);
  k.set("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  k.set("vocab_size", c.vocab_size);
  set_rope(k, c);
  if (c.is_mla()) {
    set_mla(k, c);
    set_moe(k, c);
  } else {
    set_gqa(k, c);
  }
}

std::vector<float> rope_divisors(const RopeConfig& r) {
  std::vector<float> divisors;
  if (r.kind != Kind::kLlama3) return divisors;
  for (Index i = 0; i < r.dims; i += 2) {
    const double frequency =
        std::pow(r.theta, -static_cast<double>(i) / static_cast<double>(r.dims));
    const double turns = r.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
    const double t = std::clamp(
        (turns - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor), 0.0, 1.0);
    divisors.push_back(static_cast<float>(1 / ((1 - t) / r.factor + t)));
  }
  return divisors;
}

RopeConfig llama3_rope_of(const RopeConfig& rope, const std::vector<float>& divisors,
                          const std::string& file) {
  RopeConfig r = rope;
  r.kind = Kind::kLlama3;
  const float most = divisors.empty() ? 1 : *std::ranges::max_element(divisors);
  for (const double low : {1.0, 2.0}) {
    for (const double high : {4.0, 2.0, 8.0}) {
      if (high <= low) continue;
      for (double length = 16; length <= (1 << 24); length *= 2) {
        r.factor = static_cast<double>(most);
        r.low_freq_factor = low;
        r.high_freq_factor = high;
        r.original_max_position_embeddings = length;
        const std::vector<float> found = rope_divisors(r);
        const auto close = [](float a, float b) { return std::fabs(a - b) <= 1e-5F * b; };
        if (found.size() == divisors.size() && std::ranges::equal(found, divisors, close)) {
          return r;
        }
      }
    }
  }
  throw Error(ErrorCode::kUnsupported,
              file + ": rope_freqs.weight holds no scaling of llama3's kind",
              "config.json has no other word for a divisor of each frequency");
}

}  // namespace kogia
