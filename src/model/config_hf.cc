// ModelConfig from config.json, in both spellings: the official files (rope_theta, rope_scaling,
// torch_dtype) and those of transformers 5 (rope_parameters, dtype).

#include <algorithm>

#include "base/error.h"
#include "formats/hf_config.h"
#include "model/config.h"
#include "model/config_check.h"

namespace kogia {
namespace {

Index require_int(const HfConfig& j, std::string_view key) {
  const auto value = j.get_int(key);
  if (!value) throw_error(ErrorCode::kInvalid, "{}: {} is missing", j.file(), key);
  return *value;
}

Family parse_family(const HfConfig& j) {
  const std::string type = j.get_string("model_type").value_or("");
  for (Family f :
       {Family::deepseek_v2, Family::deepseek_v3, Family::qwen2, Family::qwen3, Family::llama}) {
    if (type == name(f)) return f;
  }
  throw Error(ErrorCode::kUnsupported, fmt::format("{}: model_type is \"{}\"", j.file(), type),
              "Kogia runs deepseek_v2, deepseek_v3, qwen2, qwen3 and llama");
}

void refuse_what_is_not_there(const HfConfig& j) {
  const std::string act = j.get_string("hidden_act").value_or("silu");
  if (act != "silu")
    throw_error(ErrorCode::kUnsupported, "{}: hidden_act is \"{}\", expected \"silu\"", j.file(),
                act);
  if (j.get_bool("use_sliding_window").value_or(false)) {
    throw_error(ErrorCode::kUnsupported,
                "{}: use_sliding_window is true: window attention is not there yet", j.file());
  }
  if (j.get_bool("mlp_bias").value_or(false)) {
    throw_error(ErrorCode::kUnsupported, "{}: mlp_bias is true, expected false", j.file());
  }
}

RopeConfig::Kind parse_rope_kind(const std::string& type, const HfConfig& j) {
  if (type.empty() || type == "default") return RopeConfig::Kind::kDefault;
  if (type == "linear") return RopeConfig::Kind::kLinear;
  if (type == "yarn") return RopeConfig::Kind::kYarn;
  if (type == "llama3") return RopeConfig::Kind::kLlama3;
  throw Error(ErrorCode::kUnsupported, fmt::format("{}: rope type is \"{}\"", j.file(), type),
              "known are default, linear, yarn and llama3");
}

RopeConfig read_rope(const HfConfig& j, bool deepseek) {
  RopeConfig rope;
  rope.theta = j.get_float("rope_theta").value_or(10000);
  auto scaling = j.get_object("rope_parameters");
  if (!scaling) scaling = j.get_object("rope_scaling");
  if (!scaling) return rope;
  const HfConfig& s = *scaling;
  rope.theta = s.get_float("rope_theta").value_or(rope.theta);
  std::string type = s.get_string("rope_type").value_or("");
  if (type.empty()) type = s.get_string("type").value_or("");
  rope.kind = parse_rope_kind(type, j);
  if (rope.kind == RopeConfig::Kind::kDefault) return rope;

  rope.factor = s.get_float("factor").value_or(1);
  rope.original_max_position_embeddings =
      s.get_float("original_max_position_embeddings")
          .value_or(static_cast<double>(j.get_int("max_position_embeddings").value_or(0)));
  rope.beta_fast = s.get_float("beta_fast").value_or(32);
  rope.beta_slow = s.get_float("beta_slow").value_or(1);
  rope.mscale = s.get_float("mscale").value_or(1);
  rope.mscale_all_dim = s.get_float("mscale_all_dim").value_or(0);
  if (!deepseek && !(s.has("mscale") && s.has("mscale_all_dim"))) {
    rope.mscale = 1;  // transformers takes both or neither
    rope.mscale_all_dim = 0;
  }
  rope.attention_factor = s.get_float("attention_factor");
  rope.truncate = s.get_bool("truncate").value_or(true);
  rope.low_freq_factor = s.get_float("low_freq_factor").value_or(1);
  rope.high_freq_factor = s.get_float("high_freq_factor").value_or(4);
  return rope;
}

void read_gqa(const HfConfig& j, ModelConfig& c) {
  const Index heads = std::max<Index>(c.num_attention_heads, 1);
  c.num_key_value_heads = j.get_int("num_key_value_heads").value_or(c.num_attention_heads);
  c.head_dim = j.get_int("head_dim").value_or(c.hidden_size / heads);
  c.qk_norm = c.family == Family::qwen3;
  c.attention_bias = j.get_bool("attention_bias").value_or(c.family == Family::qwen2);
  c.rope.dims = c.head_dim;
  c.rope.layout = RopeLayout::kHalves;
}

void read_mla(const HfConfig& j, ModelConfig& c) {
  c.num_key_value_heads = c.num_attention_heads;
  c.q_lora_rank = j.get_int("q_lora_rank").value_or(0);
  c.kv_lora_rank = require_int(j, "kv_lora_rank");
  c.qk_nope_head_dim = require_int(j, "qk_nope_head_dim");
  c.qk_rope_head_dim = require_int(j, "qk_rope_head_dim");
  c.v_head_dim = require_int(j, "v_head_dim");
  if (j.get_bool("attention_bias").value_or(false)) {
    throw_error(ErrorCode::kUnsupported, "{}: attention_bias is true, expected false for {}",
                j.file(), name(c.family));
  }
  c.rope.dims = c.qk_rope_head_dim;
  c.rope.layout =
      j.get_bool("rope_interleave").value_or(true) ? RopeLayout::kInterleaved : RopeLayout::kHalves;
}

ModelConfig::TopkMethod parse_topk_method(const HfConfig& j, bool v3) {
  using M = ModelConfig::TopkMethod;
  const std::string method = j.get_string("topk_method").value_or(v3 ? "noaux_tc" : "greedy");
  if (method == "noaux_tc") return M::kNoauxTc;
  if (method == "group_limited_greedy") return M::kGroupLimitedGreedy;
  if (method == "greedy" || method == "gready")
    return M::kGreedy;  // the V2 class misspells its default
  throw_error(ErrorCode::kUnsupported,
              "{}: topk_method is \"{}\", known are greedy, group_limited_greedy, noaux_tc",
              j.file(), method);
}

void read_moe(const HfConfig& j, ModelConfig& c) {
  c.n_routed_experts = j.get_int("n_routed_experts").value_or(0);
  if (c.n_routed_experts == 0) return;
  const bool v3 = c.family == Family::deepseek_v3;
  c.n_shared_experts = j.get_int("n_shared_experts").value_or(0);
  c.num_experts_per_tok = require_int(j, "num_experts_per_tok");
  c.moe_intermediate_size = require_int(j, "moe_intermediate_size");
  c.first_k_dense_replace = j.get_int("first_k_dense_replace").value_or(0);
  c.moe_layer_freq = j.get_int("moe_layer_freq").value_or(1);
  c.topk_method = parse_topk_method(j, v3);
  if (c.topk_method != ModelConfig::TopkMethod::kGreedy) {
    c.n_group = require_int(j, "n_group");
    c.topk_group = require_int(j, "topk_group");
  }
  if (v3 && !j.has("routed_scaling_factor")) {
    throw_error(ErrorCode::kInvalid, "{}: routed_scaling_factor is missing", j.file());
  }
  c.routed_scaling_factor = j.get_float("routed_scaling_factor").value_or(1);
  c.norm_topk_prob = j.get_bool("norm_topk_prob").value_or(v3);
  const std::string scoring = j.get_string("scoring_func").value_or(v3 ? "sigmoid" : "softmax");
  if (scoring != "sigmoid" && scoring != "softmax") {
    throw_error(ErrorCode::kUnsupported, "{}: scoring_func is \"{}\", known are sigmoid, softmax",
                j.file(), scoring);
  }
  c.scoring_func = scoring == "sigmoid" ? RouterScore::kSigmoid : RouterScore::kSoftmax;
}

void read_quantization(const HfConfig& j, ModelConfig& c) {
  const auto q = j.get_object("quantization_config");
  if (!q) return;
  const std::string method = q->get_string("quant_method").value_or("");
  if (method != "fp8") {
    throw Error(
        ErrorCode::kUnsupported, fmt::format("{}: quant_method is \"{}\"", j.file(), method),
        "Kogia reads fp8 with 128 × 128 blocks, plain bf16/f16/f32, and GGUF's quantised types");
  }
  c.fp8 = true;
  const std::vector<Index> block = q->get_ints_or_one("weight_block_size");
  if (block.empty()) return;
  if (block.size() != 2)
    throw_error(ErrorCode::kInvalid, "{}: weight_block_size has {} numbers, expected 2", j.file(),
                block.size());
  c.fp8_block_rows = block[0];
  c.fp8_block_cols = block[1];
}

}  // namespace

ModelConfig ModelConfig::from_hf(const HfConfig& j) {
  ModelConfig c;
  c.family = parse_family(j);
  refuse_what_is_not_there(j);
  const bool deepseek = c.family == Family::deepseek_v2 || c.family == Family::deepseek_v3;
  c.vocab_size = require_int(j, "vocab_size");
  c.hidden_size = require_int(j, "hidden_size");
  c.intermediate_size = j.get_int("intermediate_size").value_or(0);
  c.num_hidden_layers = require_int(j, "num_hidden_layers");
  c.num_attention_heads = require_int(j, "num_attention_heads");
  c.rms_norm_eps = j.get_float("rms_norm_eps").value_or(1e-6);
  c.tie_word_embeddings = j.get_bool("tie_word_embeddings").value_or(false);
  c.max_position_embeddings = j.get_int("max_position_embeddings").value_or(4096);
  c.num_nextn_predict_layers = j.get_int("num_nextn_predict_layers").value_or(0);
  c.rope = read_rope(j, deepseek);
  if (deepseek) {
    read_mla(j, c);
    read_moe(j, c);
  } else {
    read_gqa(j, c);
  }
  read_quantization(j, c);
  check(c, j.file());
  return c;
}

}  // namespace kogia
