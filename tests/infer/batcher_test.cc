// Many requests at once on a model: each answer is, bit for bit, the one that its request has
// alone, whatever comes, goes, is shared, set back, guessed or evicted meanwhile.

#include "infer/batcher.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "infer/drafter.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

// ThreadSanitizer makes a step ten times as slow.
#if defined(__SANITIZE_THREAD__)
constexpr bool kTsan = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool kTsan = true;
#else
constexpr bool kTsan = false;
#endif
#else
constexpr bool kTsan = false;
#endif

std::unique_ptr<Engine> open(const std::string& name, Index ctx, Index cache_tokens = 0,
                             int n_threads = 2) {
  return Engine::open(golden_folder(name), {.cpu = {.n_threads = n_threads, .isa = {}},
                                            .compute = {},
                                            .cache_dtype = {},
                                            .ctx = ctx,
                                            .cache_tokens = cache_tokens,
                                            .show_progress = false});
}

std::vector<TokenId> random_ids(std::uint64_t key, Index n) {
  const Philox random(11, key);
  std::vector<TokenId> ids;
  for (Index i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>(random.below(60, static_cast<std::uint64_t>(i))));
  }
  return ids;
}

GenerateOptions drawing(Index max_tokens, std::uint64_t prompt_key, std::uint64_t sample_key) {
  return {.sampling = {.temperature = sample_key % 3 == 0 ? 0.0 : 0.9, .top_k = 20, .seed = 5},
          .max_tokens = max_tokens,
          .ignore_eos = true,
          .prompt_key = prompt_key,
          .sample_key = sample_key,
          .n_top_logprobs = sample_key % 2 == 0 ? 3 : 0};
}

void expect_same(const Generation& a, const Generation& b, const std::string& what) {
  EXPECT_EQ(a.ids, b.ids) << what;
  EXPECT_EQ(a.logprobs, b.logprobs) << what;
  ASSERT_EQ(a.top_logprobs.size(), b.top_logprobs.size()) << what;
  for (std::size_t i = 0; i < a.top_logprobs.size(); ++i) {
    ASSERT_EQ(a.top_logprobs[i].size(), b.top_logprobs[i].size());
    for (std::size_t k = 0; k < a.top_logprobs[i].size(); ++k) {
      EXPECT_EQ(a.top_logprobs[i][k].id, b.top_logprobs[i][k].id) << what;
      EXPECT_EQ(a.top_logprobs[i][k].logprob, b.top_logprobs[i][k].logprob) << what;
    }
  }
}

/// Knows the answer, and is right three times in four.
class Oracle : public Drafter {
 public:
  explicit Oracle(std::vector<TokenId> all) : all_(std::move(all)) {}
  std::vector<TokenId> propose(std::span<const TokenId> tokens, Index max_tokens) override {
    std::vector<TokenId> drafts;
    const Philox random(3, tokens.size());
    const std::size_t n =
        std::min<std::size_t>(static_cast<std::size_t>(max_tokens), random.below(5, 0));
    for (std::size_t i = tokens.size(); i < all_.size() && drafts.size() < n; ++i) {
      drafts.push_back(random.below(4, i) == 0 ? 7 : all_[i]);
    }
    return drafts;
  }
  void record(Index n_drafted, Index n_accepted, Index, double) override {
    EXPECT_LE(n_accepted, n_drafted);
  }

 private:
  std::vector<TokenId> all_;
};

/// Prompts of a few families, so that beginnings are shared; answers computed alone once.
class Requests {
 public:
  struct Case {
    std::vector<TokenId> prompt;
    GenerateOptions options;
    Generation alone;
  };
  explicit Requests(const std::string& model) : engine_(open(model, kCtx)) {}

  const Case& get(std::uint64_t family, std::uint64_t variant, std::uint64_t sample) {
    const auto key = std::tuple(family, variant, sample);
    const auto known = cases_.find(key);
    if (known != cases_.end()) return known->second;
    Case c;
    c.prompt = random_ids(family, static_cast<Index>(20 + 60 * family));
    const auto own = random_ids(1000 + 10 * family + variant, static_cast<Index>(7 * variant));
    c.prompt.insert(c.prompt.end(), own.begin(), own.end());
    c.options = drawing(static_cast<Index>(3 + 11 * (sample + variant) % 50), 10 * family + variant,
                        sample);
    Batcher solo(*engine_, {.reuse_prefixes = false});
    c.alone = generate(solo, c.prompt, c.options);
    return cases_.emplace(key, std::move(c)).first->second;
  }

  static constexpr Index kCtx = 384;

 private:
  std::unique_ptr<Engine> engine_;
  std::map<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>, Case> cases_;
};

class Batches : public testing::TestWithParam<const char*> {};

TEST_P(Batches, EveryAnswerIsTheOneOfItsRequestAlone) {
  Requests requests(GetParam());
  // Twelve pages: about three of the longer texts.
  const auto engine = open(GetParam(), Requests::kCtx, /*cache_tokens=*/12 * 64);
  std::map<RequestId, const Requests::Case*> running;
  const Requests::Case* submitted = nullptr;
  Batcher batcher(*engine, {.step_tokens = 48,
                            .max_sequences = 10,
                            .planned_tokens = 8,
                            .make_drafter = [&](const Request&) -> std::unique_ptr<Drafter> {
                              auto all = submitted->prompt;
                              const auto& ids = submitted->alone.ids;
                              all.insert(all.end(), ids.begin(), ids.end());
                              return std::make_unique<Oracle>(std::move(all));
                            }});
  const Philox random(77);
  std::uint64_t counter = 0;
  const auto below = [&](std::uint64_t n) { return random.below(n, counter++); };
  Index n_done = 0, n_cut = 0;
  const bool long_run = std::string_view(GetParam()) == "v3" && !kTsan;
  const int n_steps = long_run ? 10000 : kTsan ? 1000 : 2500;
  for (int i = 0; i < n_steps; ++i) {
    if (running.size() < 14 && below(2) == 0) {
      const std::uint64_t family = below(5), variant = below(4);
      const std::uint64_t n_samples = below(4) == 0 ? 4 : 1;  // one prompt, several answers
      for (std::uint64_t n = 0; n < n_samples; ++n) {
        submitted = &requests.get(family, variant, below(4));
        const auto id = std::make_shared<RequestId>();
        *id = batcher.submit(
            {.prompt = submitted->prompt, .options = submitted->options},
            {.on_done = [&, id](const Generation& g) {
              const Requests::Case& c = *running.at(*id);
              running.erase(*id);
              if (g.finish_reason == FinishReason::kCancelled) {
                ++n_cut;
                ASSERT_LE(g.ids.size(), c.alone.ids.size());
                EXPECT_TRUE(std::equal(g.ids.begin(), g.ids.end(), c.alone.ids.begin()));
                return;
              }
              ++n_done;
              expect_same(g, c.alone, "request " + std::to_string(*id));
            }});
        running[*id] = submitted;
      }
    }
    if (!running.empty() && below(50) == 0) {
      auto victim = running.begin();
      std::advance(victim, static_cast<std::ptrdiff_t>(below(running.size())));
      batcher.cancel(victim->first);
    }
    batcher.step();
    batcher.check_pages();
    if (HasFailure()) FAIL() << "in step " << i;
  }
  const BatcherStats stats = batcher.stats();
  if (long_run) {
    EXPECT_GT(n_done, 1000);
    EXPECT_GT(n_cut, 10);
    EXPECT_GT(stats.n_preempted, 10);
  }
  EXPECT_GT(stats.n_cached_tokens, 0);
  EXPECT_GT(stats.n_accepted, 0);
  EXPECT_LT(stats.n_accepted, stats.n_drafted);
  batcher.end_all(FinishReason::kCancelled);
  EXPECT_EQ(engine->pages().n_free() + batcher.stats().n_tree_pages, engine->pages().n_pages());
}

INSTANTIATE_TEST_SUITE_P(Models, Batches,
                         testing::Values("qwen2", "v2_lite", "v3", "llama_quantised/new.gguf"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name)
                             c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

TEST(Batcher, OnePromptSixteenTimesIsComputedOnceAndTheSamplesDiffer) {
  const auto engine = open("v3", 256);
  Batcher batcher(*engine, {});
  const auto prompt = random_ids(4, 100);
  std::vector<Generation> done;
  for (std::uint64_t sample = 0; sample < 16; ++sample) {
    batcher.submit({.prompt = prompt, .options = drawing(10, 1, 3 * sample + 1)},
                   {.on_done = [&](Generation g) { done.push_back(std::move(g)); }});
  }
  batcher.run();
  ASSERT_EQ(done.size(), 16u);
  EXPECT_EQ(batcher.stats().n_cached_tokens, 15 * 99);
  EXPECT_NE(done[0].ids, done[1].ids);
}

// P03: a turn computes what is new, not the conversation.
TEST(Batcher, ATurnComputesWhatIsNew) {
  const auto engine = open("qwen2", 1024);
  Batcher batcher(*engine, {});
  std::vector<TokenId> text = random_ids(9, 60);
  for (int turn = 0; turn < 10; ++turn) {
    const auto n_known = static_cast<Index>(text.size());
    const Index n_new = turn == 0 ? 0 : 40;
    const auto next = random_ids(200 + static_cast<std::uint64_t>(turn), n_new);
    text.insert(text.end(), next.begin(), next.end());
    const Generation g = generate(batcher, text, drawing(20, 1, 0));
    if (turn > 0) {
      EXPECT_LE(g.n_prompt_computed, n_new + 1) << "turn " << turn << " after " << n_known;
    }
    text.insert(text.end(), g.ids.begin(), g.ids.end());
  }
  const Generation again = generate(batcher, text, drawing(1, 1, 0));
  EXPECT_LE(again.n_prompt_computed, 2);
  EXPECT_EQ(generate(batcher, text, drawing(1, 1, 0)).n_prompt_computed, 1) << "an exact repeat";
  auto changed = text;
  const std::size_t place = changed.size() - changed.size() / 10;
  changed[place] = (changed[place] + 1) % 60;
  EXPECT_EQ(generate(batcher, changed, drawing(1, 1, 0)).n_prompt_computed,
            static_cast<Index>(changed.size() - place));
}

TEST(Batcher, TenantsShareNothing) {
  const auto engine = open("qwen2", 256);
  Batcher batcher(*engine, {});
  const auto prompt = random_ids(9, 100);
  for (const char* tenant : {"a", "b", "a"}) {
    batcher.submit({.prompt = prompt, .options = drawing(1, 1, 0), .tenant = tenant}, {});
    batcher.run();
  }
  EXPECT_EQ(batcher.stats().n_cached_tokens, 99);
}

TEST(Batcher, EventsMaySubmitAndCancel) {
  const auto engine = open("qwen2", 256);
  Batcher batcher(*engine, {});
  std::vector<std::string> log;
  RequestId second = 0;
  batcher.submit({.prompt = random_ids(1, 10), .options = drawing(4, 1, 0)},
                 {.on_piece =
                      [&](const GeneratedPiece&) {
                        if (second != 0) return;
                        second = batcher.submit(
                            {.prompt = random_ids(2, 10), .options = drawing(100, 1, 0)},
                            {.on_done = [&](const Generation& g) {
                              log.push_back("second " + std::string(name(g.finish_reason)));
                            }});
                      },
                  .on_done =
                      [&](const Generation& g) {
                        log.push_back("first " + std::string(name(g.finish_reason)));
                        EXPECT_TRUE(batcher.cancel(second));
                      }});
  batcher.run();
  EXPECT_THAT(log, testing::ElementsAre("first length", "second cancelled"));
  EXPECT_FALSE(batcher.cancel(second));
  EXPECT_FALSE(batcher.step());
}

TEST(Batcher, WhatCannotRunIsRefusedAtOnce) {
  const auto engine = open("qwen2", 256);
  Batcher batcher(*engine, {});
  const auto refuse = [&](Request request, const char* message) {
    try {
      batcher.submit(std::move(request), {});
      ADD_FAILURE() << "accepted, expected: " << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_THAT(error.what(), testing::HasSubstr(message));
    }
  };
  refuse({}, "the prompt has no tokens");
  refuse({.prompt = {1, 101}}, "token 1 of the prompt has id 101");
  refuse({.prompt = std::vector<TokenId>(257, 1)}, "257 tokens do not fit the context of 256");
  refuse({.prompt = {1}, .options = {.sampling = {.top_p = 2}}}, "top_p");
  refuse({.prompt = {1}, .options = {.n_top_logprobs = -1}}, "top_logprobs is -1");
  EXPECT_FALSE(batcher.step());
}

}  // namespace
}  // namespace kogia::test
