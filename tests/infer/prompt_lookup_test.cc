// Prompt lookup in a decoding loop whose text and timings are a script: no model and no clock.
#include <cmath>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "infer/draft_governor.h"
#include "infer/drafter.h"
#include "infer/ngram_index.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using Tokens = std::vector<TokenId>;
using Cost = std::function<double(Index rows)>;

Tokens random_tokens(std::size_t n, std::uint64_t seed, TokenId vocabulary = 50000) {
  Tokens tokens;
  for (std::size_t i = 0; i < n; ++i) {
    tokens.push_back(
        static_cast<TokenId>(Philox(seed).below(static_cast<std::uint64_t>(vocabulary), i)));
  }
  return tokens;
}

Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Every `period`-th token is another one: an edited copy.
Tokens edited(Tokens tokens, std::size_t period) {
  for (std::size_t i = period; i < tokens.size(); i += period) tokens[i] += 60000;
  return tokens;
}

// Words that come back as they do in prose: the commonest often, so that pairs of them repeat, and
// what follows such a pair seldom does.
Tokens prose(std::size_t n, std::uint64_t seed, double vocabulary = 500) {
  Tokens tokens;
  const Philox random(seed);
  for (std::size_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<TokenId>(vocabulary * std::pow(random.uniform(i), 3)));
  }
  return tokens;
}

const Cost kCheapRows = [](Index rows) { return 1 + 0.05 * static_cast<double>(rows - 1); };
const Cost kEveryRowCounts = [](Index rows) { return static_cast<double>(rows); };

struct Decoded {
  double seconds = 0;
  Index n_steps = 0, n_drafted = 0, n_accepted = 0;
};

// Decodes `text` behind `prompt`: one sequence of `others` + 1, whose steps take cost(rows), give
// or take a percent (and a tenth of them with `disturbed`, ten times as long).
class Loop {
 public:
  explicit Loop(Cost cost, std::shared_ptr<DraftExperience> experience = make_draft_experience())
      : cost_(std::move(cost)), experience_(std::move(experience)) {}
  Index others = 0;
  bool disturbed = false;

  void set_cost(Cost cost) { cost_ = std::move(cost); }
  Decoded decode(const Tokens& prompt, const Tokens& text) {
    const auto drafter = make_prompt_lookup(experience_);
    return decode(*drafter, prompt, text);
  }
  Decoded decode(Drafter& drafter, Tokens tokens, const Tokens& text) {
    Decoded result;
    for (std::size_t done = 0; done < text.size();) {
      const auto left = static_cast<Index>(text.size() - done) - 1;
      const Tokens drafts = drafter.propose(tokens, left);
      EXPECT_LE(static_cast<Index>(drafts.size()), left);
      std::size_t right = 0;
      while (right < drafts.size() && drafts[right] == text[done + right]) ++right;
      const auto n = static_cast<Index>(drafts.size());
      const double seconds = time(1 + others + n);
      tokens.insert(tokens.end(), text.begin() + static_cast<std::ptrdiff_t>(done),
                    text.begin() + static_cast<std::ptrdiff_t>(done + right + 1));
      done += right + 1;
      drafter.record(n, static_cast<Index>(right), 1 + others + n, seconds);
      result.seconds += seconds;
      result.n_drafted += n;
      result.n_accepted += static_cast<Index>(right);
      ++result.n_steps;
    }
    return result;
  }

 private:
  double time(Index rows) {
    const double noise = 0.99 + 0.02 * Philox(99).uniform(++n_timed_);
    const bool hit = disturbed && Philox(98).below(10, n_timed_) == 0;
    return cost_(rows) * noise * (hit ? 10 : 1);
  }

  Cost cost_;
  std::shared_ptr<DraftExperience> experience_;
  std::uint64_t n_timed_ = 0;
};

// What a plain step for each token takes.
double plain_seconds(const Tokens& text, const Cost& cost, Index rows = 1) {
  return static_cast<double>(text.size()) * cost(rows);
}

TEST(NgramIndex, FindsTheLongestMatchAndOfEqualOnesTheLatest) {
  NgramIndex index;
  //                   0  1  2  3  4  5  6  7  8  9 10 11 12
  const Tokens tokens{1, 2, 3, 4, 9, 2, 3, 8, 2, 3, 1, 2, 3};
  const auto match = index.find(tokens);
  EXPECT_EQ(match.length, 3);
  EXPECT_EQ(match.next_pos, 3);
  const auto latest = index.find(tokens + Tokens{7, 5, 2, 3});
  EXPECT_EQ(latest.length, 2);
  EXPECT_EQ(latest.next_pos, 13);
}

TEST(NgramIndex, OneTokenIsNoMatchAndTheEndMatchesNotItself) {
  NgramIndex index;
  EXPECT_EQ(index.find({}).length, 0);
  EXPECT_EQ(index.find(Tokens{5}).length, 0);
  EXPECT_EQ(index.find(Tokens{5, 6}).length, 0);
  EXPECT_EQ(index.find(Tokens{5, 6, 5}).length, 0);
  EXPECT_EQ(index.find(Tokens{5, 6, 5, 6}).length, 2);
}

TEST(NgramIndex, FindsWhatASearchThroughAllFinds) {
  NgramIndex index;
  const Tokens tokens = random_tokens(3000, 1, 12);  // few words: many matches
  for (std::size_t n = 1; n <= tokens.size(); ++n) {
    const std::span<const TokenId> text(tokens.data(), n);
    Index longest = 0;
    for (std::size_t end = 1; end < n; ++end) {
      Index length = 0;
      while (length < NgramIndex::kLongest && length < static_cast<Index>(end) &&
             text[end - 1 - static_cast<std::size_t>(length)] ==
                 text[n - 1 - static_cast<std::size_t>(length)]) {
        ++length;
      }
      longest = std::max(longest, length);
    }
    const auto match = index.find(text);
    if (match.length > 0) {
      EXPECT_EQ(tokens[static_cast<std::size_t>(match.next_pos) - 1], text[n - 1]);
      EXPECT_LE(match.length, longest);
    }
    // Only the latest places are looked at, but a long match is never missed for short ones.
    if (longest >= 7) {
      EXPECT_EQ(match.length, longest) << n;
    }
  }
}

TEST(NgramIndex, WorkIsBoundedHoweverOftenTheTextRepeatsItself) {
  for (const Tokens& tokens : {Tokens(100'000, 7), random_tokens(100'000, 2, 2)}) {
    NgramIndex index;
    index.find(std::span(tokens).first(99'000));
    const Index before = index.n_compared();
    for (std::size_t n = 99'001; n <= tokens.size(); ++n) index.find(std::span(tokens).first(n));
    const Index most = 2 * NgramIndex::kCandidates * (NgramIndex::kLongest + 1);
    EXPECT_LE(index.n_compared() - before, 1000 * most);
  }
}

TEST(PromptLookup, ProposesWhatFollowed) {
  const Tokens list = random_tokens(200, 3);
  Loop loop(kCheapRows);
  const auto experience = make_draft_experience();
  const auto drafter = make_prompt_lookup(experience);
  for (Index rows = 1; rows <= 40; ++rows) {  // what steps take is known
    drafter->record(rows - 1, rows - 1, rows, kCheapRows(rows));
  }
  const Tokens begun(list.begin(), list.begin() + 40);
  const Tokens drafts = drafter->propose(list + begun, 100);
  ASSERT_GE(drafts.size(), 8U);
  EXPECT_THAT(drafts, ElementsAreArray(list.begin() + 40,
                                       list.begin() + 40 + static_cast<Index>(drafts.size())));
  EXPECT_EQ(drafter->propose(list + begun, 3).size(), 3U);
  EXPECT_TRUE(drafter->propose(list + begun, 0).empty());
  EXPECT_TRUE(drafter->propose(list + begun + Tokens{-5, -6}, 100).empty()) << "never seen before";
}

TEST(PromptLookup, GoesOnWithALoop) {
  const auto drafter = make_prompt_lookup(make_draft_experience());
  for (Index rows = 1; rows <= 40; ++rows) {
    drafter->record(rows - 1, rows - 1, rows, kCheapRows(rows));
  }
  Tokens tokens{9, 9};
  for (int i = 0; i < 20; ++i) tokens.insert(tokens.end(), {1, 2, 3});
  const Tokens drafts = drafter->propose(tokens, 7);
  EXPECT_THAT(drafts, ElementsAre(1, 2, 3, 1, 2, 3, 1));
}

TEST(PromptLookup, ACopyIsDecodedSeveralTimesAsFast) {
  const Tokens prompt = random_tokens(500, 4);
  for (const std::size_t period : {1000U, 40U, 15U}) {
    const Tokens text = edited(prompt, period);
    const Decoded d = Loop(kCheapRows).decode(prompt + Tokens{prompt[0], prompt[1]}, text);
    EXPECT_LT(d.seconds, plain_seconds(text, kCheapRows) / 2.2) << "an edit every " << period;
  }
}

// Where a copy ends, a long draft is wrong for once. What the copy has gained pays for that.
TEST(PromptLookup, ACopyThatIsInterruptedIsGoneOnWithAtOnce) {
  const Tokens prompt = random_tokens(600, 18);
  Tokens text;
  for (std::size_t i = 0; i < 600; i += 60) {
    const auto from = prompt.begin() + static_cast<std::ptrdiff_t>(i);
    text = text + Tokens(from, from + 60) + random_tokens(6, 100 + i);
  }
  const Cost cost = [](Index rows) { return 1 + 0.3 * static_cast<double>(rows - 1); };
  const Decoded d = Loop(cost).decode(prompt, text);
  EXPECT_LT(d.seconds, plain_seconds(text, cost) / 1.8);
}

TEST(PromptLookup, WhereEveryRowCountsNothingIsDrafted) {
  const Tokens prompt = random_tokens(500, 5);
  const Decoded d = Loop(kEveryRowCounts).decode(prompt, prompt + prompt);
  const Tokens text = prompt + prompt;
  EXPECT_LT(d.seconds, 1.03 * plain_seconds(text, kEveryRowCounts));
}

TEST(PromptLookup, FreeTextLosesLittle) {
  const auto cost_of_row = [](double row) {
    return [row](Index rows) { return 1 + row * static_cast<double>(rows - 1); };
  };
  for (const double row : {0.02, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0}) {
    for (const bool disturbed : {false, true}) {
      const double vocabulary = row == 0.4 ? 20 : 500;  // in the former all repeats, at random
      Loop loop(cost_of_row(row));
      double seconds = 0, plain = 0;
      for (std::uint64_t seed = 0; seed < 5; ++seed) {
        loop.disturbed = disturbed;
        const Tokens text = prose(400, 10 + seed, vocabulary);
        seconds += loop.decode(prose(200, 20 + seed, vocabulary), text).seconds;
        plain += plain_seconds(text, cost_of_row(row)) * (disturbed ? 1.9 : 1);
      }
      EXPECT_LT(seconds, (disturbed ? 1.1 : 1.02) * plain) << row << " " << disturbed;
    }
  }
}

TEST(PromptLookup, BeginsWhenTheTextBeginsToRepeat) {
  const Tokens free = prose(3000, 6), prompt = random_tokens(400, 7);
  Loop loop(kCheapRows);
  const auto drafter = make_prompt_lookup(make_draft_experience());
  const Decoded first = loop.decode(*drafter, prompt, free);
  EXPECT_LT(first.seconds, 1.02 * plain_seconds(free, kCheapRows));
  const Decoded then = loop.decode(*drafter, prompt + free, prompt);
  EXPECT_LT(then.seconds, plain_seconds(prompt, kCheapRows) / 2.5);
  const Tokens more = prose(1000, 8);
  const Decoded last = loop.decode(*drafter, prompt + free + prompt, more);
  EXPECT_LT(last.seconds, 1.02 * plain_seconds(more, kCheapRows)) << "and ends with it";
}

TEST(PromptLookup, TriesAgainWhenRowsHaveBecomeCheap) {
  const Tokens list = random_tokens(100, 9);
  Tokens text;
  for (int i = 0; i < 20; ++i) text = text + list;
  Loop loop(kEveryRowCounts);
  const auto drafter = make_prompt_lookup(make_draft_experience());
  const Decoded dear = loop.decode(*drafter, list, text);
  EXPECT_LT(dear.seconds, 1.03 * plain_seconds(text, kEveryRowCounts));
  loop.set_cost(kCheapRows);
  loop.decode(*drafter, list + text, text);
  const Decoded cheap = loop.decode(*drafter, list + text + text, text);
  EXPECT_LT(cheap.seconds, plain_seconds(text, kCheapRows) / 4);
}

TEST(PromptLookup, NoiseAndDisturbedStepsDoNotSwitchACopyOff) {
  const Tokens prompt = random_tokens(1000, 11);
  Loop loop(kCheapRows);
  loop.disturbed = true;
  const Decoded d = loop.decode(prompt, prompt);
  EXPECT_LT(d.n_steps, 300);
}

// Sixteen sequences share the weights already: a draft has to be worth a row of theirs.
TEST(PromptLookup, InABatchADraftIsWeighedAgainstTheRowsOfOthers) {
  const Tokens prompt = random_tokens(400, 12);
  const Cost cheap = [](Index rows) { return 1 + 0.03 * static_cast<double>(rows); };
  Loop loop(cheap);
  loop.others = 15;
  const Decoded d = loop.decode(prompt, prompt);
  EXPECT_GT(d.n_accepted, 300) << "a row in use costs twice what a further one does";

  const Cost full = [](Index rows) { return 0.1 + 1.0 * static_cast<double>(rows); };
  Loop busy(full);
  busy.others = 15;
  const Tokens text = prose(400, 13);
  EXPECT_LT(busy.decode(prose(300, 14), text).n_drafted, 40) << "where all is computing";
}

TEST(PromptLookup, RequestsLearnFromEachOther) {
  const auto experience = make_draft_experience();
  Loop loop(kCheapRows, experience);
  const Tokens list = random_tokens(100, 15);
  loop.decode(list, list + list);
  const Tokens other = random_tokens(60, 16);
  const Decoded d =
      loop.decode(other + Tokens{other[0], other[1]}, Tokens(other.begin() + 2, other.end()));
  EXPECT_LE(d.n_steps, 8) << "the second knows what a row costs and that copies go on";
}

TEST(PromptLookup, FewerDraftsSentThanProposedAreFine) {
  const auto drafter = make_prompt_lookup(make_draft_experience());
  const Tokens list = random_tokens(50, 17);
  drafter->record(0, 0, 300, 0.5);  // a step of the prompt
  Tokens tokens = list;
  for (const TokenId id : list) {
    drafter->propose(tokens, 10);
    tokens.push_back(id);
    drafter->record(0, 0, 1, kCheapRows(1) + 1e-6 * static_cast<double>(tokens.size()));
  }
  SUCCEED();
}

TEST(StepCosts, AreMediansBetweenWhichALineIsDrawn) {
  StepCosts costs;
  EXPECT_TRUE(costs.seconds(1, 4).empty());
  costs.record(5, 3.0);
  EXPECT_TRUE(costs.seconds(1, 4).empty()) << "nothing tells what one row takes";
  for (const double s : {1.0, 9.0, 1.1, 1.2, 0.9}) costs.record(1, s);
  const auto seconds = costs.seconds(1, 20);
  ASSERT_EQ(seconds.size(), 12U) << "no leap beyond twice the rows that are known";
  EXPECT_NEAR(seconds[0], 1.1, 1e-9);
  EXPECT_NEAR(seconds[4], 3.0, 1e-9);
  EXPECT_NEAR(seconds[2], 2.05, 1e-9);
}

// -----------------------------------------------------------------------------------------------
// Drafts that are made in chains

TEST(DepthChances, AreOfGuessesWhoseForerunnersWereRight) {
  DepthChances chances(/*memory=*/1000);
  for (int i = 0; i < 200; ++i) {
    chances.record(3, 1);  // the second was wrong, of the third nothing is known
    chances.record(3, 3);
  }
  EXPECT_GT(chances.chance(0, nullptr), 0.97);
  EXPECT_NEAR(chances.chance(1, nullptr), 0.5, 0.02);
  EXPECT_GT(chances.chance(2, nullptr), 0.97);
  EXPECT_NEAR(chances.chance(7, nullptr), 0.7, 1e-9) << "never seen";
  const DepthChances fresh(1000);
  EXPECT_EQ(fresh.chance(1, &chances), chances.chance(1, nullptr));
}

TEST(DraftGovernor, ACommonLedgerBearsAWrongChainAndNotMany) {
  const std::vector<double> chances = {0.9, 0.8, 0.7};
  for (const bool common : {false, true}) {
    const auto experience = make_draft_experience();
    DraftGovernor first(experience, common);
    EXPECT_EQ(first.choose(chances, 1), 0) << "nobody knows yet what a step takes";
    first.record(0, 0, 1, 1.0);
    EXPECT_EQ(first.choose(chances), 3);
    first.record(3, 0, 4, 1.5);
    EXPECT_EQ(first.choose(chances), common ? 3 : 0);
    DraftGovernor second(experience, common);
    EXPECT_EQ(second.choose(chances), 0) << "how many rows there are is not known";
    EXPECT_EQ(second.choose(chances, 1), 3);
    for (int i = 0; i < 20; ++i) second.record(3, 0, 4, 1.5 + 0.001 * i);
    EXPECT_EQ(second.choose(chances), 0);
    DraftGovernor third(experience, common);
    EXPECT_EQ(third.choose(chances, 1), common ? 0 : 3);
    // Plain steps pay for a new attempt.
    for (int i = 0; i < 600; ++i) third.record(0, 0, 1, 1 + 0.001 * i);
    EXPECT_GT(third.choose(chances), 0);
  }
}

}  // namespace
}  // namespace kogia
