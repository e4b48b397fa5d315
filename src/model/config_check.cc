#include "model/config_check.h"

#include <cmath>

#include "base/error.h"

namespace kogia {
namespace {

class Checker {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  void range(const char* field, Index value, Index low, Index high) const {
    if (value < low || value > high) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected {} to {}", where_, field, value, low,
                  high);
    }
  }
  void positive(const char* field, double value) const {
    if (!(value > 0) || !std::isfinite(value)) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected a positive number", where_, field,
                  value);
    }
  }
  void at_most(const char* field, double value, double high) const {
    if (value > high) {
      throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected at most {}", where_, field, value,
                  high);
    }
  }
  void divides(const char* small_field, Index small, const char* big_field, Index big) const {
    if (big % small != 0) {
      throw_error(ErrorCode::kInvalid, "{}: {} {} is not a multiple of {} {}", where_, big_field,
                  big, small_field, small);
    }
  }

 private:
  const std::string& where_;
};

// Limits far above any published model and far below what overflows a product of three of them.
constexpr Index kMaxLayers = 4096, kMaxWidth = Index{1} << 20, kMaxHeads = 1 << 14;
constexpr Index kMaxVocab = Index{1} << 24, kMaxExperts = 1 << 16;
constexpr double kMaxParameters = 1e18;

void check_mla(const ModelConfig& c, const Checker& check) {
  check.range("q_lora_rank", c.q_lora_rank, 0, kMaxWidth);
  check.range("kv_lora_rank", c.kv_lora_rank, 1, kMaxWidth);
  check.range("qk_nope_head_dim", c.qk_nope_head_dim, 1, kMaxWidth);
  check.range("qk_rope_head_dim", c.qk_rope_head_dim, 2, kMaxWidth);
  check.range("v_head_dim", c.v_head_dim, 1, kMaxWidth);
}

void check_moe(const ModelConfig& c, const Checker& check) {
  check.range("n_routed_experts", c.n_routed_experts, 1, kMaxExperts);
  check.range("num_experts_per_tok", c.num_experts_per_tok, 1, c.n_routed_experts);
  check.range("n_shared_experts", c.n_shared_experts, 0, 1024);
  check.range("moe_intermediate_size", c.moe_intermediate_size, 1, kMaxWidth);
  check.range("first_k_dense_replace", c.first_k_dense_replace, 0, kMaxLayers);
  check.range("moe_layer_freq", c.moe_layer_freq, 1, kMaxLayers);
  check.range("n_group", c.n_group, 1, c.n_routed_experts);
  check.divides("n_group", c.n_group, "n_routed_experts", c.n_routed_experts);
  check.range("topk_group", c.topk_group, 1, c.n_group);
  const Index in_reach = c.topk_group * (c.n_routed_experts / c.n_group);
  check.range("num_experts_per_tok", c.num_experts_per_tok, 1, in_reach);
}

void check_rope(const RopeConfig& rope, const Checker& check) {
  check.range("rotary dimensions (head_dim or qk_rope_head_dim)", rope.dims, 2, kMaxWidth);
  check.divides("2 (rotary values come in pairs), the rotary width", 2,
                "head_dim or qk_rope_head_dim", rope.dims);
  check.positive("rope_theta", rope.theta);
  if (rope.kind == RopeConfig::Kind::kDefault) return;
  check.positive("rope factor", rope.factor);
  if (rope.kind == RopeConfig::Kind::kLinear) return;
  check.positive("original_max_position_embeddings", rope.original_max_position_embeddings);
  check.at_most("original_max_position_embeddings", rope.original_max_position_embeddings, 1 << 30);
  if (rope.kind == RopeConfig::Kind::kYarn) {
    check.positive("beta_fast", rope.beta_fast);
    check.positive("beta_slow", rope.beta_slow);
    if (rope.attention_factor) check.positive("attention_factor", *rope.attention_factor);
  } else {
    check.positive("low_freq_factor", rope.low_freq_factor);
    check.positive("high_freq_factor", rope.high_freq_factor);
  }
}

// Counts are int64; a product of allowed fields could still overflow one.
void check_size(const ModelConfig& c, const std::string& where) {
  const auto f = [](Index n) { return static_cast<double>(n); };
  const double experts = f(c.n_routed_experts + c.n_shared_experts) * 3 * f(c.hidden_size) *
                         f(c.moe_intermediate_size);
  const double dense = 3 * f(c.hidden_size) * f(c.intermediate_size);
  const double heads =
      f(c.num_attention_heads) * f(c.qk_head_dim() + c.v_head_dim + c.kv_lora_rank + c.q_lora_rank);
  const double attention = heads * f(c.hidden_size + c.q_lora_rank + c.kv_lora_rank);
  const double total =
      f(c.num_hidden_layers + c.num_nextn_predict_layers) * (experts + dense + 4 * attention) +
      2 * f(c.vocab_size) * f(c.hidden_size);
  if (total > kMaxParameters) {
    throw_error(ErrorCode::kInvalid, "{}: the fields together ask for {:.1e} parameters", where,
                total);
  }
}

}  // namespace

void check(const ModelConfig& c, const std::string& where) {
  const Checker check(where);
  check.range("vocab_size", c.vocab_size, 1, kMaxVocab);
  check.range("hidden_size", c.hidden_size, 1, kMaxWidth);
  check.range("num_hidden_layers", c.num_hidden_layers, 1, kMaxLayers);
  check.range("num_attention_heads", c.num_attention_heads, 1, kMaxHeads);
  check.range("max_position_embeddings", c.max_position_embeddings, 1, Index{1} << 30);
  check.range("num_nextn_predict_layers", c.num_nextn_predict_layers, 0, 64);
  check.positive("rms_norm_eps", c.rms_norm_eps);
  check.range("n_routed_experts", c.n_routed_experts, 0, kMaxExperts);
  const bool has_dense_layer =
      c.n_routed_experts == 0 || c.first_k_dense_replace > 0 || c.moe_layer_freq > 1;
  check.range("intermediate_size", c.intermediate_size, has_dense_layer ? 1 : 0, kMaxWidth);
  if (c.is_mla()) {
    check_mla(c, check);
  } else {
    check.range("head_dim", c.head_dim, 2, kMaxWidth);
    check.range("num_key_value_heads", c.num_key_value_heads, 1, c.num_attention_heads);
    check.divides("num_key_value_heads", c.num_key_value_heads, "num_attention_heads",
                  c.num_attention_heads);
  }
  if (!c.is_mla()) check.range("rope.dimension_count", c.rope.dims, 2, c.head_dim);
  if (c.n_routed_experts > 0) check_moe(c, check);
  check_rope(c.rope, check);
  check.range("weight_block_size", c.fp8_block_rows, 1, kMaxWidth);
  check.range("weight_block_size", c.fp8_block_cols, 1, kMaxWidth);
  check_size(c, where);
}

}  // namespace kogia
