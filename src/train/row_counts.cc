#include "train/row_counts.h"

#include <algorithm>

namespace kogia {
namespace {

double product(Index a, Index b) { return static_cast<double>(a) * static_cast<double>(b); }

/// Of gate, up and down.
double mlp_matrices(const ModelConfig& c, Index width) { return 3 * product(c.hidden_size, width); }

double attention_matrices(const ModelConfig& c) {
  const Index d = c.hidden_size, heads = c.num_attention_heads;
  if (!c.is_mla()) {
    return product(d, 2 * c.head_dim * (heads + c.num_key_value_heads));
  }
  const Index q = heads * c.qk_head_dim();
  return (c.q_lora_rank > 0 ? product(c.q_lora_rank, d + q) : product(q, d)) +
         product(c.kv_lora_rank + c.qk_rope_head_dim, d) +
         product(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim)) +
         product(heads * c.v_head_dim, d);
}

/// Parameters of the matrices of a layer that a token meets.
double layer_matrices(const ModelConfig& c, bool moe) {
  if (!moe) return attention_matrices(c) + mlp_matrices(c, c.intermediate_size);
  return attention_matrices(c) + product(c.n_routed_experts, c.hidden_size) +
         mlp_matrices(c, c.shared_intermediate_size()) +
         static_cast<double>(c.num_experts_per_tok) * mlp_matrices(c, c.moe_intermediate_size);
}

/// For each depth, that of the main model first: a token's matrices, a pair's attention.
struct Work {
  double matrices = 0;
  Index n_layers = 0;
};

Work main_model(const ModelConfig& c) {
  Work work{.matrices = product(c.vocab_size, c.hidden_size), .n_layers = c.num_hidden_layers};
  for (Index layer = 0; layer < c.num_hidden_layers; ++layer) {
    work.matrices += layer_matrices(c, c.is_moe_layer(layer));
  }
  return work;
}

Work mtp_depth(const ModelConfig& c) {
  return {.matrices = product(c.vocab_size, c.hidden_size) +
                      2 * product(c.hidden_size, c.hidden_size) +
                      layer_matrices(c, c.n_routed_experts > 0),
          .n_layers = 1};
}

}  // namespace

Index predicted_bytes(std::span<const PackedRow> rows, std::span<const Index> token_bytes) {
  Index n = 0;
  for (const PackedRow& row : rows) {
    for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
      for (Index i = row.document_begin[d] + 1; i < row.document_end(d); ++i) {
        const auto id = static_cast<std::size_t>(row.ids[static_cast<std::size_t>(i)]);
        if (id < token_bytes.size()) n += token_bytes[id];
      }
    }
  }
  return n;
}

double train_flops(const ModelConfig& c, std::span<const PackedRow> rows) {
  const Work main = main_model(c), mtp = mtp_depth(c);
  const Index v_width = c.is_mla() ? c.v_head_dim : c.head_dim;
  const double pair = product(c.num_attention_heads, c.qk_head_dim() + v_width);
  double flops = 0;
  for (const PackedRow& row : rows) {
    for (std::size_t d = 0; d < row.document_begin.size(); ++d) {
      const Index length = row.document_end(d) - row.document_begin[d];
      for (Index depth = 0; depth <= c.num_nextn_predict_layers; ++depth) {
        const Index n = std::max<Index>(0, length - 1 - depth);  // tokens that go in
        const Work& work = depth == 0 ? main : mtp;
        flops += 6 * static_cast<double>(n) * work.matrices +
                 6 * static_cast<double>(work.n_layers) * pair * product(n, n + 1) / 2;
      }
    }
  }
  return flops;
}

}  // namespace kogia
