#pragma once
// What a checkpoint says of its model, whatever the format it is stored in.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"
#include "device/device.h"

namespace kogia {

class Checkpoint;
class GgufMetadata;
class HfConfig;

enum class Family { deepseek_v2, deepseek_v3, qwen2, qwen3, llama };
std::string_view name(Family family);

/// Rotary position embedding.
struct RopeConfig {
  enum class Kind { kDefault, kLinear, kYarn, kLlama3 };
  Kind kind = Kind::kDefault;
  RopeLayout layout = RopeLayout::kInterleaved;
  Index dims = 0;  // rotated values per head
  double theta = 10000;
  double factor = 1;
  double original_max_position_embeddings = 0;
  double beta_fast = 32, beta_slow = 1;         // yarn
  double mscale = 1, mscale_all_dim = 0;        // yarn; the defaults of a missing key
  std::optional<double> attention_factor = {};  // yarn: instead of the ratio of the mscales
  bool truncate = true;                         // yarn: the ramp begins and ends at whole pairs
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
};

/// Every field keeps the name it has in config.json.
struct ModelConfig {
  Family family = Family::llama;
  Index vocab_size = 0, hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  Index num_attention_heads = 0, num_key_value_heads = 0;
  Index head_dim = 0;  // GQA families; MLA has the four below
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k, v
  bool qk_norm = false;         // qwen3: RMSNorm over head_dim on q and k
  Index max_position_embeddings = 0;
  RopeConfig rope;

  // Multi-head latent attention
  Index q_lora_rank = 0;  // 0: one direct q_proj
  Index kv_lora_rank = 0, qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;

  // Mixture of experts; n_routed_experts 0: dense
  Index n_routed_experts = 0, n_shared_experts = 0, num_experts_per_tok = 0;
  Index moe_intermediate_size = 0, first_k_dense_replace = 0, moe_layer_freq = 1;
  Index n_group = 1, topk_group = 1;
  double routed_scaling_factor = 1;
  bool norm_topk_prob = false;
  RouterScore scoring_func = RouterScore::kSoftmax;
  enum class TopkMethod { kGreedy, kGroupLimitedGreedy, kNoauxTc };
  TopkMethod topk_method = TopkMethod::kGreedy;

  Index num_nextn_predict_layers = 0;  // multi-token prediction layers, after the main ones

  // FP8 block scales
  bool fp8 = false;
  Index fp8_block_rows = 128, fp8_block_cols = 128;

  bool is_mla() const { return kv_lora_rank > 0; }
  bool is_moe_layer(Index layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
  Index qk_head_dim() const { return is_mla() ? qk_nope_head_dim + qk_rope_head_dim : head_dim; }
  Index shared_intermediate_size() const { return n_shared_experts * moe_intermediate_size; }

  /// Reads config.json (both generations) or GGUF metadata, and checks that the numbers make sense
  /// together. Errors name the file and the field.
  static ModelConfig from_checkpoint(const Checkpoint& checkpoint);
  static ModelConfig from_hf(const HfConfig& config);
  static ModelConfig from_gguf(const GgufMetadata& metadata);
};

/// Parameters by what they are for, from the configuration alone.
struct ParameterCount {
  Index total = 0;   // main model, MTP left out
  Index active = 0;  // per token, embedding and head included
  Index mtp = 0;     // unique parameters of the MTP layers (shared embedding and head not counted)
};
ParameterCount count_parameters(const ModelConfig& config);

/// Cache of a token over all main layers, in values: latent or grouped keys and values, and what
/// plain multi-head attention of the same number of heads (2 · heads · value width) would keep.
struct CacheCost {
  Index values_per_token = 0;
  Index mha_values_per_token = 0;
};
CacheCost cache_cost(const ModelConfig& config);

}  // namespace kogia
