// Which tensor gets which type. The expectations are what llama-quantize (llama.cpp, libllama
// 0.5.0) writes for the same shapes.

#include "formats/quantize_types.h"

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace kogia {
namespace {

struct Model {
  std::vector<TensorToQuantize> tensors;
  MixtureFacts facts;

  void add(const std::string& name, std::vector<Index> shape, DType dtype = DType::bf16) {
    tensors.push_back({.name = name, .shape = std::move(shape), .dtype = dtype});
  }
  std::map<std::string, DType> types(Quantization mixture) const {
    const auto chosen = choose_types(mixture, tensors, facts);
    std::map<std::string, DType> out;
    for (std::size_t i = 0; i < tensors.size(); ++i) out[tensors[i].name] = chosen[i];
    return out;
  }
};

Model dense(Index layers, Index hidden, bool tied) {
  Model m;
  m.facts = {.architecture = "qwen2", .n_layers = layers, .n_heads = 12, .n_heads_kv = 2};
  if (!tied) m.add("output.weight", {1000, hidden});
  m.add("token_embd.weight", {1000, hidden});
  m.add("output_norm.weight", {hidden}, DType::f32);
  // Layer 10 before layer 2, as file order may be: the choice goes by number.
  for (const Index i : [&] {
         std::vector<Index> order;
         for (Index l = layers - 1; l >= 0; --l) order.push_back(l);
         return order;
       }()) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    m.add(blk + "attn_norm.weight", {hidden}, DType::f32);
    m.add(blk + "attn_q.weight", {hidden, hidden});
    m.add(blk + "attn_q.bias", {hidden}, DType::f32);
    m.add(blk + "attn_k.weight", {256, hidden});
    m.add(blk + "attn_v.weight", {256, hidden});
    m.add(blk + "attn_output.weight", {hidden, hidden});
    m.add(blk + "ffn_gate.weight", {2048, hidden});
    m.add(blk + "ffn_up.weight", {2048, hidden});
    m.add(blk + "ffn_down.weight", {hidden, 2048});
  }
  return m;
}

std::string layer(Index i, const std::string& rest) {
  return "blk." + std::to_string(i) + "." + rest;
}

TEST(QuantizeTypes, VectorsNormsAndRoutersKeepTheirs) {
  Model m = dense(2, 1536, false);
  m.add("blk.1.ffn_gate_inp.weight", {64, 1536}, DType::f32);
  m.add("blk.1.exp_probs_b.bias", {64}, DType::f32);
  m.add("blk.1.one_row.weight", {1, 1536}, DType::f16);
  for (const auto q : {Quantization::kQ8_0, Quantization::kQ4_0, Quantization::kQ4_K_M,
                       Quantization::kQ4_K_S, Quantization::kQ6_K}) {
    auto types = m.types(q);
    for (const char* kept : {"output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.bias",
                             "blk.1.ffn_gate_inp.weight", "blk.1.exp_probs_b.bias"}) {
      EXPECT_EQ(types.at(kept), DType::f32) << kept;
    }
    EXPECT_EQ(types.at("blk.1.one_row.weight"), DType::f16);
    EXPECT_EQ(types.at("output.weight"), q == Quantization::kQ8_0 ? DType::q8_0 : DType::q6_k);
  }
}

TEST(QuantizeTypes, TheEmbeddingThatIsAlsoTheHeadIsTreatedAsOne) {
  EXPECT_EQ(dense(2, 1536, true).types(Quantization::kQ4_K_M).at("token_embd.weight"), DType::q6_k);
  EXPECT_EQ(dense(2, 1536, false).types(Quantization::kQ4_K_M).at("token_embd.weight"),
            DType::q4_k);
  EXPECT_EQ(dense(2, 1536, true).types(Quantization::kQ4_0).at("token_embd.weight"), DType::q6_k);
  EXPECT_EQ(dense(2, 1536, true).types(Quantization::kQ8_0).at("token_embd.weight"), DType::q8_0);
}

// 28 layers: the first three, the last four, and every third between have more bits.
TEST(QuantizeTypes, TheMediumMixtureGivesMoreBitsToSomeLayers) {
  auto types = dense(28, 1536, true).types(Quantization::kQ4_K_M);
  for (Index i = 0; i < 28; ++i) {
    const bool more = i < 3 || i >= 24 || (i - 3) % 3 == 2;
    const DType expected = more ? DType::q6_k : DType::q4_k;
    EXPECT_EQ(types.at(layer(i, "attn_v.weight")), expected) << i;
    EXPECT_EQ(types.at(layer(i, "ffn_down.weight")), expected) << i;
    EXPECT_EQ(types.at(layer(i, "attn_k.weight")), DType::q4_k) << i;
    EXPECT_EQ(types.at(layer(i, "ffn_up.weight")), DType::q4_k) << i;
  }
}

TEST(QuantizeTypes, TheSmallMixtureGivesThemToTheFirstLayers) {
  auto types = dense(28, 1536, true).types(Quantization::kQ4_K_S);
  for (Index i = 0; i < 28; ++i) {
    EXPECT_EQ(types.at(layer(i, "attn_v.weight")), i < 4 ? DType::q5_k : DType::q4_k) << i;
    EXPECT_EQ(types.at(layer(i, "ffn_down.weight")), i < 3 ? DType::q5_k : DType::q4_k) << i;
  }
}

TEST(QuantizeTypes, RowsThatBlocksDoNotFillFallBack) {
  const Model m = dense(28, 576, true);
  auto medium = m.types(Quantization::kQ4_K_M), small = m.types(Quantization::kQ4_K_S),
       six = m.types(Quantization::kQ6_K);
  EXPECT_EQ(medium.at("token_embd.weight"), DType::q8_0);
  EXPECT_EQ(medium.at("blk.0.attn_v.weight"), DType::q8_0);
  EXPECT_EQ(medium.at("blk.3.attn_v.weight"), DType::q5_0);
  EXPECT_EQ(medium.at("blk.3.ffn_down.weight"), DType::q4_k);
  EXPECT_EQ(small.at("blk.0.attn_v.weight"), DType::q5_1);
  EXPECT_EQ(six.at("blk.0.attn_q.weight"), DType::q8_0);
  auto odd = dense(2, 40, false).types(Quantization::kQ4_K_M);
  EXPECT_EQ(odd.at("blk.0.attn_q.weight"), DType::f16);
  EXPECT_EQ(odd.at("output.weight"), DType::f16);
}

TEST(QuantizeTypes, ExpertsGoByTheirLayerAndEightOfThemHaveRulesOfTheirOwn) {
  Model m;
  m.facts = {.architecture = "deepseek2", .n_layers = 16, .n_experts = 64};
  m.add("output.weight", {1000, 2048});
  for (Index i = 0; i < 16; ++i) {
    m.add(layer(i, "ffn_down_exps.weight"), {64, 2048, 1536});
    m.add(layer(i, "ffn_down_shexp.weight"), {2048, 1536});
    m.add(layer(i, "attn_kv_b.weight"), {4096, 512});
    m.add(layer(i, "attn_k_b.weight"), {16, 512, 128});
    m.add(layer(i, "attn_v_b.weight"), {16, 128, 512});
  }
  auto types = m.types(Quantization::kQ4_K_M);
  for (Index i = 0; i < 16; ++i) {
    const DType expected = i < 2 || i >= 14 || (i - 2) % 3 == 2 ? DType::q6_k : DType::q4_k;
    EXPECT_EQ(types.at(layer(i, "ffn_down_exps.weight")), expected) << i;
    EXPECT_EQ(types.at(layer(i, "ffn_down_shexp.weight")), expected) << i;
    EXPECT_EQ(types.at(layer(i, "attn_kv_b.weight")), expected) << i;
    EXPECT_EQ(types.at(layer(i, "attn_k_b.weight")), DType::q5_0) << i;
    EXPECT_EQ(types.at(layer(i, "attn_v_b.weight")), DType::q4_k) << i;
  }
  Model eight = dense(4, 1536, false);
  eight.facts.n_experts = 8;
  types = eight.types(Quantization::kQ4_K_M);
  EXPECT_EQ(types.at("blk.2.attn_k.weight"), DType::q8_0);
  EXPECT_EQ(types.at("blk.2.attn_v.weight"), DType::q8_0);
  EXPECT_EQ(types.at("blk.2.attn_output.weight"), DType::q5_k);
}

TEST(QuantizeTypes, AnImportanceMatrixGivesTheFirstDownProjectionsOfQ4_0AMinimum) {
  Model m = dense(16, 1536, false);
  EXPECT_EQ(m.types(Quantization::kQ4_0).at("blk.1.ffn_down.weight"), DType::q4_0);
  m.facts.has_importance = true;
  EXPECT_EQ(m.types(Quantization::kQ4_0).at("blk.1.ffn_down.weight"), DType::q4_1);
  EXPECT_EQ(m.types(Quantization::kQ4_0).at("blk.2.ffn_down.weight"), DType::q4_0);
}

TEST(QuantizeTypes, NamesAreThoseOfLlamaCppInAnyCase) {
  EXPECT_EQ(parse_quantization("q4_k"), Quantization::kQ4_K_M);
  EXPECT_EQ(parse_quantization("Q4_K_S"), Quantization::kQ4_K_S);
  EXPECT_EQ(parse_quantization("fp8"), Quantization::kFp8);
  EXPECT_FALSE(parse_quantization("Q4"));
  EXPECT_FALSE(parse_quantization(""));
  EXPECT_EQ(gguf_file_type(Quantization::kQ4_K_M), 15u);
}

TEST(QuantizeTypes, Fp8IsForProjectionsAlone) {
  const std::vector<Index> matrix = {256, 256}, vector = {256};
  const std::string l = "model.layers.3.";
  for (const char* yes : {"self_attn.q_a_proj.weight", "self_attn.kv_a_proj_with_mqa.weight",
                          "self_attn.o_proj.weight", "mlp.gate_proj.weight",
                          "mlp.experts.5.down_proj.weight", "mlp.shared_experts.up_proj.weight"}) {
    EXPECT_TRUE(is_fp8_weight(l + yes, matrix)) << yes;
  }
  for (const char* no :
       {"mlp.gate.weight", "input_layernorm.weight", "eh_proj.weight", "embed_tokens.weight",
        "shared_head.head.weight", "self_attn.q_proj.bias", "mlp.gate.e_score_correction_bias"}) {
    EXPECT_FALSE(is_fp8_weight(l + no, matrix)) << no;
  }
  EXPECT_FALSE(is_fp8_weight(l + "self_attn.o_proj.weight", vector));
  EXPECT_FALSE(is_fp8_weight("lm_head.weight", matrix));
}

}  // namespace
}  // namespace kogia
