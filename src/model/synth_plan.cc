#include "model/synth_plan.h"

#include <cmath>

#include <fmt/ranges.h>

#include "base/error.h"
#include "model/synth.h"

namespace kogia {
namespace {

void set_yarn(ModelConfig& c, double mscale) {
  c.max_position_embeddings = 163840;
  c.rope = {.kind = RopeConfig::Kind::kYarn,
            .layout = RopeLayout::kInterleaved,
            .dims = c.qk_rope_head_dim,
            .theta = 10000,
            .factor = 40,
            .original_max_position_embeddings = 4096,
            .beta_fast = 32,
            .beta_slow = 1,
            .mscale = mscale,
            .mscale_all_dim = mscale};
}

ModelConfig deepseek(Family family) {
  ModelConfig c;
  c.family = family;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.v_head_dim = 128;
  c.first_k_dense_replace = 1;
  return c;
}

ModelConfig v2_lite() {
  ModelConfig c = deepseek(Family::deepseek_v2);
  c.vocab_size = 102400;
  c.hidden_size = 2048;
  c.intermediate_size = 10944;
  c.moe_intermediate_size = 1408;
  c.num_hidden_layers = 27;
  c.num_attention_heads = c.num_key_value_heads = 16;
  c.n_routed_experts = 64;
  c.n_shared_experts = 2;
  c.num_experts_per_tok = 6;
  set_yarn(c, 0.707);
  return c;
}

ModelConfig mini() {
  ModelConfig c = v2_lite();
  c.vocab_size = 32000;
  c.hidden_size = 512;
  c.intermediate_size = 2816;
  c.moe_intermediate_size = 256;
  c.num_attention_heads = c.num_key_value_heads = 8;
  c.n_routed_experts = 16;
  c.num_experts_per_tok = 4;
  return c;
}

ModelConfig v3_tiny() {
  ModelConfig c = deepseek(Family::deepseek_v3);
  c.vocab_size = 32000;
  c.hidden_size = 1024;
  c.intermediate_size = 2816;
  c.moe_intermediate_size = 512;
  c.num_hidden_layers = 8;
  c.num_attention_heads = c.num_key_value_heads = 16;
  c.q_lora_rank = 384;
  c.n_routed_experts = 32;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 4;
  c.n_group = 4;
  c.topk_group = 2;
  c.routed_scaling_factor = 2.5;
  c.norm_topk_prob = true;
  c.scoring_func = RouterScore::kSigmoid;
  c.topk_method = ModelConfig::TopkMethod::kNoauxTc;
  c.num_nextn_predict_layers = 1;
  set_yarn(c, 1.0);
  return c;
}

ModelConfig r1_distill_qwen() {
  ModelConfig c;
  c.family = Family::qwen2;
  c.vocab_size = 151936;
  c.hidden_size = 1536;
  c.intermediate_size = 8960;
  c.num_hidden_layers = 28;
  c.num_attention_heads = 12;
  c.num_key_value_heads = 2;
  c.head_dim = 128;
  c.attention_bias = true;
  c.max_position_embeddings = 131072;
  c.rope.layout = RopeLayout::kHalves;
  c.rope.dims = 128;
  return c;
}

using Fill = SynthTensor::Fill;

/// Outputs of unit size from inputs of unit size.
double by_fan_in(Index fan_in) { return 1 / std::sqrt(static_cast<double>(fan_in)); }
constexpr double kBias = 0.1, kRouterBias = 0.05;

/// Collects the tensors of a folder.
class FolderPlan {
 public:
  FolderPlan(const ModelConfig& config, bool fp8) : c_(config), fp8_(fp8) {}

  std::vector<SynthTensor> make() {
    embedding("model.embed_tokens.weight");
    for (Index i = 0; i < c_.num_hidden_layers; ++i) {
      layer(fmt::format("model.layers.{}.", i), c_.is_moe_layer(i));
    }
    norm("model.norm.weight", c_.hidden_size);
    if (!c_.tie_word_embeddings) head("lm_head.weight");
    for (Index k = 0; k < c_.num_nextn_predict_layers; ++k) {
      mtp(fmt::format("model.layers.{}.", c_.num_hidden_layers + k));
    }
    return std::move(out_);
  }

 private:
  void add(const std::string& name, DType dtype, std::vector<Index> shape, double deviation,
           const std::string& stream = {}) {
    out_.push_back(
        {name, dtype, std::move(shape), Fill::kNormal, deviation, stream.empty() ? name : stream});
  }
  void plain(const std::string& name, Index rows, Index cols) {
    add(name, DType::bf16, {rows, cols}, by_fan_in(cols));
  }
  void matrix(const std::string& name, Index rows, Index cols) {
    if (!fp8_) return plain(name, rows, cols);
    add(name, DType::f8_e4m3, {rows, cols}, by_fan_in(cols));
    out_.push_back({name + "_scale_inv",
                    DType::f32,
                    {ceil_div(rows, c_.fp8_block_rows), ceil_div(cols, c_.fp8_block_cols)},
                    Fill::kBlockScales,
                    0,
                    {}});
  }
  void norm(const std::string& name, Index n) {
    out_.push_back({name, DType::bf16, {n}, Fill::kOnes, 0, {}});
  }
  // The MTP layer stores copies of the main embedding and head.
  void embedding(const std::string& name) {
    add(name, DType::bf16, {c_.vocab_size, c_.hidden_size}, 1, "embedding");
  }
  void head(const std::string& name) {
    add(name, DType::bf16, {c_.vocab_size, c_.hidden_size}, by_fan_in(c_.hidden_size), "head");
  }

  void layer(const std::string& p, bool moe) {
    norm(p + "input_layernorm.weight", c_.hidden_size);
    c_.is_mla() ? mla(p + "self_attn.") : gqa(p + "self_attn.");
    norm(p + "post_attention_layernorm.weight", c_.hidden_size);
    moe ? experts(p + "mlp.") : mlp(p + "mlp.", c_.intermediate_size);
  }
  void gqa(const std::string& p) {
    const Index d = c_.hidden_size, q = c_.num_attention_heads * c_.head_dim;
    const Index kv = c_.num_key_value_heads * c_.head_dim;
    for (const auto& [name, rows] : {std::pair("q", q), std::pair("k", kv), std::pair("v", kv)}) {
      matrix(fmt::format("{}{}_proj.weight", p, name), rows, d);
      if (c_.attention_bias)
        add(fmt::format("{}{}_proj.bias", p, name), DType::bf16, {rows}, kBias);
    }
    matrix(p + "o_proj.weight", d, q);
    if (c_.qk_norm) {
      norm(p + "q_norm.weight", c_.head_dim);
      norm(p + "k_norm.weight", c_.head_dim);
    }
  }
  void mla(const std::string& p) {
    const Index d = c_.hidden_size, h = c_.num_attention_heads, q = h * c_.qk_head_dim();
    if (c_.q_lora_rank > 0) {
      matrix(p + "q_a_proj.weight", c_.q_lora_rank, d);
      norm(p + "q_a_layernorm.weight", c_.q_lora_rank);
      matrix(p + "q_b_proj.weight", q, c_.q_lora_rank);
    } else {
      matrix(p + "q_proj.weight", q, d);
    }
    matrix(p + "kv_a_proj_with_mqa.weight", c_.kv_lora_rank + c_.qk_rope_head_dim, d);
    norm(p + "kv_a_layernorm.weight", c_.kv_lora_rank);
    matrix(p + "kv_b_proj.weight", h * (c_.qk_nope_head_dim + c_.v_head_dim), c_.kv_lora_rank);
    matrix(p + "o_proj.weight", d, h * c_.v_head_dim);
  }
  void mlp(const std::string& p, Index width) {
    matrix(p + "gate_proj.weight", width, c_.hidden_size);
    matrix(p + "up_proj.weight", width, c_.hidden_size);
    matrix(p + "down_proj.weight", c_.hidden_size, width);
  }
  void experts(const std::string& p) {
    plain(p + "gate.weight", c_.n_routed_experts, c_.hidden_size);
    if (c_.topk_method == ModelConfig::TopkMethod::kNoauxTc) {
      add(p + "gate.e_score_correction_bias", DType::f32, {c_.n_routed_experts}, kRouterBias);
    }
    for (Index e = 0; e < c_.n_routed_experts; ++e) {
      mlp(fmt::format("{}experts.{}.", p, e), c_.moe_intermediate_size);
    }
    mlp(p + "shared_experts.", c_.shared_intermediate_size());
  }
  void mtp(const std::string& p) {
    embedding(p + "embed_tokens.weight");
    norm(p + "enorm.weight", c_.hidden_size);
    norm(p + "hnorm.weight", c_.hidden_size);
    plain(p + "eh_proj.weight", c_.hidden_size, 2 * c_.hidden_size);
    layer(p, c_.n_routed_experts > 0);
    norm(p + "shared_head.norm.weight", c_.hidden_size);
    head(p + "shared_head.head.weight");
  }

  const ModelConfig& c_;
  bool fp8_;
  std::vector<SynthTensor> out_;
};

/// What llama.cpp takes where a row is no whole number of super-blocks.
DType fitting(DType wanted, Index row) {
  if (row % info(wanted).block_values == 0) return wanted;
  const DType fallback = wanted == DType::q6_k   ? DType::q8_0
                         : wanted == DType::q5_k ? DType::q5_1
                                                 : DType::q5_0;
  KOGIA_CHECK(row % info(fallback).block_values == 0);
  return fallback;
}

/// Collects the tensors of a GGUF. MTP layers are left out, as converters do.
class GgufPlan {
 public:
  GgufPlan(const ModelConfig& config, DType matrix) : c_(config), matrix_(matrix) {}

  std::vector<SynthTensor> make() {
    const Index d = c_.hidden_size;
    add("token_embd.weight", fitting(matrix_, d), {c_.vocab_size, d}, 1);
    for (Index i = 0; i < c_.num_hidden_layers; ++i)
      layer(fmt::format("blk.{}.", i), c_.is_moe_layer(i));
    norm("output_norm.weight", d);
    const bool wide = matrix_ == DType::bf16 || matrix_ == DType::q8_0;
    const DType head = wide ? matrix_ : DType::q6_k;
    add("output.weight", fitting(head, d), {c_.vocab_size, d}, by_fan_in(d));
    return std::move(out_);
  }

 private:
  void add(const std::string& name, DType dtype, std::vector<Index> shape, double deviation) {
    out_.push_back({name, dtype, std::move(shape), Fill::kNormal, deviation, name});
  }
  void matrix(const std::string& name, Index rows, Index cols) {
    add(name, fitting(matrix_, cols), {rows, cols}, by_fan_in(cols));
  }
  void stack(const std::string& name, Index n, Index rows, Index cols, Index fan_in) {
    add(name, fitting(matrix_, cols), {n, rows, cols}, by_fan_in(fan_in));
  }
  void norm(const std::string& name, Index n) {
    out_.push_back({name, DType::f32, {n}, Fill::kOnes, 0, {}});
  }

  void layer(const std::string& p, bool moe) {
    norm(p + "attn_norm.weight", c_.hidden_size);
    c_.is_mla() ? mla(p) : gqa(p);
    norm(p + "ffn_norm.weight", c_.hidden_size);
    moe ? experts(p) : mlp(p, "", c_.intermediate_size);
  }
  void gqa(const std::string& p) {
    const Index d = c_.hidden_size, q = c_.num_attention_heads * c_.head_dim;
    const Index kv = c_.num_key_value_heads * c_.head_dim;
    for (const auto& [name, rows] : {std::pair("q", q), std::pair("k", kv), std::pair("v", kv)}) {
      matrix(fmt::format("{}attn_{}.weight", p, name), rows, d);
      if (c_.attention_bias) add(fmt::format("{}attn_{}.bias", p, name), DType::f32, {rows}, kBias);
    }
    matrix(p + "attn_output.weight", d, q);
  }
  void mla(const std::string& p) {
    const Index d = c_.hidden_size, h = c_.num_attention_heads, q = h * c_.qk_head_dim();
    const Index latent = c_.kv_lora_rank;
    if (c_.q_lora_rank > 0) {
      matrix(p + "attn_q_a.weight", c_.q_lora_rank, d);
      norm(p + "attn_q_a_norm.weight", c_.q_lora_rank);
      matrix(p + "attn_q_b.weight", q, c_.q_lora_rank);
    } else {
      matrix(p + "attn_q.weight", q, d);
    }
    matrix(p + "attn_kv_a_mqa.weight", latent + c_.qk_rope_head_dim, d);
    norm(p + "attn_kv_a_norm.weight", latent);
    // k_b is kept transposed, for the absorbed form; what it multiplies is the latent all the same.
    stack(p + "attn_k_b.weight", h, latent, c_.qk_nope_head_dim, latent);
    stack(p + "attn_v_b.weight", h, c_.v_head_dim, latent, latent);
    matrix(p + "attn_output.weight", d, h * c_.v_head_dim);
  }
  void mlp(const std::string& p, const std::string& suffix, Index width) {
    matrix(fmt::format("{}ffn_gate{}.weight", p, suffix), width, c_.hidden_size);
    matrix(fmt::format("{}ffn_up{}.weight", p, suffix), width, c_.hidden_size);
    matrix(fmt::format("{}ffn_down{}.weight", p, suffix), c_.hidden_size, width);
  }
  void experts(const std::string& p) {
    const Index d = c_.hidden_size, e = c_.n_routed_experts, width = c_.moe_intermediate_size;
    add(p + "ffn_gate_inp.weight", DType::f32, {e, d}, by_fan_in(d));
    if (c_.topk_method == ModelConfig::TopkMethod::kNoauxTc) {
      add(p + "exp_probs_b.bias", DType::f32, {e}, kRouterBias);
    }
    stack(p + "ffn_gate_exps.weight", e, width, d, d);
    stack(p + "ffn_up_exps.weight", e, width, d, d);
    stack(p + "ffn_down_exps.weight", e, d, width, width);
    mlp(p, "_shexp", c_.shared_intermediate_size());
  }

  const ModelConfig& c_;
  DType matrix_;
  std::vector<SynthTensor> out_;
};

}  // namespace

ModelConfig synth_config(const std::string& name) {
  if (name == "mini") return mini();
  if (name == "v2-lite") return v2_lite();
  if (name == "r1-distill-qwen-1.5b") return r1_distill_qwen();
  if (name == "v3-tiny") return v3_tiny();
  throw_error(ErrorCode::kUsage, "no model is called '{}', expected {}", name,
              fmt::join(synth_names(), ", "));
}

std::vector<SynthTensor> plan_folder(const ModelConfig& config, bool fp8) {
  return FolderPlan(config, fp8).make();
}

std::vector<SynthTensor> plan_gguf(const ModelConfig& config, DType matrix) {
  return GgufPlan(config, matrix).make();
}

}  // namespace kogia
