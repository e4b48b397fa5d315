// Answers that come in any order, and a file of them that was cut at any byte.
#include "cli/answer_file.h"

#include <algorithm>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "support/temp_dir.h"

namespace kogia::cli {
namespace {

using test::read_file;
using test::TempDir;
using testing::HasSubstr;

constexpr Index kSlots = 7;

std::string head(Index slot) { return R"({"index":)" + std::to_string(slot) + R"(,"key":"k")"; }
std::string line(Index slot) {
  return head(slot) + R"(,"text":")" + std::string(static_cast<std::size_t>(3 * slot), 'x') + "\"}";
}
std::string all_lines(Index n = kSlots) {
  std::string text;
  for (Index slot = 0; slot < n; ++slot) text += line(slot) + "\n";
  return text;
}

std::unique_ptr<Answers> open(const TempDir& dir) {
  return open_answer_file(dir / "out.jsonl", kSlots, head);
}

std::vector<Index> shuffled(std::uint64_t seed) {
  std::vector<Index> order(kSlots);
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i-- > 1;) {
    std::swap(order[i], order[Philox(seed).below(i + 1, i)]);
  }
  return order;
}

void put_rest(Answers& answers, std::uint64_t seed) {
  for (const Index slot : shuffled(seed)) {
    if (!answers.has(slot)) answers.put(slot, line(slot));
  }
}

std::string refusal(const TempDir& dir) {
  try {
    open(dir);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "accepted";
}

TEST(AnswerFile, IsInOrderWhateverTheOrderOfTheAnswers) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const TempDir dir;
    {
      const auto answers = open(dir);
      for (const Index slot : shuffled(seed)) {
        answers->put(slot, line(slot));
        EXPECT_TRUE(answers->has(slot));
        EXPECT_EQ(read_file(dir / "out.jsonl"), all_lines(answers->first_missing()));
      }
      answers->finish();
    }
    EXPECT_EQ(read_file(dir / "out.jsonl"), all_lines());
    EXPECT_FALSE(std::filesystem::exists(dir / "out.jsonl.ahead"));
  }
}

TEST(AnswerFile, GoesOnAfterACutAtAnyByte) {
  const std::string whole = all_lines();
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    const TempDir dir;
    dir.write("out.jsonl", whole.substr(0, cut));
    const auto answers = open(dir);
    const auto n_lines = std::count(whole.begin(), whole.begin() + static_cast<Index>(cut), '\n');
    EXPECT_EQ(answers->n_there(), n_lines);
    put_rest(*answers, cut);
    EXPECT_EQ(read_file(dir / "out.jsonl"), whole) << cut;
  }
}

TEST(AnswerFile, WhatWasAheadIsKeptThroughACutAtAnyByte) {
  const TempDir first;
  {
    const auto answers = open(first);
    for (const Index slot : {5, 2, 6, 3, 0}) answers->put(slot, line(slot));
  }
  const std::string out = read_file(first / "out.jsonl"),
                    ahead = read_file(first / "out.jsonl.ahead");
  EXPECT_EQ(out, all_lines(1));
  for (std::size_t cut = 0; cut <= ahead.size(); ++cut) {
    const TempDir dir;
    dir.write("out.jsonl", out);
    dir.write("out.jsonl.ahead", ahead.substr(0, cut));
    {
      const auto answers = open(dir);
      const auto n = std::count(ahead.begin(), ahead.begin() + static_cast<Index>(cut), '\n');
      EXPECT_EQ(answers->n_there(), 1 + n);
      put_rest(*answers, cut);
    }
    EXPECT_EQ(read_file(dir / "out.jsonl"), all_lines()) << cut;
    EXPECT_FALSE(std::filesystem::exists(dir / "out.jsonl.ahead"));
  }
}

TEST(AnswerFile, AStopWhileWaitingAnswersAreMovedLosesNone) {
  const TempDir dir;  // as if killed after 0 to 3 were told, before the other file was cut
  dir.write("out.jsonl", all_lines(4) + line(4).substr(0, 9));
  dir.write("out.jsonl.ahead", "2 " + line(2) + "\n5 " + line(5) + "\n3 " + line(3) + "\n");
  const auto answers = open(dir);
  EXPECT_EQ(answers->first_missing(), 4);
  EXPECT_TRUE(answers->has(5));
  EXPECT_FALSE(answers->has(6));
  put_rest(*answers, 1);
  EXPECT_EQ(read_file(dir / "out.jsonl"), all_lines());
}

TEST(AnswerFile, WhatWaitsOfAnotherRunIsNotUsed) {
  const TempDir dir;
  dir.write("out.jsonl.ahead",
            "1 {\"index\":1,\"key\":\"old\",\"text\":\"\"}\nnonsense\n3\n-1 x\n99 " + line(2) +
                "\n2 " + line(2).substr(0, 12) + "\n");
  const auto answers = open(dir);
  EXPECT_EQ(answers->n_there(), 0);
  put_rest(*answers, 1);
  EXPECT_EQ(read_file(dir / "out.jsonl"), all_lines());
}

TEST(AnswerFile, AFileOfSomethingElseIsRefusedAndLeftAlone) {
  for (const std::string& text :
       {std::string("my diary, no end of line"), std::string("dear diary\n"), std::string("{}\n"),
        all_lines(3) + "\n" + line(3) + "\n", all_lines() + line(0) + "\n", all_lines() + "{",
        all_lines(2) + line(3) + "\n", all_lines(2) + head(2) + ",\"text\":\n",
        all_lines(2) + head(3), std::string(5, '\0')}) {
    const TempDir dir;
    dir.write("out.jsonl", text);
    EXPECT_THAT(refusal(dir), HasSubstr("out.jsonl:")) << text;
    EXPECT_EQ(read_file(dir / "out.jsonl"), text);
  }
}

TEST(AnswerFile, TwoProcessesDoNotWriteOneFile) {
  const TempDir dir;
  const auto first = open(dir);
  EXPECT_THAT(refusal(dir), HasSubstr("another process writes it"));
}

TEST(AnswerFile, AFolderOrADeviceIsRefused) {
  EXPECT_THROW(open_answer_file("/dev/null", 1, head), Error);
  const TempDir dir;
  EXPECT_THROW(open_answer_file(dir.path(), 1, head), Error);
  EXPECT_THROW(open_answer_file(dir / "no" / "where.jsonl", 1, head), Error);
}

}  // namespace
}  // namespace kogia::cli
