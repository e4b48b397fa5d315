#include "model/synth.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "formats/checkpoint.h"
#include "model/synth_plan.h"
#include "model/synth_q4k.h"
#include "support/temp_dir.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;

/// A model of its family, small enough to write in a moment: rows that do not fill a 256-block or
/// an FP8 block.
ModelConfig small(const std::string& name) {
  ModelConfig c = synth_config(name);
  c.num_hidden_layers = 2;
  c.vocab_size = 300;
  c.hidden_size = 256;
  c.intermediate_size = 320;
  if (c.is_mla()) {
    c.num_attention_heads = c.num_key_value_heads = 2;
    c.moe_intermediate_size = 96;
    c.n_routed_experts = 8;
    if (c.q_lora_rank > 0) c.q_lora_rank = 160;
  } else {
    c.num_attention_heads = 2;
    c.num_key_value_heads = 1;
  }
  return c;
}

/// Values of all tensors but those of the layers from `end` on, or of those alone.
Index n_values(const std::vector<SynthTensor>& plan, Index end, bool mtp) {
  const std::string layer = fmt::format("model.layers.{}.", end);
  Index n = 0;
  for (const SynthTensor& t : plan) {
    if (t.name.starts_with(layer) != mtp) continue;
    n += std::accumulate(t.shape.begin(), t.shape.end(), Index{1}, std::multiplies<>());
  }
  return n;
}

TEST(Synth, PlansHaveThePublishedNumberOfParameters) {
  const ModelConfig lite = synth_config("v2-lite"), qwen = synth_config("r1-distill-qwen-1.5b");
  EXPECT_EQ(n_values(plan_folder(lite, false), 27, false), 15'706'484'224);
  EXPECT_EQ(n_values(plan_gguf(lite, DType::q4_k), 27, false), 15'706'484'224);
  EXPECT_EQ(n_values(plan_folder(qwen, false), 28, false), 1'777'088'000);
}

TEST(Synth, BothContainersHoldWhatTheConfigurationCounts) {
  for (const std::string& name : synth_names()) {
    const ModelConfig c = synth_config(name);
    const Index total = count_parameters(c).total;
    EXPECT_EQ(n_values(plan_folder(c, false), c.num_hidden_layers, false), total) << name;
    EXPECT_EQ(n_values(plan_gguf(c, DType::bf16), c.num_hidden_layers, false), total) << name;
  }
  const ModelConfig c = synth_config("v3-tiny");  // its MTP layer has copies of embedding and head
  EXPECT_EQ(n_values(plan_folder(c, false), c.num_hidden_layers, true),
            count_parameters(c).mtp + 2 * c.vocab_size * c.hidden_size);
}

TEST(Synth, RowsThatAKQuantCannotHoldFallBack) {
  for (const SynthTensor& t : plan_gguf(synth_config("v2-lite"), DType::q4_k)) {
    if (t.name == "output.weight") {
      EXPECT_EQ(t.dtype, DType::q6_k);
    }
    if (t.name == "blk.1.ffn_down_exps.weight" || t.name == "blk.0.ffn_down.weight" ||
        t.name == "blk.0.attn_k_b.weight") {
      EXPECT_EQ(t.dtype, DType::q5_0) << t.name;
    }
    if (t.name == "blk.1.ffn_up_exps.weight") {
      EXPECT_EQ(t.dtype, DType::q4_k);
    }
  }
}

TEST(Synth, TheConfigurationComesBackFromBothContainers) {
  const test::TempDir folder;
  for (const std::string& name : synth_names()) {
    const ModelConfig c = small(name);
    for (const std::string weights : {"BF16", "FP8", "Q8_0", "Q4_K", "Q5_K", "IQ4_NL", "MXFP4"}) {
      const bool in_folder = weights == "FP8";
      const fs::path path = folder / (name + weights + (in_folder ? "" : ".gguf"));
      synthesize({.name = name, .weights = weights, .output = path}, c);
      const ModelConfig read = ModelConfig::from_checkpoint(*Checkpoint::open(path));
      EXPECT_EQ(read.family, c.family) << path;
      EXPECT_EQ(read.vocab_size, c.vocab_size) << path;
      EXPECT_EQ(read.qk_head_dim(), c.qk_head_dim()) << path;
      EXPECT_EQ(read.topk_group, c.topk_group) << path;
      EXPECT_EQ(read.tie_word_embeddings, c.tie_word_embeddings) << path;
      EXPECT_NEAR(read.rope.mscale_all_dim, c.rope.mscale_all_dim, 1e-6) << path;
      EXPECT_EQ(count_parameters(read).total, count_parameters(c).total) << path;
      EXPECT_EQ(read.fp8, in_folder) << path;
    }
  }
}

TEST(Synth, BytesDependOnTheSeedAloneNotOnThreads) {
  const test::TempDir folder;
  const auto bytes = [&](const std::string& weights, std::uint64_t seed, int threads) {
    const bool gguf = weights != "FP8";
    const fs::path path =
        folder / fmt::format("{}-{}-{}{}", weights, seed, threads, gguf ? ".gguf" : "");
    synthesize(
        {.name = "v3-tiny", .weights = weights, .output = path, .seed = seed, .n_threads = threads},
        small("v3-tiny"));
    return test::read_file(gguf ? path : path / "model.safetensors");
  };
  for (const std::string weights : {"FP8", "Q4_K"}) {
    const std::string one = bytes(weights, 1, 1);
    EXPECT_TRUE(one == bytes(weights, 1, 3)) << weights;
    EXPECT_FALSE(one == bytes(weights, 2, 3)) << weights;
  }
}

TEST(Synth, ValuesHaveTheDeviationThatThePlanNames) {
  const test::TempDir folder;
  const ModelConfig c = small("v3-tiny");
  synthesize({.name = "v3-tiny", .weights = "FP8", .output = folder / "m"}, c);
  const auto checkpoint = Checkpoint::open(folder / "m");
  const std::string name =
      "model.layers.1.self_attn.kv_a_proj_with_mqa.weight";  // 576 = 4.5 blocks
  const TensorView& w = checkpoint->require(name).view;
  const TensorView& scales = checkpoint->require(name + "_scale_inv").view;
  ASSERT_THAT(scales.shape, testing::ElementsAre(5, 2));
  std::vector<float> q(static_cast<std::size_t>(w.n_values())), s(10);
  dequantize_row(w.dtype, w.data, q.data(), w.n_values());
  dequantize_row(scales.dtype, scales.data, s.data(), 10);
  double squares = 0;
  for (std::size_t i = 0; i < q.size(); ++i) {
    const double x =
        static_cast<double>(q[i]) * static_cast<double>(s[i / 256 / 128 * 2 + i % 256 / 128]);
    squares += x * x;
  }
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(q.size())), 1.0 / 16, 0.001);
}

TEST(Synth, TheMtpLayerHoldsCopiesOfEmbeddingAndHead) {
  const test::TempDir folder;
  synthesize({.name = "v3-tiny", .output = folder / "m"}, small("v3-tiny"));
  const auto m = Checkpoint::open(folder / "m");
  const auto same = [&](const char* a, const char* b) {
    const TensorView &x = m->require(a).view, &y = m->require(b).view;
    return std::equal(x.data, x.data + x.n_bytes, y.data, y.data + y.n_bytes);
  };
  EXPECT_TRUE(same("model.embed_tokens.weight", "model.layers.2.embed_tokens.weight"));
  EXPECT_TRUE(same("lm_head.weight", "model.layers.2.shared_head.head.weight"));
  EXPECT_FALSE(same("lm_head.weight", "model.embed_tokens.weight"));
}

TEST(Synth, MinMaxQ4KIsWithinAStepOfItsInput) {
  constexpr Index kN = 512;
  std::vector<float> x(kN), back(kN);
  for (Index i = 0; i < kN; ++i)
    x[static_cast<std::size_t>(i)] = Philox(3).normal(static_cast<std::uint64_t>(i));
  std::vector<std::byte> block(static_cast<std::size_t>(row_bytes(DType::q4_k, kN)));
  encode_q4_k_min_max(x.data(), block.data(), kN);
  dequantize_row(DType::q4_k, block.data(), back.data(), kN);
  // Half a step of the widest group, and what six bits of scale and minimum lose: 15 half units of
  // the one, half a unit of the other.
  const auto [low, high] = std::ranges::minmax(x);
  const float step = (high - low) / 15, lost = 15 * 0.5F * step / 63 + 0.5F * -low / 63;
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(back[i], x[i], 0.5F * step + lost + 0.01F) << i;
}

TEST(Synth, WhatAContainerCannotHoldIsAUsageError) {
  const test::TempDir folder;
  const auto code = [&](const char* name, const char* weights, const char* output) {
    try {
      synthesize({.name = name, .weights = weights, .output = folder / output});
    } catch (const Error& e) {
      return e.code();
    }
    return ErrorCode::kIo;
  };
  EXPECT_EQ(code("mini", "FP8", "m.gguf"), ErrorCode::kUsage);
  EXPECT_EQ(code("mini", "Q4_K", "m"), ErrorCode::kUsage);
  EXPECT_EQ(code("maxi", "BF16", "m"), ErrorCode::kUsage);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace kogia
