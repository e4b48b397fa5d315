// One model in each form that GGUF files have had: the same numbers, whatever the form (case F09).

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/model_runner.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

ModelRunner::Result run(const std::filesystem::path& path, MlaForm mla,
                        std::span<const std::int32_t> ids) {
  ModelRunner runner(path, {.mla = mla});
  Timeline timeline;
  return runner.step(timeline, ids);
}

void expect_same_logits(const std::string& name, const std::string& generation, MlaForm mla) {
  SCOPED_TRACE(name + "/" + generation);
  const Expected expected = read_expected(name);
  const auto a = run(golden_folder(name), mla, expected.ids);
  const auto b = run(golden_folder(name + "/" + generation + ".gguf"), mla, expected.ids);
  ASSERT_EQ(a.logits.size(), b.logits.size());
  // The values of the weights are the same. What may differ is the rounding of rope_freqs and of
  // the YaRN multiplier to f32, 6e-8 of an angle or a score.
  for (std::size_t i = 0; i < a.logits.size(); ++i) {
    ASSERT_NEAR(a.logits[i], b.logits[i], 3e-5) << i;
  }
}

TEST(GgufGenerations, SplitKvFilesComputeWhatTheSafetensorsDo) {
  for (const MlaForm mla : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
    expect_same_logits("v2_lite", "new", mla);
    expect_same_logits("v3", "new", mla);
  }
}

TEST(GgufGenerations, FilesWithOneKvMatrixComputeWhatTheSafetensorsDo) {
  for (const MlaForm mla : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
    expect_same_logits("v2_lite", "kv_b", mla);
    expect_same_logits("v3", "kv_b", mla);
  }
}

TEST(GgufGenerations, FilesWithoutMlaKeysAndGatingFunctionAreSoftmax) {
  for (const MlaForm mla : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
    expect_same_logits("v2_lite", "old", mla);
  }
}

TEST(GgufGenerations, PermutedLlamaRowsAndRopeFactorsComputeWhatTheSafetensorsDo) {
  expect_same_logits("llama", "new", MlaForm::kAbsorbed);
}

TEST(GgufGenerations, QwenFilesComputeWhatTheSafetensorsDo) {
  expect_same_logits("qwen2", "new", MlaForm::kAbsorbed);
  expect_same_logits("qwen3", "new", MlaForm::kAbsorbed);
}

TEST(GgufGenerations, ConfigurationsAreThoseOfTheSafetensors) {
  for (const char* generation : {"new", "kv_b", "old"}) {
    SCOPED_TRACE(generation);
    const auto hf = Checkpoint::open(golden_folder("v2_lite"));
    const auto gguf =
        Checkpoint::open(golden_folder("v2_lite") / (std::string(generation) + ".gguf"));
    const ModelConfig a = ModelConfig::from_checkpoint(*hf),
                      b = ModelConfig::from_checkpoint(*gguf);
    EXPECT_EQ(a.hidden_size, b.hidden_size);
    EXPECT_EQ(a.vocab_size, b.vocab_size);
    EXPECT_EQ(a.num_hidden_layers, b.num_hidden_layers);
    EXPECT_EQ(a.num_attention_heads, b.num_attention_heads);
    EXPECT_EQ(a.q_lora_rank, b.q_lora_rank);
    EXPECT_EQ(a.kv_lora_rank, b.kv_lora_rank);
    EXPECT_EQ(a.qk_nope_head_dim, b.qk_nope_head_dim);
    EXPECT_EQ(a.qk_rope_head_dim, b.qk_rope_head_dim);
    EXPECT_EQ(a.v_head_dim, b.v_head_dim);
    EXPECT_EQ(a.scoring_func, b.scoring_func);
    EXPECT_EQ(a.norm_topk_prob, b.norm_topk_prob);
    EXPECT_EQ(a.rope.dims, b.rope.dims);
    // N01: the file holds 0.0707, a tenth of mscale_all_dim.
    EXPECT_NEAR(b.rope.mscale_all_dim, 0.707, 1e-6);
    EXPECT_NEAR(a.rope.mscale_all_dim, 0.707, 1e-12);
    EXPECT_EQ(a.rope.original_max_position_embeddings, b.rope.original_max_position_embeddings);
  }
}

}  // namespace
}  // namespace kogia::test
