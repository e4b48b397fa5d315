// From a checkpoint on disk to an answer: the same one every time, no id without a token, the
// thought apart from the answer.

#include "infer/engine.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "infer/batcher.h"
#include "infer/generate.h"
#include "infer/score.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

std::unique_ptr<Engine> open(const std::filesystem::path& path, int n_threads = 1,
                             Index chunk = 512) {
  return Engine::open(path, {.cpu = {.n_threads = n_threads, .isa = {}},
                             .compute = {},
                             .cache_dtype = {},
                             .ctx = 256,
                             .chunk = chunk,
                             .show_progress = false});
}

GenerateOptions options(double temperature, Index max_tokens, std::uint64_t seed = 0) {
  return {.sampling = {.temperature = temperature, .seed = seed},
          .max_tokens = max_tokens,
          .ignore_eos = true};
}

// A machine that multiplies bf16 weights in f32 has no reason for a cache of twice the size.
TEST(Engine, CacheIsF32OnlyWhereTheWeightsAreOrSomebodyAsks) {
  const auto cache_of = [](const char* name, std::optional<Compute> compute, bool slow_bf16) {
    EngineOptions options{.cpu = {.n_threads = 1, .isa = {}, .slow_bf16 = slow_bf16},
                          .compute = compute,
                          .cache_dtype = {},
                          .ctx = 64,
                          .show_progress = false};
    return Engine::open(golden_folder(name), options)->model().default_cache_dtype();
  };
  for (const bool slow_bf16 : {false, true}) {
    EXPECT_EQ(cache_of("v3_fp8", {}, slow_bf16), DType::bf16);
    EXPECT_EQ(cache_of("v3_fp8", Compute::f32, slow_bf16), DType::f32);
    EXPECT_EQ(cache_of("train_v3", {}, slow_bf16), DType::f32);
  }
}

class Engines : public testing::TestWithParam<const char*> {};

// N09: ids and log-probabilities, bit for bit: cold, warm, after another prompt, cut into other
// chunks, on other numbers of threads; greedy and drawn.
TEST_P(Engines, TheSamePromptHasTheSameAnswerEveryTime) {
  const Expected expected =
      read_expected(std::string(GetParam()).substr(0, std::string(GetParam()).find('/')));
  const auto prompt = std::span(expected.ids).first(90);
  for (const double temperature : {0.0, 0.8}) {
    const GenerateOptions how = options(temperature, 40, /*seed=*/7);
    const auto first_engine = open(golden_folder(GetParam()));
    Batcher first_batcher(*first_engine, {});
    const Generation first = generate(first_batcher, prompt, how);
    ASSERT_EQ(first.ids.size(), 40u);
    const auto expect_same = [&](const Generation& again, const std::string& what) {
      EXPECT_EQ(again.ids, first.ids) << what;
      EXPECT_EQ(again.logprobs, first.logprobs) << what;
    };
    const Generation warm = generate(first_batcher, prompt, how);
    expect_same(warm, "warm");
    EXPECT_LT(warm.n_prompt_computed, first.n_prompt_computed) << "nothing was reused";
    generate(first_batcher, std::span(expected.ids).first(30), options(1, 5));
    expect_same(generate(first_batcher, prompt, how), "after another prompt");
    for (const int n_threads : {1, 2, 3}) {
      for (const Index chunk : {1, 7, 64}) {
        const auto engine = open(golden_folder(GetParam()), n_threads, chunk);
        Batcher batcher(*engine, {});
        expect_same(generate(batcher, prompt, how),
                    std::to_string(n_threads) + " threads, chunks of " + std::to_string(chunk));
      }
    }
  }
}

TEST_P(Engines, ScoresAreThoseOfTheLogits) {
  const Expected expected =
      read_expected(std::string(GetParam()).substr(0, std::string(GetParam()).find('/')));
  const auto engine = open(golden_folder(GetParam()));
  const auto scored = score(*engine, expected.ids, 64);
  // Windows of 64, 64 and 22 tokens, the first of each without a score.
  ASSERT_EQ(scored.size(), expected.ids.size() - 3);
  const auto window = std::span(expected.ids).subspan(64, 64);
  std::vector<float> want;
  for_each_logits(*engine, window, [&](Index pos, std::span<const float> logits) {
    if (pos + 1 < 64) {
      want.push_back(static_cast<float>(log_softmax(
          logits)[static_cast<std::size_t>(window[static_cast<std::size_t>(pos) + 1])]));
    }
  });
  ASSERT_EQ(want.size(), 63u);
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(scored[63 + i].pos, static_cast<Index>(65 + i));
    EXPECT_EQ(scored[63 + i].id, window[i + 1]);
    EXPECT_NEAR(scored[63 + i].logprob, want[i], 2e-6 * (1 + std::fabs(want[i])));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Engines,
                         testing::Values("qwen2", "v2_lite", "v3", "v3_fp8",
                                         "llama_quantised/new.gguf", "v3_quantised/new.gguf"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

TEST(EngineErrors, PromptsThatCannotBeRunAreUsageErrors) {
  const auto engine = open(golden_folder("qwen2"));
  Batcher batcher(*engine, {});
  const auto code = [&](std::vector<TokenId> ids) {
    try {
      generate(batcher, ids, options(0, 1));
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kIo;  // stands for: nothing was thrown
  };
  EXPECT_EQ(code({101}), ErrorCode::kUsage) << "the vocabulary has 101 rows";
  EXPECT_EQ(code({3, -1}), ErrorCode::kUsage);
  EXPECT_EQ(code(std::vector<TokenId>(257, 5)), ErrorCode::kUsage) << "the context has 256";
  EXPECT_EQ(code({100}), ErrorCode::kIo) << "and goes on after an error";
}

TEST(EngineErrors, TheContextIsNeverExceeded) {
  const auto engine = open(golden_folder("qwen2"));
  Batcher batcher(*engine, {});
  const std::vector<TokenId> prompt(250, 5);
  const Generation g = generate(batcher, prompt, options(0, -1));
  EXPECT_EQ(g.finish_reason, FinishReason::kLength);
  EXPECT_EQ(prompt.size() + g.ids.size(), 256u);
}

// ---------------------------------------------------------------------------------------------------
// With a tokenizer that has fewer tokens than the model has rows.

constexpr TokenId kThink = 60, kEndThink = 61, kEnd = 62, kTokens = 63, kRows = 101;

/// Small letters, digits and punctuation, each its own token, and four added ones.
std::string tiny_tokenizer() {
  nlohmann::ordered_json vocab;
  TokenId id = 0;
  for (const char c : std::string("abcdefghijklmnopqrstuvwxyz0123456789.,!?;:+-*/=()[]{}")) {
    vocab[std::string(1, c)] = id++;
  }
  for (const char* word : {"Ġ", "Ċ"}) vocab[word] = id++;  // space and line feed
  while (id < kThink) vocab["unused" + std::to_string(id)] = id, ++id;
  nlohmann::ordered_json added;
  for (const auto& [content, special] : std::vector<std::pair<std::string, bool>>{
           {"<think>", false}, {"</think>", false}, {"<end>", true}}) {
    added.push_back({{"id", id++},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  }
  return nlohmann::ordered_json{
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", false},
        {"trim_offsets", true},
        {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "ByteLevel"},
        {"add_prefix_space", true},
        {"trim_offsets", true},
        {"use_regex", true}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::ordered_json::array()}}}}
      .dump();
}

class WithTokenizer : public testing::Test {
 protected:
  WithTokenizer() {
    for (const char* file : {"config.json", "model.safetensors"}) {
      folder_.write(file, read_file(golden_folder("qwen2") / file));
    }
    folder_.write("tokenizer.json", tiny_tokenizer());
    engine_ = open(folder_.path());
  }

  Generation answer(const std::string& prompt, GenerateOptions how) {
    Batcher batcher(*engine_, {});
    return generate(batcher, engine_->tokenizer()->encode(prompt, {}), how);
  }

  TempDir folder_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(WithTokenizer, IsReadFromTheFolder) {
  ASSERT_NE(engine_->tokenizer(), nullptr) << engine_->tokenizer_problem();
  EXPECT_EQ(engine_->tokenizer()->n_tokens(), kTokens);
  EXPECT_EQ(engine_->model().config().vocab_size, kRows);
}

// T09: rows of the head beyond the tokenizer are never sampled.
TEST_F(WithTokenizer, RowsWithoutATokenAreNeverSampled) {
  EXPECT_EQ(engine_->n_valid_ids(), kTokens);
  for (const double temperature : {0.0, 5.0}) {
    const Generation g = answer("abc", options(temperature, 120, /*seed=*/3));
    ASSERT_EQ(g.ids.size(), 120u);
    for (const TokenId id : g.ids) EXPECT_LT(id, kTokens);
  }
  // At this temperature all rows are nearly equally likely: without the mask a third would be
  // padding.
  GenerateOptions forced = options(0, 1);
  forced.sampling.logit_bias = {{kTokens, 100.0}};
  EXPECT_THROW(answer("abc", forced), Error);
}

TEST_F(WithTokenizer, APromptMayHoldARowWithoutAToken) {
  Batcher batcher(*engine_, {});
  const std::vector<TokenId> prompt = {1, kTokens,
                                       2};  // in range, undefined: computed as any other
  EXPECT_EQ(generate(batcher, prompt, options(0, 3)).ids.size(), 3u);
}

// C01 (c): the prompt opened the thought and nothing closes it.
TEST_F(WithTokenizer, AThoughtThatIsNotClosedIsAllReasoning) {
  GenerateOptions how = options(1, 30, /*seed=*/5);
  how.sampling.logit_bias = {{kThink, -100.0}, {kEndThink, -100.0}, {kEnd, -100.0}};
  const Generation g = answer("a+b=?<think>\n", how);
  EXPECT_EQ(g.content, "");
  EXPECT_FALSE(g.reasoning.empty());
  EXPECT_EQ(g.finish_reason, FinishReason::kLength);
}

// C01 (e)
TEST_F(WithTokenizer, WithoutAnOpenThoughtAllIsAnswer) {
  GenerateOptions how = options(1, 30, /*seed=*/5);
  how.sampling.logit_bias = {{kThink, -100.0}, {kEndThink, -100.0}, {kEnd, -100.0}};
  const Generation g = answer("a+b=?", how);
  EXPECT_EQ(g.reasoning, "");
  EXPECT_FALSE(g.content.empty());
}

std::string trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  while (!text.empty() && text.front() == '\n') text.erase(0, 1);
  return text;
}

// C01 (a), (b), (d): whatever the model says, what comes before </think> is the thought and what
// comes after is the answer, and the pieces together are the whole.
TEST_F(WithTokenizer, TheThoughtEndsAtItsToken) {
  int closed = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    GenerateOptions how = options(1, 40, seed);
    how.sampling.logit_bias = {{kThink, -100.0}, {kEnd, -100.0}, {kEndThink, 2.0}};
    Batcher batcher(*engine_, {});
    std::string reasoning, content;
    const Generation g = generate(batcher, engine_->tokenizer()->encode("a<think>\n", {}), how,
                                  {.on_piece = [&](const GeneratedPiece& piece) {
                                    reasoning += piece.reasoning;
                                    content += piece.content;
                                  }});
    EXPECT_EQ(reasoning, g.reasoning);
    EXPECT_EQ(content, g.content);
    const auto end = std::find(g.ids.begin(), g.ids.end(), kEndThink);
    if (end == g.ids.end()) continue;
    ++closed;
    const auto text = [&](auto from, auto to) {
      return engine_->tokenizer()->decode(std::vector<TokenId>(from, to), true);
    };
    EXPECT_EQ(trimmed(g.reasoning), trimmed(text(g.ids.begin(), end)));
    if (std::find(end + 1, g.ids.end(), kEndThink) == g.ids.end()) {
      EXPECT_EQ(trimmed(g.content), trimmed(text(end + 1, g.ids.end())));
    }
  }
  EXPECT_GT(closed, 5) << "the seeds show nothing";
}

}  // namespace
}  // namespace kogia::test
