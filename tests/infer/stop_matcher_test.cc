// Case S01 of the field: stop strings over token borders.
#include "infer/stop_matcher.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace kogia {
namespace {

struct Shown {
  std::string text;
  bool stopped = false;
  bool operator==(const Shown&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Shown& shown) {
  return out << '"' << shown.text << (shown.stopped ? "\" stopped" : "\"");
}

Shown feed(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopMatcher matcher(stops);
  Shown shown;
  for (const std::string& piece : pieces) shown.text += matcher.push(piece);
  shown.text += matcher.finish();
  shown.stopped = matcher.stopped();
  return shown;
}

// What it means: cut where the earliest occurrence of any of them begins.
Shown plain_search(const std::string& text, const std::vector<std::string>& stops) {
  std::size_t begin = std::string::npos;
  for (const std::string& stop : stops) begin = std::min(begin, text.find(stop));
  return {text.substr(0, begin), begin != std::string::npos};
}

TEST(StopMatcher, SeesAStopStringThatSpansTokens) {
  EXPECT_EQ(feed({"alpha", " be", "ta ga", "mma del", "ta"}, {"beta gamma"}),
            (Shown{"alpha ", true}));
}

TEST(StopMatcher, LosesNothingWhenTheBeginningOfOneLeadsNowhere) {
  EXPECT_EQ(feed({"alpha", " be", "ta go", "ne"}, {"beta gamma"}),
            (Shown{"alpha beta gone", false}));
  EXPECT_EQ(feed({"alpha", " be"}, {"beta gamma"}), (Shown{"alpha be", false}));
}

TEST(StopMatcher, FindsAStopThatOverlapsAFailedBeginning) {
  EXPECT_EQ(feed({"aaab"}, {"aab"}), (Shown{"a", true}));
  EXPECT_EQ(feed({"a", "a", "a", "b"}, {"aab"}), (Shown{"a", true}));
}

TEST(StopMatcher, CutsBeforeACharacterOfSeveralTokens) {
  EXPECT_EQ(feed({"A 🦖 B"}, {"🦖"}), (Shown{"A ", true}));
}

TEST(StopMatcher, TheEarliestBeginningWinsEvenIfItEndsLater) {
  EXPECT_EQ(feed({"xabcd"}, {"bc", "abcd"}), (Shown{"x", true}));
  EXPECT_EQ(feed({"xabcx"}, {"bc", "abcd"}), (Shown{"xa", true}));
  EXPECT_EQ(feed({"xabc"}, {"bc", "abcd"}), (Shown{"xa", true})) << "the text ends undecided";
}

TEST(StopMatcher, HoldsBackNoMoreThanItMust) {
  StopMatcher matcher({"beta gamma"});
  EXPECT_EQ(matcher.push("alpha be"), "alpha ");
  EXPECT_EQ(matcher.push("st b"), "best ");
  EXPECT_EQ(matcher.push("x"), "bx");
}

TEST(StopMatcher, NothingComesAfterAMatch) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("oneENDtwo"), "one");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("three"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, WithoutStopStringsTextPassesAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("text"), "text");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, AnEmptyStopStringIsAUsageError) {
  try {
    StopMatcher matcher({"fine", ""});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
  }
}

TEST(StopMatcher, MoreThanFourStopStringsAreAccepted) {
  EXPECT_EQ(feed({"1 2 3 4 5"}, {"9", "8", "7", "6", "5"}), (Shown{"1 2 3 4 ", true}));
}

TEST(StopMatcher, AgreesWithPlainSearchHoweverTheTextIsCut) {
  const Philox random(/*seed=*/3);
  std::uint64_t counter = 0;
  const auto below = [&](std::uint64_t n) { return random.below(n, counter++); };
  const auto word = [&](std::uint64_t longest) {
    std::string text;
    for (std::uint64_t i = 0, n = 1 + below(longest); i < n; ++i) {
      text += static_cast<char>('a' + static_cast<char>(below(3)));
    }
    return text;
  };
  int n_stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops, pieces;
    for (std::uint64_t i = 0, n = 1 + below(4); i < n; ++i) stops.push_back(word(7));
    std::string text;
    for (std::uint64_t i = 0, n = 1 + below(8); i < n; ++i) text += pieces.emplace_back(word(5));
    const Shown expected = plain_search(text, stops);
    n_stopped += expected.stopped ? 1 : 0;
    ASSERT_EQ(feed(pieces, stops), expected) << text << " / " << testing::PrintToString(stops);
    ASSERT_EQ(feed({text}, stops), expected);
  }
  EXPECT_GT(n_stopped, 500);
  EXPECT_LT(n_stopped, 2900);
}

TEST(StopMatcher, TimeIsLinearInTheText) {
  // A quadratic matcher would take 10^12 steps here and run into the test's time limit.
  const std::string text(1'000'000, 'a');
  const std::string stop = text + "b";
  EXPECT_EQ(feed({text, text}, {stop}).text.size(), 2'000'000U);
}

}  // namespace
}  // namespace kogia
