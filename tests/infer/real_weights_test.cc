// A real model on a real text: SmolLM2-135M-Instruct (Q4_1) and the GPL-3, against transformers in
// f32.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "infer/batcher.h"
#include "infer/engine.h"
#include "infer/generate.h"
#include "infer/score.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

constexpr std::size_t kWindow = 1024, kWindows = 2;

std::filesystem::path model_path() {
  const char* cache = std::getenv("KOGIA_CACHE");
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (cache != nullptr && *cache != '\0') {
    folder = cache;
  } else if (xdg != nullptr && *xdg != '\0') {
    folder = std::filesystem::path(xdg) / "kogia";
  } else {
    folder = std::filesystem::path(home == nullptr ? "" : home) / ".cache/kogia";
  }
  return folder / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

std::optional<nlohmann::json> expectations() {
  if (!std::filesystem::exists(model_path())) return std::nullopt;
  return nlohmann::json::parse(read_file(golden_folder("smollm2") / "expected.json"));
}

std::unique_ptr<Engine> open(std::optional<Compute> compute) {
  return Engine::open(
      model_path(),
      {.cpu = {}, .compute = compute, .cache_dtype = {}, .ctx = kWindow, .show_progress = false});
}

class RealWeights : public testing::Test {
 protected:
  void SetUp() override {
    const auto json = expectations();
    if (!json) GTEST_SKIP() << model_path() << " is not there; ./start and ./check fetch it";
    json_ = *json;
  }
  nlohmann::json json_;
};

TEST_F(RealWeights, TheTokenizerOfTheFileReadsTheTextAsTransformersDoes) {
  const std::string text = read_file("/usr/share/common-licenses/GPL-3");
  if (text.empty()) GTEST_SKIP() << "/usr/share/common-licenses/GPL-3 is not installed";
  auto ids = open_tokenizer(model_path())->encode(text, {.add_special = true});
  const auto expected = json_.at("ids").get<std::vector<TokenId>>();
  ASSERT_GE(ids.size(), expected.size());
  ids.resize(expected.size());
  EXPECT_EQ(ids, expected);
}

// ---------------------------------------------------------------------------------------------------
// Two windows of 1,024 tokens, run once in each arithmetic and compared position by position.

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  const std::vector<double> p = log_softmax(p_logits), q = log_softmax(q_logits);
  double kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
  return kl;
}

std::size_t top(std::span<const float> row) {
  return static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

struct ScoredRun {
  std::unique_ptr<Engine> engine;
  std::vector<double> logprobs;  // of each token but the first of a window
  double kl = 0, same_top = 0;   // against f32, summed over positions

  double perplexity_of_first_window() const {
    double nll = 0;
    for (std::size_t i = 0; i < kWindow - 1; ++i) nll -= logprobs[i];
    return std::exp(nll / (kWindow - 1));
  }
  double mean_kl() const { return kl / (kWindow * kWindows); }
  double same_top_share() const { return same_top / (kWindow * kWindows); }
};

class Arithmetics : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto json = expectations();
    if (!json) return;
    expected_ = json->at("logprobs").get<std::vector<double>>();
    f32_.engine = open(Compute::f32);
    default_.engine = open(std::nullopt);
    int8_.engine = open(Compute::int8);
    const auto ids = json->at("ids").get<std::vector<TokenId>>();
    ASSERT_EQ(ids.size(), kWindow * kWindows);
    for (std::size_t w = 0; w < kWindows; ++w) {
      const auto window = std::span(ids).subspan(w * kWindow, kWindow);
      std::vector<std::vector<float>> reference;
      visit(f32_, window, [&](std::size_t, std::span<const float> logits) {
        reference.emplace_back(logits.begin(), logits.end());
      });
      for (ScoredRun* run : {&default_, &int8_}) {
        visit(*run, window, [&](std::size_t pos, std::span<const float> logits) {
          run->kl += kl_divergence(reference.at(pos), logits);
          run->same_top += top(reference.at(pos)) == top(logits) ? 1 : 0;
        });
      }
    }
    default_is_int8_ = default_.engine->device().default_compute(DType::q4_1) == Compute::int8;
  }
  static void TearDownTestSuite() {
    for (ScoredRun* run : {&f32_, &default_, &int8_}) *run = {};
  }
  void SetUp() override {
    if (!f32_.engine) GTEST_SKIP() << model_path() << " is not there; ./start and ./check fetch it";
  }

  static void visit(ScoredRun& run, std::span<const TokenId> window,
                    const std::function<void(std::size_t, std::span<const float>)>& body) {
    for_each_logits(*run.engine, window, [&](Index pos, std::span<const float> logits) {
      const auto at = static_cast<std::size_t>(pos);
      if (at + 1 < window.size()) {
        run.logprobs.push_back(log_softmax(logits)[static_cast<std::size_t>(window[at + 1])]);
      }
      body(at, logits);
    });
  }

  static inline std::vector<double> expected_;
  static inline ScoredRun f32_, default_, int8_;
  static inline bool default_is_int8_ = false;
};

constexpr double kPerplexity = 19.2991;  // transformers, the same file decoded to f32

// f32 is pinned to transformers token by token, and the others below are measured against f32.
TEST_F(Arithmetics, F32IsTransformersTokenByToken) {
  ASSERT_EQ(f32_.logprobs.size(), expected_.size());
  for (std::size_t i = 0; i < expected_.size(); ++i) {
    ASSERT_NEAR(f32_.logprobs[i], expected_[i], 1e-3) << "token " << i;
  }
  EXPECT_NEAR(f32_.perplexity_of_first_window(), kPerplexity, kPerplexity * 0.001);
}

TEST_F(Arithmetics, TheDefaultIsCloseToF32) {
  RecordProperty("kl", std::to_string(default_.mean_kl()));
  RecordProperty("same_top_share", std::to_string(default_.same_top_share()));
  RecordProperty("perplexity", std::to_string(default_.perplexity_of_first_window()));
  if (default_is_int8_) {
    GTEST_SKIP() << "this processor has no bf16 dot products: its default is int8, tested below";
  }
  EXPECT_NEAR(default_.perplexity_of_first_window(), kPerplexity, kPerplexity * 0.003);
  EXPECT_LE(default_.mean_kl(), 5e-4);
  EXPECT_GE(default_.same_top_share(), 0.985);
  EXPECT_GT(default_.mean_kl(), 1e-9) << "f32 as well: nothing was compared";
}

TEST_F(Arithmetics, Int8IsWithinItsBoundOfF32) {
  RecordProperty("kl", std::to_string(int8_.mean_kl()));
  RecordProperty("same_top_share", std::to_string(int8_.same_top_share()));
  EXPECT_LE(int8_.mean_kl(), 5e-3);
  EXPECT_GE(int8_.same_top_share(), 0.95);
  EXPECT_GT(int8_.mean_kl(), 1e-9) << "f32 as well: nothing was compared";
}

// ---------------------------------------------------------------------------------------------------

class Question : public RealWeights {
 protected:
  std::vector<TokenId> prompt(const Engine& engine) const {
    const ChatMessage message{.role = "user", .content = json_.at("question"), .extra_json = {}};
    return engine.chat()->render(std::span(&message, 1), {}).ids;
  }
  Generation ask(Engine& engine, const GenerateOptions& options) const {
    Batcher batcher(engine, {});
    return generate(batcher, prompt(engine), options);
  }
  static GenerateOptions greedy() { return {.sampling = {.temperature = 0}, .max_tokens = 24}; }
};

TEST_F(Question, TheTemplateOfTheFileGivesTheIdsOfTransformers) {
  const auto engine = open(std::nullopt);
  ASSERT_NE(engine->chat(), nullptr);
  EXPECT_EQ(prompt(*engine), json_.at("question_ids").get<std::vector<TokenId>>());
}

TEST_F(Question, TheCapitalOfFranceIsParis) {
  for (const std::optional<Compute> compute :
       {std::optional(Compute::f32), std::optional<Compute>()}) {
    const auto engine = open(compute);
    if (!compute && engine->device().default_compute(DType::q4_1) == Compute::int8) continue;
    const Generation answer = ask(*engine, greedy());
    EXPECT_EQ(answer.content, "The capital of France is Paris.");
    EXPECT_EQ(answer.finish_reason, FinishReason::kStop);
    auto expected = json_.at("answer_ids").get<std::vector<TokenId>>();
    expected.pop_back();  // the end of the turn is not part of the answer
    EXPECT_EQ(answer.ids, expected);
  }
}

// S01: a stop string that begins inside one token and ends inside a later one.
TEST_F(Question, AStopStringOverTokenBordersCutsTheAnswer) {
  const auto engine = open(Compute::f32);
  GenerateOptions options = greedy();
  options.stop = {"nce is Par"};
  Batcher batcher(*engine, {});
  std::string streamed;
  const Generation answer =
      generate(batcher, prompt(*engine), options,
               {.on_piece = [&](const GeneratedPiece& piece) { streamed += piece.content; }});
  EXPECT_EQ(answer.content, "The capital of Fra");
  EXPECT_EQ(streamed, answer.content);
  EXPECT_EQ(answer.finish_reason, FinishReason::kStop);

  options.stop = {"is Rome", "Parisian"};  // begins like the answer, and is not in it
  EXPECT_EQ(ask(*engine, options).content, "The capital of France is Paris.");
  options.stop = {"capital of France?"};  // only the question says that
  EXPECT_EQ(ask(*engine, options).content, "The capital of France is Paris.");
}

}  // namespace
}  // namespace kogia::test
