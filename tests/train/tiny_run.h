#pragma once
// A run of moments: latent attention, experts balanced without a loss, a layer of multi-token
// prediction. Tests say what they want otherwise as `--set` does.

#include <string_view>

namespace kogia::test {

inline constexpr std::string_view kTinyRun = R"(
[model]
model_type = "deepseek_v3"
vocab_size = 64
hidden_size = 32
intermediate_size = 48
moe_intermediate_size = 16
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
n_routed_experts = 4
n_shared_experts = 1
num_experts_per_tok = 2
first_k_dense_replace = 1
n_group = 1
topk_group = 1
scoring_func = "sigmoid"
topk_method = "noaux_tc"
norm_topk_prob = true
routed_scaling_factor = 1.0
num_nextn_predict_layers = 1
max_position_embeddings = 512
[data]
sources = [{path = "text.jsonl"}]
tokenizer = "tokenizer.json"
sequence_length = 48
[trainer]
steps = 12
batch_size = 4
eval_every = 6
eval_rows = 3
checkpoint_every = 4
[optimizer]
lr = 0.01
[precision]
recipe = "f32"
)";

}  // namespace kogia::test
