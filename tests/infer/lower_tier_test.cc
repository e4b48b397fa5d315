// Beginnings of texts on disk, and saved sessions: a second engine, as after a restart, computes
// nothing again and says the same, bit for bit.

#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "infer/batcher.h"
#include "infer/cache_fingerprint.h"
#include "infer/disk_tier.h"
#include "infer/session_pages.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;

// ThreadSanitizer makes a step ten times as slow.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr std::uint64_t kRounds = 20;
#else
constexpr std::uint64_t kRounds = 200;
#endif
#else
constexpr std::uint64_t kRounds = 200;
#endif

/// A process: an engine, a store and a batcher of its own.
struct Process {
  explicit Process(const std::string& model, const fs::path& folder, Index cache_tokens = 0)
      : engine(Engine::open(golden_folder(model), {.cpu = {.n_threads = 1, .isa = {}},
                                                   .compute = {},
                                                   .cache_dtype = {},
                                                   .ctx = 1024,
                                                   .cache_tokens = cache_tokens,
                                                   .show_progress = false})),
        store(PageStore::open({.folder = folder,
                               .fingerprint = cache_fingerprint(*engine),
                               .page_bytes = engine->cache().page_bytes()})),
        tier(*engine, *store),
        batcher(*engine, {.lower_tier = &tier}) {}

  Generation ask(const std::vector<TokenId>& prompt, Index max_tokens = 8) {
    return generate(batcher, prompt,
                    {.sampling = {.temperature = 0.7, .seed = 3},
                     .max_tokens = max_tokens,
                     .ignore_eos = true});
  }

  std::unique_ptr<Engine> engine;
  std::unique_ptr<PageStore> store;
  DiskTier tier;
  Batcher batcher;
};

std::vector<TokenId> random_ids(std::uint64_t key, Index n) {
  const Philox random(12, key);
  std::vector<TokenId> ids;
  for (Index i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>(random.below(60, static_cast<std::uint64_t>(i))));
  }
  return ids;
}

void expect_same(const Generation& a, const Generation& b) {
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_EQ(a.logprobs, b.logprobs);
}

class Tiers : public testing::TestWithParam<const char*> {
 protected:
  TempDir folder_;
};

TEST_P(Tiers, ARestartFindsWhatWasComputed) {
  const auto prompt = random_ids(1, 700);
  Generation first;
  {
    Process process(GetParam(), folder_.path());
    first = process.ask(prompt);
    EXPECT_EQ(first.n_prompt_computed, 700);
  }
  Process again(GetParam(), folder_.path());
  const Generation second = again.ask(prompt);
  EXPECT_EQ(second.n_prompt_computed, 700 - 10 * 64) << "ten full pages";
  expect_same(first, second);
}

TEST_P(Tiers, WhatMemoryHasNoRoomForIsReadFromDisk) {
  // Sixteen pages hold one of the texts.
  Process process(GetParam(), folder_.path(), 1024);
  const auto a = random_ids(1, 700), b = random_ids(2, 700);
  const Generation first = process.ask(a);
  process.ask(b);
  process.store->flush();
  const Generation again = process.ask(a);
  EXPECT_LT(again.n_prompt_computed, 64);
  expect_same(first, again);
  process.batcher.check_pages();
}

TEST_P(Tiers, ADamagedPageIsAMiss) {
  const auto prompt = random_ids(1, 700);
  Generation first;
  {
    Process process(GetParam(), folder_.path());
    first = process.ask(prompt);
  }
  std::vector<fs::path> pages;
  for (const auto& file : fs::recursive_directory_iterator(folder_.path())) {
    if (file.path().extension() == ".page") pages.push_back(file.path());
  }
  ASSERT_EQ(pages.size(), 11u);  // 700 of the prompt and 7 of the answer
  for (const fs::path& page : pages) {
    std::fstream file(page, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(page) / 2));
    file.put('\x5a').put('\xa5').put('\x5a');
  }
  Process again(GetParam(), folder_.path());
  const Generation second = again.ask(prompt);
  EXPECT_EQ(second.n_prompt_computed, 700);
  expect_same(first, second);
}

TEST_P(Tiers, TenantsDoNotMeetOnDisk) {
  const auto prompt = random_ids(1, 200);
  Process process(GetParam(), folder_.path());
  Request request{.prompt = prompt, .options = {.max_tokens = 1}};
  for (const char* tenant : {"a", "b"}) {
    request.tenant = tenant;
    process.batcher.submit(request, {});
    process.batcher.run();
    process.batcher.prefixes().clear();
    process.store->flush();
  }
  EXPECT_EQ(process.batcher.stats().n_cached_tokens, 0);
  process.batcher.submit(request, {});
  process.batcher.run();
  EXPECT_EQ(process.batcher.stats().n_cached_tokens, 192);
}

TEST_P(Tiers, ASavedSessionGoesOnInAnotherProcess) {
  const fs::path file = folder_.path() / "session";
  std::vector<TokenId> text = random_ids(4, 300);
  Generation expected;
  {
    Process process(GetParam(), folder_.path() / "one");
    const Generation g = process.ask(text, 40);
    text.insert(text.end(), g.ids.begin(), g.ids.end());
    save_session(*process.engine, process.batcher.prefixes(), file, "", text);
    expected = process.ask(text, 20);
  }
  Process other(GetParam(), folder_.path() / "two");
  EXPECT_EQ(load_session(*other.engine, other.batcher.prefixes(), file, ""), text);
  const Generation g = other.ask(text, 20);
  EXPECT_LE(g.n_prompt_computed, 64);
  expect_same(g, expected);
  EXPECT_THROW(save_session(*other.engine, other.batcher.prefixes(), file, "", random_ids(5, 300)),
               Error);
}

// S11: secrets behind a common beginning, two texts that differ in their first token alone, a cache
// for three of nine, cancels, and pages that come back from disk.
TEST_P(Tiers, NoAnswerHoldsAnothersWords) {
  Process process(GetParam(), folder_.path(), 1024);
  std::vector<std::vector<TokenId>> prompts;
  for (std::uint64_t client = 0; client < 8; ++client) {
    prompts.push_back(random_ids(1, 250));
    for (const TokenId id : random_ids(100 + client, 40)) prompts.back().push_back(id);
  }
  prompts.push_back(prompts[0]);
  prompts.back()[0] = (prompts[0][0] + 1) % 60;
  const auto how = [](std::size_t p) {
    return GenerateOptions{.sampling = {.temperature = 0.7, .seed = 3},
                           .max_tokens = 12,
                           .ignore_eos = true,
                           .prompt_key = p};
  };
  std::vector<Generation> alone;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    Batcher solo(*process.engine, {.reuse_prefixes = false});
    alone.push_back(generate(solo, prompts[p], how(p)));
  }
  const Philox random(8);
  Index n_done = 0;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    for (std::size_t p = 0; p < prompts.size(); ++p) {
      const RequestId id = process.batcher.submit(
          {.prompt = prompts[p], .options = how(p)}, {.on_done = [&, p](const Generation& g) {
            if (g.finish_reason == FinishReason::kCancelled) return;
            ++n_done;
            EXPECT_EQ(g.ids, alone[p].ids) << "client " << p;
            EXPECT_EQ(g.logprobs, alone[p].logprobs) << "client " << p;
          }});
      for (std::uint64_t n = random.below(4, 100 * round + 2 * p); n > 0; --n) {
        process.batcher.step();
      }
      if (random.below(7, 100 * round + 2 * p + 1) == 0) process.batcher.cancel(id);
    }
    process.batcher.run();
    process.batcher.check_pages();
    if (round % 10 == 3) {
      process.store->flush();
      process.batcher.prefixes().clear();
    }
    if (HasFailure()) FAIL() << "in round " << round;
  }
  EXPECT_GT(n_done, static_cast<Index>(6 * kRounds));
  EXPECT_GT(process.store->stats().n_loaded, 5);
}

INSTANTIATE_TEST_SUITE_P(Models, Tiers, testing::Values("qwen2", "v3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(SavedSession, OfAnotherModelIsRefused) {
  const TempDir folder;
  const fs::path file = folder.path() / "session";
  Process a("qwen2", folder.path() / "a"), b("v3", folder.path() / "b");
  const auto text = random_ids(1, 100);
  a.ask(text, 1);
  save_session(*a.engine, a.batcher.prefixes(), file, "", text);
  EXPECT_THROW(load_session(*b.engine, b.batcher.prefixes(), file, ""), Error);
}

}  // namespace
}  // namespace kogia::test
