// Bytes and arithmetic of rows, counted by hand.

#include "train/row_counts.h"

#include <gtest/gtest.h>

namespace kogia::test {
namespace {

/// Texts of 20 and of 28 tokens.
PackedRow row() {
  PackedRow row{.ids = {}, .document_begin = {0, 20}};
  for (int i = 0; i < 48; ++i) row.ids.push_back(i % 6);
  return row;
}

TEST(RowCounts, BytesAreThoseOfWhatIsPredicted) {
  const std::vector<PackedRow> rows{row(), {.ids = {5}, .document_begin = {0}}};
  const std::vector<Index> bytes{10, 1, 1, 1, 1, 0};
  // 0 stands at 0 (not predicted), 6, 12, 18, 24, 30, 36, 42; 2 at 20 is not predicted either.
  EXPECT_EQ(predicted_bytes(rows, bytes), 7 * 10 + 8 * 4 - 1);
  EXPECT_EQ(predicted_bytes(rows, {}), 0);
}

TEST(RowCounts, ArithmeticOfLatentAttentionAndExperts) {
  ModelConfig c;
  c.vocab_size = 64, c.hidden_size = 32, c.intermediate_size = 48, c.num_hidden_layers = 2;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.kv_lora_rank = 16, c.qk_nope_head_dim = c.qk_rope_head_dim = c.v_head_dim = 8;
  c.n_routed_experts = 4, c.n_shared_experts = 1, c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 16, c.first_k_dense_replace = 1, c.num_nextn_predict_layers = 1;
  const double attention = 32 * 32 + 24 * 32 + 16 * 32 + 16 * 32;  // q, kv_a, kv_b, o
  const double dense = attention + 3 * 32 * 48;
  const double moe = attention + 4 * 32 + 3 * 3 * 32 * 16;  // router, shared and two of four
  const double head = 64 * 32, eh_proj = 2 * 32 * 32;
  const double tokens = 19 + 27, mtp_tokens = 18 + 26;
  const double pairs = 190 + 378, mtp_pairs = 171 + 351;
  const double each_pair = 2 * (16 + 8);
  EXPECT_EQ(train_flops(c, std::vector{row()}),
            6 * (tokens * (dense + moe + head) + mtp_tokens * (moe + eh_proj + head) +
                 each_pair * (2 * pairs + mtp_pairs)));
  c.q_lora_rank = 4;
  c.num_nextn_predict_layers = 0;
  const double less = 32 * 32 - 4 * (32 + 32);
  EXPECT_EQ(train_flops(c, std::vector{row()}),
            6 * (tokens * (dense + moe + head - 2 * less) + each_pair * 2 * pairs));
}

TEST(RowCounts, ArithmeticOfGroupedQueries) {
  ModelConfig c;
  c.vocab_size = 100, c.hidden_size = 12, c.intermediate_size = 20, c.num_hidden_layers = 1;
  c.num_attention_heads = 3, c.num_key_value_heads = 1, c.head_dim = 4;
  const double layer = 12 * 12 + 2 * 4 * 12 + 12 * 12 + 3 * 12 * 20;
  EXPECT_EQ(train_flops(c, std::vector{row()}),
            6 * (46 * (layer + 100 * 12) + 3 * (4 + 4) * (190 + 378)));
  EXPECT_EQ(train_flops(c, {}), 0);
}

}  // namespace
}  // namespace kogia::test
