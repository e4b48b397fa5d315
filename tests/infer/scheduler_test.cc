// The scheduler without a model. A page "holds" for each of its positions a hash of all tokens up
// to there, so whatever is shared, copied, evicted or set back wrongly is seen when it is read.

#include "infer/scheduler.h"

#include <map>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using Ids = std::vector<TokenId>;

constexpr Index kPage = 4;

std::uint64_t chain(std::uint64_t before, TokenId id) {
  return (before ^ static_cast<std::uint64_t>(id + 1)) * 0x9E3779B97F4A7C15u + 1;
}

/// Computes plans on pages of hashes, and draws tokens from them.
class FakeMachine {
 public:
  FakeMachine(Index n_pages, SchedulerLimits limits)
      : pool(n_pages), tree(pool, kPage), scheduler(pool, tree, with_page(limits)) {
    cells_.resize(static_cast<std::size_t>(n_pages * kPage));
  }

  struct Text {
    Ids tokens;
    Index n_prompt = 0, max_tokens = 0;
  };

  SequenceId add(Ids prompt, Index n_new, std::string tenant = "") {
    const SequenceId id = ++last_id_;
    const auto n_prompt = static_cast<Index>(prompt.size());
    texts[id] = {prompt, n_prompt, n_prompt + n_new};
    scheduler.add({.id = id,
                   .tenant = std::move(tenant),
                   .tokens = std::move(prompt),
                   .max_tokens = n_prompt + n_new});
    return id;
  }
  void cancel(SequenceId id) {
    scheduler.remove(id);
    texts.erase(id);
  }

  /// The token after a text: small numbers, so that texts meet again.
  static TokenId next(std::uint64_t hash) { return static_cast<TokenId>((hash >> 40) % 3); }
  static TokenId next_of(const Ids& ids) {
    std::uint64_t hash = 0;
    for (const TokenId id : ids) hash = chain(hash, id);
    return next(hash);
  }

  StepPlan step() {
    StepPlan plan = scheduler.plan();
    scheduler.check_pages();
    for (const PageCopy& copy : plan.copies) {
      for (Index i = 0; i < kPage; ++i) cell(copy.to, i) = cell(copy.from, i);
    }
    std::map<SequenceId, Ids> drawn;
    for (const ScheduledRows& rows : plan.rows) drawn[rows.id] = compute(rows);
    scheduler.computed(plan);
    for (auto& [id, ids] : drawn) take(id, ids);
    scheduler.check_pages();
    return plan;
  }

  PagePool pool;
  PrefixTree tree;
  Scheduler scheduler;
  std::map<SequenceId, Text> texts;
  std::vector<Ids> done;
  Index n_computed = 0;

 private:
  static SchedulerLimits with_page(SchedulerLimits limits) {
    limits.page_tokens = kPage;
    return limits;
  }
  std::uint64_t& cell(std::int32_t page, Index i) {
    return cells_[static_cast<std::size_t>(page * kPage + i)];
  }
  std::uint64_t& cell_of(const ScheduledRows& rows, Index pos) {
    EXPECT_LT(pos / kPage, static_cast<Index>(rows.pages.size()));
    return cell(rows.pages[static_cast<std::size_t>(pos / kPage)], pos % kPage);
  }

  // Everything before the rows is what it should be; the rows are written; tokens come out.
  Ids compute(const ScheduledRows& rows) {
    const Text& text = texts.at(rows.id);
    std::uint64_t hash = 0;
    for (Index pos = 0; pos < rows.first_pos; ++pos) {
      hash = chain(hash, text.tokens[static_cast<std::size_t>(pos)]);
      EXPECT_EQ(cell_of(rows, pos), hash) << "sequence " << rows.id << ", position " << pos;
    }
    const auto n = static_cast<Index>(rows.ids.size());
    std::vector<std::uint64_t> after;
    for (Index i = 0; i < n; ++i) {
      const std::size_t pos = static_cast<std::size_t>(rows.first_pos + i);
      if (i < n - rows.n_drafts) {
        EXPECT_EQ(rows.ids[static_cast<std::size_t>(i)], text.tokens[pos]);
      }
      hash = chain(hash, rows.ids[static_cast<std::size_t>(i)]);
      cell_of(rows, rows.first_pos + i) = hash;
      after.push_back(hash);
    }
    n_computed += n;
    EXPECT_EQ(rows.wants_logits,
              rows.first_pos + n - rows.n_drafts == static_cast<Index>(text.tokens.size()));
    Ids drawn;
    for (Index i = n - 1 - rows.n_drafts; rows.wants_logits && i < n; ++i) {
      drawn.push_back(next(after[static_cast<std::size_t>(i)]));
      if (i + 1 < n && rows.ids[static_cast<std::size_t>(i + 1)] != drawn.back()) break;
    }
    return drawn;
  }
  void take(SequenceId id, const Ids& drawn) {
    if (drawn.empty()) return;
    Text& text = texts.at(id);
    EXPECT_LE(static_cast<Index>(text.tokens.size() + drawn.size()), text.max_tokens);
    text.tokens.insert(text.tokens.end(), drawn.begin(), drawn.end());
    scheduler.append(id, drawn);
    if (static_cast<Index>(text.tokens.size()) < text.max_tokens) return;
    for (auto n = static_cast<std::size_t>(text.n_prompt); n < text.tokens.size(); ++n) {
      const Ids before(text.tokens.begin(), text.tokens.begin() + static_cast<std::ptrdiff_t>(n));
      ASSERT_EQ(text.tokens[n], next_of(before)) << "each token follows from all before it";
    }
    done.push_back(text.tokens);
    cancel(id);
  }

  std::vector<std::uint64_t> cells_;
  SequenceId last_id_ = 0;
};

Ids text_of(TokenId first, Index n) {
  Ids ids;
  for (Index i = 0; i < n; ++i) ids.push_back(first + static_cast<TokenId>(i));
  return ids;
}

TEST(Scheduler, APromptComesInChunksAndReadersGoFirst) {
  FakeMachine m(64, {.step_tokens = 6});
  m.add({1}, 20);
  EXPECT_EQ(m.step().n_rows, 1);
  const SequenceId b = m.add(text_of(10, 12), 5);
  for (const Index chunk : {5, 5, 2}) {
    const StepPlan plan = m.step();
    ASSERT_EQ(plan.rows.size(), 2u);
    EXPECT_EQ(plan.rows[0].ids.size(), 1u) << "the reader has its token in every step";
    EXPECT_EQ(plan.rows[1].id, b);
    EXPECT_EQ(static_cast<Index>(plan.rows[1].ids.size()), chunk);
    EXPECT_EQ(plan.rows[1].wants_logits, chunk == 2);
  }
}

TEST(Scheduler, ShortChunksWhereSomebodyReads) {
  FakeMachine m(64, {.step_tokens = 32, .beside_tokens = 4});
  m.add(text_of(10, 30), 3);
  EXPECT_EQ(m.step().n_rows, 30) << "nobody waits for the step";
  m.add(text_of(50, 10), 3);
  EXPECT_EQ(m.step().n_rows, 1 + 4);
}

TEST(Scheduler, OnePromptManyTimesIsComputedOnce) {
  FakeMachine m(64, {.step_tokens = 64});
  const Ids prompt = text_of(10, 18);
  for (int i = 0; i < 8; ++i) m.add(prompt, 3);
  const StepPlan first = m.step();
  EXPECT_EQ(first.n_rows, 18) << "seven wait for the first";
  const StepPlan second = m.step();
  EXPECT_EQ(second.rows.size(), 8u);
  EXPECT_EQ(second.n_rows, 8) << "one row each: 17 tokens are shared, the last page copied";
  while (m.step().n_rows > 0) {
  }
  EXPECT_EQ(m.done.size(), 8u);
}

TEST(Scheduler, ARepeatComputesOneTokenAndASecondTurnOnlyWhatIsNew) {
  FakeMachine m(64, {.step_tokens = 64});
  const Ids prompt = text_of(10, 30);
  m.add(prompt, 3);
  while (m.step().n_rows > 0) {
  }
  m.n_computed = 0;
  m.add(prompt, 1);
  m.step();
  EXPECT_EQ(m.n_computed, 1);
  Ids second = m.done[0];
  const auto n_first = static_cast<Index>(second.size());
  for (const TokenId id : {50, 51, 52}) second.push_back(id);
  m.n_computed = 0;
  m.add(second, 1);
  m.step();
  EXPECT_LE(m.n_computed, 3 + 1) << "the last token of an answer was never computed";
  EXPECT_GE(n_first, 33);
}

TEST(Scheduler, WhatDoesNotFitWaitsItsTurn) {
  FakeMachine m(8, {.step_tokens = 64, .planned_tokens = 8, .reuse_prefixes = false});
  m.add(text_of(10, 12), 8);  // five pages in the end
  m.add(text_of(40, 12), 8);
  m.add({1}, 1);
  m.step();
  EXPECT_EQ(m.scheduler.n_running(), 1);
  EXPECT_EQ(m.scheduler.n_waiting(), 2) << "nobody passes the one that waits for memory";
  while (m.step().n_rows > 0) {
  }
  EXPECT_EQ(m.done.size(), 3u);
}

TEST(Scheduler, TheYoungestIsSetBackWhereThePoolRunsDry) {
  FakeMachine m(8, {.step_tokens = 64, .planned_tokens = 1, .reuse_prefixes = false});
  const SequenceId a = m.add(text_of(10, 8), 16);
  const SequenceId b = m.add(text_of(40, 8), 16);
  std::vector<SequenceId> preempted;
  for (StepPlan plan = m.step(); plan.n_rows > 0; plan = m.step()) {
    preempted.insert(preempted.end(), plan.preempted.begin(), plan.preempted.end());
  }
  EXPECT_THAT(preempted, testing::Each(b));
  EXPECT_FALSE(preempted.empty());
  ASSERT_EQ(m.done.size(), 2u);
  EXPECT_EQ(m.done[0][0], 10) << "sequence " << a << " ends first";
  EXPECT_EQ(m.pool.n_free(), 8);
}

TEST(Scheduler, APromptThatFillsThePoolIsCopiedFromItself) {
  FakeMachine m(4, {.step_tokens = 64});
  const Ids prompt = text_of(10, 14);
  m.add(prompt, 2);
  while (m.step().n_rows > 0) {
  }
  m.add(prompt, 2);  // its last page, the one to copy, is the page that lacks
  while (m.step().n_rows > 0) {
  }
  EXPECT_EQ(m.done.size(), 2u);
}

TEST(Scheduler, DraftsAreCutToTheRoomThatThereIs) {
  FakeMachine m(64, {.step_tokens = 4});
  const SequenceId a = m.add({1}, 30);
  m.add({2}, 30);
  m.step();
  m.scheduler.set_drafts(a, {0, 0, 0, 0, 0, 0});
  const StepPlan plan = m.step();
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[0].n_drafts, 2);
  EXPECT_EQ(plan.n_rows, 4);
}

// Arrivals, cancels, shared beginnings, drafts right and wrong, a pool too small for all: whatever
// happens, every text is the one that its prompt alone leads to.
TEST(Scheduler, TenThousandRandomSteps) {
  FakeMachine m(40,
                {.step_tokens = 24, .beside_tokens = 15, .max_sequences = 12, .planned_tokens = 6});
  const Philox random(2026);
  std::uint64_t counter = 0;
  const auto below = [&](std::uint64_t n) { return random.below(n, counter++); };
  Index n_preempted = 0, n_cached = 0, n_drafts = 0;
  for (int i = 0; i < 10000; ++i) {
    while (m.texts.size() < 20 && below(3) == 0) {
      Ids prompt = text_of(static_cast<TokenId>(10 * below(4)), static_cast<Index>(1 + below(40)));
      for (std::uint64_t n = below(6); n > 0; --n) prompt.push_back(static_cast<TokenId>(below(3)));
      m.add(prompt, static_cast<Index>(1 + below(60)), below(4) == 0 ? "other" : "");
    }
    if (!m.texts.empty() && below(40) == 0) {
      auto victim = m.texts.begin();
      std::advance(victim, static_cast<std::ptrdiff_t>(below(m.texts.size())));
      m.cancel(victim->first);
    }
    for (const SequenceId id : m.scheduler.readers()) {
      Ids guess = m.texts.at(id).tokens, drafts;
      const Index left = m.texts.at(id).max_tokens - static_cast<Index>(guess.size()) - 1;
      for (Index n = std::min(static_cast<Index>(below(5)), left); n > 0; --n) {
        guess.push_back(below(4) == 0 ? 2 : FakeMachine::next_of(guess));
        drafts.push_back(guess.back());
      }
      n_drafts += static_cast<Index>(drafts.size());
      m.scheduler.set_drafts(id, drafts);
    }
    const StepPlan plan = m.step();
    EXPECT_LE(plan.n_rows, 24);
    n_preempted += static_cast<Index>(plan.preempted.size());
    for (const Admission& a : plan.admitted) n_cached += a.n_cached;
    if (HasFailure()) FAIL() << "in step " << i;
  }
  EXPECT_GT(m.done.size(), 500u);
  EXPECT_GT(n_preempted, 50);
  EXPECT_GT(n_cached, 5000);
  EXPECT_GT(n_drafts, 5000);
  while (!m.texts.empty()) m.cancel(m.texts.begin()->first);
  m.tree.clear();
  EXPECT_EQ(m.pool.n_free(), m.pool.n_pages()) << "no page is lost";
}

}  // namespace
}  // namespace kogia
