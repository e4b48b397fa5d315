// ModelConfig from GGUF metadata: deepseek2 in its three generations, qwen2, qwen3,
// llama.

#include <algorithm>

#include "base/error.h"
#include "formats/gguf.h"
#include "model/config.h"
#include "model/config_check.h"

namespace kogia {
namespace {

/// Metadata of one architecture: keys without their prefix.
class Keys {
 public:
  Keys(const GgufMetadata& metadata, std::string arch) : m_(metadata), arch_(std::move(arch)) {}

  Index require_int(std::string_view key) const { return m_.require_int(full(key)); }
  std::optional<Index> get_int(std::string_view key) const { return m_.get_int(full(key)); }
  std::optional<double> get_float(std::string_view key) const { return m_.get_float(full(key)); }
  std::optional<bool> get_bool(std::string_view key) const { return m_.get_bool(full(key)); }
  std::optional<std::string> get_string(std::string_view key) const {
    return m_.get_string(full(key));
  }
  std::string full(std::string_view key) const { return arch_ + "." + std::string(key); }
  const std::string& file() const { return m_.file; }
  /// The value, refused where arithmetic on it could overflow.
  Index bounded(std::string_view key, Index value) const {
    if (value < 0 || value > (Index{1} << 31)) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}", m_.file, full(key), value);
    }
    return value;
  }

 private:
  const GgufMetadata& m_;
  std::string arch_;
};

Family parse_family(const std::string& arch, const GgufMetadata& m) {
  if (arch == "deepseek2") return Family::deepseek_v2;  // told from V3 by its router
  if (arch == "qwen2") return Family::qwen2;
  if (arch == "qwen3") return Family::qwen3;
  if (arch == "llama") return Family::llama;
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: general.architecture is \"{}\"", m.file, arch),
              "Kogia runs deepseek2, qwen2, qwen3 and llama");
}

/// yarn_log_multiplier is stored as 0.1 · mscale_all_dim; one value stands for both mscales, and a
/// file without it scales the tables by mscale 1.
void read_yarn(const Keys& k, RopeConfig& rope) {
  rope.kind = RopeConfig::Kind::kYarn;
  rope.beta_fast = k.get_float("rope.scaling.yarn_beta_fast").value_or(32);
  rope.beta_slow = k.get_float("rope.scaling.yarn_beta_slow").value_or(1);
  if (const auto log_multiplier = k.get_float("rope.scaling.yarn_log_multiplier")) {
    rope.mscale = rope.mscale_all_dim = *log_multiplier / 0.1;
  }
}

RopeConfig read_rope(const Keys& k, Index dims, RopeLayout layout) {
  RopeConfig rope;
  rope.layout = layout;
  rope.dims = k.get_int("rope.dimension_count").value_or(dims);
  rope.theta = k.get_float("rope.freq_base").value_or(10000);
  rope.factor = k.get_float("rope.scaling.factor").value_or(1);
  rope.original_max_position_embeddings = k.get_float("rope.scaling.original_context_length")
                                              .value_or(k.get_float("context_length").value_or(0));
  const std::string type = k.get_string("rope.scaling.type").value_or("none");
  if (type == "yarn") {
    read_yarn(k, rope);
  } else if (type == "linear") {
    rope.kind = RopeConfig::Kind::kLinear;
  } else if (type != "none") {
    throw_error(ErrorCode::kUnsupported, "{}: {} is \"{}\", known are none, linear, yarn", k.file(),
                k.full("rope.scaling.type"), type);
  }
  return rope;
}

void read_gqa(const Keys& k, ModelConfig& c) {
  if (k.get_int("expert_count").value_or(0) > 0) {
    throw_error(ErrorCode::kUnsupported, "{}: {}: experts are known in deepseek2 only", k.file(),
                k.full("expert_count"));
  }
  const Index heads = std::max<Index>(c.num_attention_heads, 1);
  c.num_key_value_heads = k.get_int("attention.head_count_kv").value_or(c.num_attention_heads);
  c.head_dim = k.get_int("attention.key_length").value_or(c.hidden_size / heads);
  const Index v_dim = k.get_int("attention.value_length").value_or(c.head_dim);
  if (v_dim != c.head_dim) {
    throw_error(ErrorCode::kUnsupported, "{}: attention.value_length {} differs from key_length {}",
                k.file(), v_dim, c.head_dim);
  }
  c.qk_norm = c.family == Family::qwen3;
  c.attention_bias = c.family == Family::qwen2;
  // Converters permute llama's q and k rows so that neighbouring pairs rotate; qwen's stay as they
  // are.
  c.rope = read_rope(k, c.head_dim,
                     c.family == Family::llama ? RopeLayout::kInterleaved : RopeLayout::kHalves);
}

void read_mla(const Keys& k, ModelConfig& c) {
  c.num_key_value_heads = c.num_attention_heads;
  c.q_lora_rank = k.get_int("attention.q_lora_rank").value_or(0);
  c.kv_lora_rank = k.require_int("attention.kv_lora_rank");
  c.rope = read_rope(k, 64, RopeLayout::kInterleaved);
  c.qk_rope_head_dim = c.rope.dims;
  // Files since the MLA rework say the width of a head in *_mla (the plain keys hold the latent's);
  // older ones in the plain keys.
  const auto key_mla = k.get_int("attention.key_length_mla"),
             value_mla = k.get_int("attention.value_length_mla");
  const Index key_length = key_mla ? *key_mla : k.require_int("attention.key_length");
  c.v_head_dim = value_mla ? *value_mla : k.require_int("attention.value_length");
  c.qk_nope_head_dim = k.bounded("attention.key_length", key_length) -
                       k.bounded("rope.dimension_count", c.qk_rope_head_dim);
}

void read_moe(const Keys& k, ModelConfig& c) {
  c.n_routed_experts = k.get_int("expert_count").value_or(0);
  c.first_k_dense_replace = k.get_int("leading_dense_block_count").value_or(0);
  if (c.n_routed_experts == 0) return;
  c.n_shared_experts = k.get_int("expert_shared_count").value_or(0);
  c.num_experts_per_tok = k.require_int("expert_used_count");
  c.moe_intermediate_size = k.require_int("expert_feed_forward_length");
  c.routed_scaling_factor = k.get_float("expert_weights_scale").value_or(1);
  if (c.routed_scaling_factor == 0)
    c.routed_scaling_factor = 1;  // old converters write 0 for "none"
  c.norm_topk_prob = k.get_bool("expert_weights_norm").value_or(false);
  c.n_group = std::max<Index>(k.get_int("expert_group_count").value_or(1), 1);
  c.topk_group = std::max<Index>(k.get_int("expert_group_used_count").value_or(1), 1);
  if (c.n_group > 1) c.topk_method = ModelConfig::TopkMethod::kGroupLimitedGreedy;
  const Index gating = k.get_int("expert_gating_func").value_or(1);
  if (gating != 1 && gating != 2) {
    throw_error(ErrorCode::kUnsupported, "{}: {} is {}, known are 1 (softmax) and 2 (sigmoid)",
                k.file(), k.full("expert_gating_func"), gating);
  }
  if (gating == 2) {
    c.scoring_func = RouterScore::kSigmoid;
    c.topk_method = ModelConfig::TopkMethod::kNoauxTc;
    c.family = Family::deepseek_v3;
  }
}

}  // namespace

ModelConfig ModelConfig::from_gguf(const GgufMetadata& m) {
  const std::string arch = m.require_string("general.architecture");
  const Keys k(m, arch);
  ModelConfig c;
  c.family = parse_family(arch, m);
  c.hidden_size = k.require_int("embedding_length");
  c.intermediate_size = k.get_int("feed_forward_length").value_or(0);
  c.num_nextn_predict_layers = k.get_int("nextn_predict_layers").value_or(0);
  c.num_hidden_layers = k.bounded("block_count", k.require_int("block_count")) -
                        k.bounded("nextn_predict_layers", c.num_nextn_predict_layers);
  c.num_attention_heads = k.require_int("attention.head_count");
  c.rms_norm_eps = k.get_float("attention.layer_norm_rms_epsilon").value_or(1e-6);
  c.max_position_embeddings = k.get_int("context_length").value_or(4096);
  const auto* tokens = m.get_strings("tokenizer.ggml.tokens");
  c.vocab_size = k.get_int("vocab_size").value_or(tokens ? static_cast<Index>(tokens->size()) : 1);
  if (c.family == Family::deepseek_v2) {
    read_mla(k, c);
    read_moe(k, c);
  } else {
    read_gqa(k, c);
  }
  check(c, m.file);
  return c;
}

}  // namespace kogia
