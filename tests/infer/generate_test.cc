#include "infer/generate.h"

#include <cmath>
#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "infer/batcher.h"
#include "scripted_engine.h"

namespace kogia {
namespace {

using test::Script;
using testing::ElementsAre;
using testing::HasSubstr;

// Says `words` one after another after a prompt of one token, then token 0 for ever.
Script saying(const std::vector<std::string>& words) {
  Script script;
  script.words = {".", "<eos>"};
  script.special = {1};
  script.eos = {1};
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto known = std::ranges::find(script.words, words[i]);
    script.likeliest[i + 1] = static_cast<TokenId>(known - script.words.begin());
    if (known == script.words.end()) script.words.push_back(words[i]);
  }
  return script;
}

GenerateOptions stopping_at(std::string stop, Index max_tokens = -1) {
  GenerateOptions options;
  options.stop.push_back(std::move(stop));
  options.max_tokens = max_tokens;
  return options;
}

struct Said {
  Generation generation;
  std::string streamed_reasoning, streamed_content;
  std::vector<TokenId> streamed_ids;
};

Said run(Script script, GenerateOptions options, std::vector<TokenId> prompt = {0}) {
  options.sampling.temperature = 0;
  const auto engine = test::scripted_engine(std::move(script));
  Batcher batcher(*engine, {});
  Said said;
  said.generation =
      generate(batcher, prompt, options, {.on_piece = [&](const GeneratedPiece& piece) {
                 said.streamed_reasoning += piece.reasoning;
                 said.streamed_content += piece.content;
                 if (piece.id >= 0) said.streamed_ids.push_back(piece.id);
               }});
  EXPECT_EQ(said.streamed_content, said.generation.content) << "streamed and whole text differ";
  EXPECT_EQ(said.streamed_reasoning, said.generation.reasoning);
  EXPECT_EQ(said.streamed_ids, said.generation.ids);
  EXPECT_EQ(said.generation.logprobs.size(), said.generation.ids.size());
  return said;
}

template <class Action>
Error error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kIo, "(no error)"};
}

TEST(Generate, EndsAtTheEndOfTextWhichIsNotPartOfIt) {
  const auto said = run(saying({"one", " two", "<eos>"}), {});
  EXPECT_EQ(said.generation.content, "one two");
  EXPECT_THAT(said.generation.ids, ElementsAre(2, 3));
  EXPECT_EQ(said.generation.finish_reason, FinishReason::kStop);
  EXPECT_EQ(said.generation.n_prompt, 1);
  EXPECT_NEAR(said.generation.logprobs[0], 5 - std::log(std::exp(5.0) + 3), 1e-6);
}

TEST(Generate, IgnoredEndOfTextIsATokenWithoutText) {
  const auto said = run(saying({"one", "<eos>", " two"}), {.max_tokens = 3, .ignore_eos = true});
  EXPECT_EQ(said.generation.content, "one two");
  EXPECT_THAT(said.generation.ids, ElementsAre(2, 1, 3));
  EXPECT_EQ(said.generation.finish_reason, FinishReason::kLength);
}

TEST(Generate, MaxTokensIsExactAndZeroIsLegal) {
  EXPECT_EQ(run(saying({"a", "b"}), {.max_tokens = 2}).generation.content, "ab");
  const auto none = run(saying({"a"}), {.max_tokens = 0});
  EXPECT_TRUE(none.generation.ids.empty());
  EXPECT_EQ(none.generation.finish_reason, FinishReason::kLength);
}

TEST(Generate, PromptAndAnswerNeverExceedTheContext) {
  Script script = saying({"a", "b", "c", "d"});
  script.ctx = 4;
  const auto said = run(script, {});
  EXPECT_EQ(said.generation.content, "abc");
  EXPECT_EQ(said.generation.finish_reason, FinishReason::kLength);
  EXPECT_EQ(run(script, {}, {0, 0, 0, 0}).generation.ids.size(), 0U);
}

TEST(Generate, StopStringsMaySpanTokens) {  // S01
  const auto stopped =
      run(saying({"alpha", " be", "ta ga", "mma del", "ta", "<eos>"}), stopping_at("beta gamma"));
  EXPECT_EQ(stopped.generation.content, "alpha ");
  EXPECT_EQ(stopped.generation.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.generation.ids.size(), 4U) << "usage counts what was generated";
  const auto whole =
      run(saying({"alpha", " be", "ta go", "ne", "<eos>"}), stopping_at("beta gamma"));
  EXPECT_EQ(whole.generation.content, "alpha beta gone");
  const auto held = run(saying({"alpha", " be", "<eos>"}), stopping_at("beta gamma"));
  EXPECT_EQ(held.generation.content, "alpha be") << "what was held back is not lost";
  const auto cut = run(saying({"alpha", " be"}), stopping_at("beta gamma", 2));
  EXPECT_EQ(cut.generation.content, "alpha be");
}

TEST(Generate, AStopStringOfOneCharacterOverThreeTokens) {  // S01
  const auto said = run(saying({"A ", "\xf0\x9f", "\xa6", "\x96 B", "<eos>"}), stopping_at("🦖"));
  EXPECT_EQ(said.generation.content, "A ");
  EXPECT_EQ(said.generation.ids.size(), 4U);
}

TEST(Generate, AStopStringInThePromptDoesNotCount) {  // S01
  const auto said = run(saying({"a", "b", "<eos>"}), stopping_at("."), {0});
  EXPECT_EQ(said.generation.content, "ab");
}

TEST(Generate, StopStringsDoNotApplyToTheThought) {
  const auto said = run(saying({"<think>", "STOP here", "</think>", "an", "swer STOP", "<eos>"}),
                        stopping_at("STOP"));
  EXPECT_EQ(said.generation.reasoning, "STOP here");
  EXPECT_EQ(said.generation.content, "answer ");
}

TEST(Generate, WithoutSplittingAllTextIsContent) {
  const auto said =
      run(saying({"<think>", "hm", "</think>", "yes", "<eos>"}), {.split_reasoning = false});
  EXPECT_EQ(said.generation.reasoning, "");
  EXPECT_EQ(said.generation.content, "<think>hm</think>yes");
}

TEST(Generate, AnUnfinishedCharacterEndsAsAReplacement) {
  const auto said = run(saying({"a", "\xf0\x9f"}), {.max_tokens = 2});
  EXPECT_EQ(said.generation.content, "a\uFFFD");
}

TEST(Generate, CtrlCEndsItAndLeavesTheBatcherUsable) {
  const InterruptGuard guard;
  Script script = saying({"a", "b", "c", "d", "<eos>"});
  script.on_append = [](std::size_t n) {
    if (n == 3) ::raise(SIGINT);
  };
  const auto engine = test::scripted_engine(script);
  Batcher batcher(*engine, {});
  GenerateOptions options{.sampling = {.temperature = 0}};
  const std::vector<TokenId> prompt{0};
  const Generation cut = generate(batcher, prompt, options);
  EXPECT_EQ(cut.finish_reason, FinishReason::kInterrupted);
  EXPECT_EQ(cut.content, "abc");
  clear_interrupt();
  script.on_append = {};
  const auto again_engine = test::scripted_engine(script);
  Batcher again(*again_engine, {});
  EXPECT_EQ(generate(again, prompt, options).content, "abcd");
}

TEST(Generate, CtrlCDuringThePromptIsNoError) {
  const InterruptGuard guard;
  ::raise(SIGINT);
  const auto said = run(saying({"a"}), {});
  EXPECT_EQ(said.generation.finish_reason, FinishReason::kInterrupted);
  EXPECT_TRUE(said.generation.ids.empty());
  clear_interrupt();
}

TEST(Generate, WithoutATokenizerThereAreIdsAlone) {
  Script script = saying({"a", "b", "<eos>"});
  script.has_tokenizer = false;
  const auto said = run(script, {});
  EXPECT_THAT(said.generation.ids, ElementsAre(2, 3));
  EXPECT_EQ(said.generation.content, "");
  const Error error = error_of([&] { run(script, stopping_at("a")); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.what(), HasSubstr("stop strings need a tokenizer: no tokenizer.json"));
}

TEST(Generate, UsageErrorsNameWhatIsWrong) {
  EXPECT_THAT(error_of([] { run(saying({"a"}), {}, {}); }).what(),
              HasSubstr("prompt has no tokens"));
  EXPECT_THAT(error_of([] { run(saying({"a"}), {.max_tokens = -2}); }).what(),
              HasSubstr("max_tokens is -2"));
  EXPECT_THAT(error_of([] { run(saying({"a"}), stopping_at("")); }).what(),
              HasSubstr("a stop string is empty"));
}

TEST(Generate, TheSameKeysGiveTheSameTokens) {
  Script script = saying({});
  for (int i = 0; i < 50; ++i) script.words.push_back(fmt::format("w{}", i));
  script.likeliest[1] = 0;
  const auto ids = [&](std::uint64_t seed, std::uint64_t prompt_key, std::uint64_t sample_key) {
    const auto engine = test::scripted_engine(script);
    Batcher batcher(*engine, {});
    return generate(batcher, std::vector<TokenId>{0},
                    {.sampling = {.temperature = 5, .seed = seed},
                     .max_tokens = 12,
                     .ignore_eos = true,
                     .prompt_key = prompt_key,
                     .sample_key = sample_key})
        .ids;
  };
  EXPECT_EQ(ids(1, 2, 3), ids(1, 2, 3));
  EXPECT_NE(ids(1, 2, 3), ids(2, 2, 3));
  EXPECT_NE(ids(1, 2, 3), ids(1, 3, 3));
  EXPECT_NE(ids(1, 2, 3), ids(1, 2, 4));
}

}  // namespace
}  // namespace kogia
