// What configurations say: published parameter counts, cache sizes, rope, and refusals by name.

#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/hf_config.h"
#include "model/rope.h"

namespace kogia {
namespace {

using testing::HasSubstr;

ModelConfig parse(const std::string& json) {
  return ModelConfig::from_hf(HfConfig::parse(json, "config.json"));
}

// The official files' fields.
const std::string kV3 = R"({"model_type":"deepseek_v3","vocab_size":129280,"hidden_size":7168,
  "intermediate_size":18432,"moe_intermediate_size":2048,"num_hidden_layers":61,
  "num_nextn_predict_layers":1,"first_k_dense_replace":3,"num_attention_heads":128,
  "num_key_value_heads":128,"q_lora_rank":1536,"kv_lora_rank":512,"qk_nope_head_dim":128,
  "qk_rope_head_dim":64,"v_head_dim":128,"n_routed_experts":256,"n_shared_experts":1,
  "num_experts_per_tok":8,"n_group":8,"topk_group":4,"topk_method":"noaux_tc",
  "scoring_func":"sigmoid","norm_topk_prob":true,"routed_scaling_factor":2.5,
  "max_position_embeddings":163840,"rms_norm_eps":1e-6,"tie_word_embeddings":false,
  "rope_theta":10000,"torch_dtype":"bfloat16","rope_scaling":{"type":"yarn","factor":40,
  "original_max_position_embeddings":4096,"beta_fast":32,"beta_slow":1,"mscale":1.0,
  "mscale_all_dim":1.0},"quantization_config":{"activation_scheme":"dynamic","fmt":"e4m3",
  "quant_method":"fp8","weight_block_size":[128,128]}})";

std::string v2(const std::string& sizes, const std::string& mscale) {
  return R"({"model_type":"deepseek_v2","vocab_size":102400,"kv_lora_rank":512,
    "qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"n_shared_experts":2,
    "num_experts_per_tok":6,"first_k_dense_replace":1,"norm_topk_prob":false,"scoring_func":"softmax",
    "rope_scaling":{"type":"yarn","factor":40,"original_max_position_embeddings":4096,"beta_fast":32,
    "beta_slow":1,"mscale":)" +
         mscale + R"(,"mscale_all_dim":)" + mscale + "}," + sizes + "}";
}

const std::string kLite = v2(R"("hidden_size":2048,"intermediate_size":10944,
  "moe_intermediate_size":1408,"num_hidden_layers":27,"num_attention_heads":16,"q_lora_rank":null,
  "n_routed_experts":64,"n_group":1,"topk_group":1,"topk_method":"greedy","routed_scaling_factor":1.0)",
                             "0.707");
const std::string kV2 = v2(R"("hidden_size":5120,"intermediate_size":12288,
  "moe_intermediate_size":1536,"num_hidden_layers":60,"num_attention_heads":128,"q_lora_rank":1536,
  "n_routed_experts":160,"n_group":8,"topk_group":3,"topk_method":"group_limited_greedy",
  "routed_scaling_factor":16.0)",
                           "0.707");

TEST(ParameterCount, IsThatOfThePublishedCheckpoints) {
  const ParameterCount v3 = count_parameters(parse(kV3));
  EXPECT_EQ(v3.total, 671'026'419'200);
  EXPECT_EQ(v3.active, 37'552'297'472);
  EXPECT_EQ(v3.mtp, 11'610'068'224);
  const ParameterCount lite = count_parameters(parse(kLite));
  EXPECT_EQ(lite.total, 15'706'484'224);
  EXPECT_EQ(lite.active, 2'661'150'208);
  const ParameterCount v2 = count_parameters(parse(kV2));
  EXPECT_EQ(v2.total, 235'741'434'880);
  EXPECT_EQ(v2.active, 21'375'800'320);
  const ParameterCount distill = count_parameters(parse(
      R"({"model_type":"qwen2","vocab_size":151936,"hidden_size":1536,"intermediate_size":8960,
          "num_hidden_layers":28,"num_attention_heads":12,"num_key_value_heads":2})"));
  EXPECT_EQ(distill.total, 1'777'088'000);
}

TEST(CacheCost, IsTheLatentsAgainstMultiHeadAttention) {
  const CacheCost v3 = cache_cost(parse(kV3));
  EXPECT_EQ(2 * v3.values_per_token, 70'272);
  EXPECT_EQ(2 * v3.mha_values_per_token, 3'997'696);
  EXPECT_EQ(2 * cache_cost(parse(kLite)).values_per_token, 31'104);
}

TEST(Rope, YarnFrequenciesAndScalesAreTheSpecified) {  // N01
  const ModelConfig v3 = parse(kV3);
  const std::vector<double> f = rope_frequencies(v3.rope);
  ASSERT_EQ(f.size(), 32u);
  EXPECT_DOUBLE_EQ(f[0], 1.0);
  const std::pair<std::size_t, double> expected[] = {
      {9, 0.0749894},    {10, 0.0562341},  {11, 0.0390069}, {16, 0.0055},
      {22, 0.000177828}, {23, 3.33380e-5}, {31, 3.33380e-6}};
  for (const auto& [i, value] : expected) EXPECT_NEAR(f[i], value, 1e-5 * value) << i;
  EXPECT_NEAR(softmax_scale(v3), 0.1352337789, 1e-9);
  EXPECT_DOUBLE_EQ(rope_table_factor(v3.rope), 1.0);
  EXPECT_NEAR(softmax_scale(parse(kLite)), 0.1147213868, 1e-9);
}

TEST(Rope, ADefaultRopeTypeLeavesScalesAlone) {
  std::string json = kV3;
  json.replace(json.find("\"type\":\"yarn\""), 13, "\"rope_type\":\"default\"");
  const ModelConfig c = parse(json);
  EXPECT_NEAR(softmax_scale(c), 0.0721687836, 1e-9);
  EXPECT_NEAR(rope_frequencies(c.rope)[31], 1.33352e-4, 1e-8);
}

TEST(Rope, YarnTakesItsFactorAndItsRampAsTransformersDoes) {
  const ModelConfig c = parse(R"({"model_type":"qwen2","vocab_size":1000,"hidden_size":2048,
    "intermediate_size":4096,"num_hidden_layers":2,"num_attention_heads":32,"head_dim":64,
    "num_key_value_heads":8,"max_position_embeddings":131072,"rope_parameters":{"rope_type":"yarn",
    "rope_theta":150000,"factor":32.0,"beta_fast":32.0,"beta_slow":1.0,"truncate":false,
    "attention_factor":1.25,"original_max_position_embeddings":4096}})");
  const std::vector<double> f = rope_frequencies(c.rope);
  const std::pair<std::size_t, double> from_transformers[] = {
      {0, 1.0},           {7, 7.374457e-02},  {8, 5.081327e-02},
      {9, 3.170570e-02},  {12, 6.794959e-03}, {16, 4.564839e-04},
      {17, 1.293187e-04}, {18, 3.830881e-05}, {31, 3.023511e-07}};
  for (const auto& [i, value] : from_transformers) EXPECT_NEAR(f[i], value, 2e-6 * value) << i;
  EXPECT_EQ(rope_table_factor(c.rope), 1.25);
}

TEST(Rope, Llama3FollowsTheWavelength) {
  const ModelConfig c = parse(R"({"model_type":"llama","vocab_size":128256,"hidden_size":4096,
    "intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,"num_key_value_heads":8,
    "rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
    "high_freq_factor":4.0,"original_max_position_embeddings":8192}})");
  const std::vector<double> f = rope_frequencies(c.rope);
  RopeConfig plain = c.rope;
  plain.kind = RopeConfig::Kind::kDefault;
  const std::vector<double> f0 = rope_frequencies(plain);
  EXPECT_DOUBLE_EQ(f[0], f0[0]);        // short waves stay
  EXPECT_DOUBLE_EQ(f[63], f0[63] / 8);  // long ones stretch
  EXPECT_LT(f[31], f0[31]);             // between: between
  EXPECT_GT(f[31], f0[31] / 8);
}

TEST(HfConfig, BothSpellingsGiveOneConfiguration) {
  const ModelConfig official = parse(kV3);
  std::string json = kV3;  // as transformers 5 saves it: no gate fields, rope_parameters, dtype
  for (const char* key : {"\"topk_method\":\"noaux_tc\",", "\"scoring_func\":\"sigmoid\",",
                          "\"rope_theta\":10000,"}) {
    json.replace(json.find(key), std::string(key).size(), "");
  }
  json.replace(json.find("\"rope_scaling\":{\"type\""), 22,
               "\"rope_parameters\":{\"rope_theta\":10000.0,\"rope_type\"");
  const ModelConfig saved = parse(json);
  EXPECT_EQ(saved.topk_method, official.topk_method);
  EXPECT_EQ(saved.scoring_func, official.scoring_func);
  EXPECT_EQ(rope_frequencies(saved.rope), rope_frequencies(official.rope));
  EXPECT_EQ(softmax_scale(saved), softmax_scale(official));
}

std::string refusal(std::string json, const std::string& from, const std::string& to) {
  const auto at = json.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  json.replace(at, from.size(), to);
  try {
    parse(json);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(HfConfig, RefusesWhatCannotBeByName) {
  EXPECT_THAT(refusal(kV3, "\"hidden_size\":7168", "\"hidden_size\":0"),
              HasSubstr("hidden_size is 0"));
  EXPECT_THAT(refusal(kV3, "\"hidden_size\":7168,", ""), HasSubstr("hidden_size is missing"));
  EXPECT_THAT(refusal(kV3, "\"qk_rope_head_dim\":64", "\"qk_rope_head_dim\":7"),
              HasSubstr("qk_rope_head_dim"));  // N05
  EXPECT_THAT(refusal(kV3, "\"n_group\":8", "\"n_group\":7"), HasSubstr("n_group"));
  EXPECT_THAT(refusal(kV3, "\"num_experts_per_tok\":8", "\"num_experts_per_tok\":257"),
              HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(refusal(kV3, "\"deepseek_v3\"", "\"gpt_neox\""), HasSubstr("gpt_neox"));
  EXPECT_THAT(refusal(kV3, "\"type\":\"yarn\"", "\"type\":\"dynamic\""), HasSubstr("dynamic"));
  EXPECT_THAT(refusal(kV3, "\"quant_method\":\"fp8\"", "\"quant_method\":\"gptq\""),
              HasSubstr("gptq"));
  EXPECT_THAT(refusal(kV3, "\"num_hidden_layers\":61", "\"num_hidden_layers\":99999999"),
              HasSubstr("num_hidden_layers"));
}

TEST(GgufConfig, TheStoredYarnMultiplierIsATenthOfMscale) {  // F09
  GgufMetadata m;
  m.file = "lite.gguf";
  const std::pair<const char*, std::int64_t> ints[] = {
      {"embedding_length", 2048},
      {"block_count", 27},
      {"feed_forward_length", 10944},
      {"attention.head_count", 16},
      {"attention.head_count_kv", 1},
      {"attention.kv_lora_rank", 512},
      {"attention.key_length", 576},
      {"attention.value_length", 512},
      {"attention.key_length_mla", 192},
      {"attention.value_length_mla", 128},
      {"rope.dimension_count", 64},
      {"leading_dense_block_count", 1},
      {"expert_count", 64},
      {"expert_used_count", 6},
      {"expert_shared_count", 2},
      {"expert_feed_forward_length", 1408},
      {"context_length", 163840},
      {"rope.scaling.original_context_length", 4096},
      {"vocab_size", 102400}};
  for (const auto& [key, value] : ints) m.values["deepseek2." + std::string(key)] = value;
  m.values["general.architecture"] = std::string("deepseek2");
  m.values["deepseek2.rope.scaling.type"] = std::string("yarn");
  m.values["deepseek2.rope.scaling.factor"] = 40.0;
  m.values["deepseek2.rope.scaling.yarn_log_multiplier"] = 0.0707;
  const ModelConfig c = ModelConfig::from_gguf(m);
  EXPECT_NEAR(softmax_scale(c), 0.1147213868, 1e-8);
  EXPECT_EQ(c.qk_nope_head_dim, 128);
  EXPECT_EQ(count_parameters(c).total, 15'706'484'224);
  // The generation before: no *_mla keys, widths of a head in the plain ones.
  m.values.erase("deepseek2.attention.key_length_mla");
  m.values.erase("deepseek2.attention.value_length_mla");
  m.values["deepseek2.attention.key_length"] = std::int64_t{192};
  m.values["deepseek2.attention.value_length"] = std::int64_t{128};
  EXPECT_EQ(count_parameters(ModelConfig::from_gguf(m)).total, 15'706'484'224);
}

}  // namespace
}  // namespace kogia
