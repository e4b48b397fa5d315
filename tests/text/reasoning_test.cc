// C01: the thought apart from the answer, streamed or at once, with tags as tokens and as text.

#include <gtest/gtest.h>

#include "text/chat.h"
#include "text_fixtures.h"

namespace kogia {
namespace {

using Ids = std::vector<TokenId>;

struct Split {
  std::string reasoning, content;
  bool operator==(const Split&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Split& s) {
  return out << '{' << s.reasoning << "|" << s.content << '}';
}

// The chunks are encoded apart, as a model may have cut them.
Split parse(const Tokenizer& t, std::string_view prompt, const std::vector<std::string>& chunks) {
  ReasoningParser parser(t, t.encode(prompt, {}));
  Split split;
  for (const std::string& chunk : chunks) {
    for (const TokenId id : t.encode(chunk, {})) {
      const auto piece = parser.push(id);
      EXPECT_EQ(piece.content.find("think"), std::string::npos) << "a fragment of a tag";
      split.reasoning += piece.reasoning, split.content += piece.content;
    }
  }
  const auto rest = parser.finish();
  return {split.reasoning + rest.reasoning, split.content + rest.content};
}

// Qwen3 has the tags as tokens, DeepSeek-V3 of December 2024 spells them.
class Reasoning : public testing::TestWithParam<const char*> {
 protected:
  const Tokenizer& t_ = shared_tokenizer(GetParam());
  static constexpr const char* kPrimed = "q<think>\n";
};

TEST_P(Reasoning, SplitsAfterAPrimedPrompt) {
  EXPECT_EQ(parse(t_, kPrimed, {"Add them.\n</think>\n\n4"}), (Split{"Add them.", "4"}));  // (a)
  EXPECT_EQ(parse(t_, kPrimed, {"still going"}), (Split{"still going", ""}));              // (c)
  EXPECT_EQ(parse(t_, kPrimed, {"\n\na\nb\n\n", "</think>", "\n", "\n c\n"}),
            (Split{"a\nb", " c\n"}));
  EXPECT_EQ(parse(t_, kPrimed, {"</think>", "x"}), (Split{"", "x"}));
}

TEST_P(Reasoning, SplitsWithoutAPrimedPrompt) {
  EXPECT_EQ(parse(t_, "q", {"Hello"}), (Split{"", "Hello"}));           // (e)
  EXPECT_EQ(parse(t_, "q", {"<think>a</think>b"}), (Split{"a", "b"}));  // (f)
  EXPECT_EQ(parse(t_, "q", {"\n", "<think>", "\na\n", "</think>", "\n\nb"}), (Split{"a", "b"}));
  EXPECT_EQ(parse(t_, "q", {" <", "b> x"}), (Split{"", " <b> x"}));
  EXPECT_EQ(parse(t_, "q<think>\n\n</think>\n\n", {"\nHello"}), (Split{"", "\nHello"}));
  EXPECT_EQ(parse(t_, "q", {" \n"}), (Split{"", " \n"}));
}

TEST_P(Reasoning, StateIsThatOfThePrompt) {
  EXPECT_TRUE(ReasoningParser(t_, t_.encode("a<think>\n", {})).in_reasoning());
  EXPECT_FALSE(ReasoningParser(t_, t_.encode("a<think></think>", {})).in_reasoning());
  EXPECT_FALSE(ReasoningParser(t_, t_.encode("a", {})).in_reasoning());
  // A user's word is no tag: as a chat renders it, it is text.
  const Ids asked = t_.encode("what is <think> for? Assistant:", {.parse_added = false});
  EXPECT_FALSE(ReasoningParser(t_, asked).in_reasoning());
}

INSTANTIATE_TEST_SUITE_P(Tags, Reasoning, testing::Values("qwen3", "deepseek_v3"));

TEST(ReasoningOfText, FindsTagsAcrossTokens) {
  const Tokenizer& t = shared_tokenizer("deepseek_v3");
  EXPECT_EQ(parse(t, "q<think>\n", {"Add", " them.</th", "ink>", "4"}),
            (Split{"Add them.", "4"}));  // (b)
  EXPECT_EQ(parse(t, "q<think>\n", {"a < b </t", "hin", "</", "think>c"}),
            (Split{"a < b </thin", "c"}));
  EXPECT_EQ(parse(t, "q", {"<th", "ink>", "a", "</think", ">"}), (Split{"a", ""}));
}

TEST(ReasoningOfTokens, OnlyTheTokenClosesAThought) {
  const Tokenizer& t = shared_tokenizer("qwen3");
  ReasoningParser parser(t, t.encode("q<think>\n", {}));
  std::string reasoning, content;
  Ids ids = t.encode("the text </think> is no tag", {.parse_added = false});
  ids.push_back(*t.find("</think>"));
  for (const TokenId id : t.encode("\n\nanswer", {})) ids.push_back(id);
  for (const TokenId id : ids) {
    const auto piece = parser.push(id);
    reasoning += piece.reasoning, content += piece.content;
  }
  EXPECT_EQ(reasoning, "the text </think> is no tag");
  EXPECT_EQ(content, "answer");
}

TEST(ReasoningOfText, KeepsLaterTagsInTheAnswer) {  // (d)
  for (const char* name : {"qwen3", "deepseek_v3"}) {
    const Tokenizer& t = shared_tokenizer(name);
    ReasoningParser parser(t, t.encode("q<think>\n", {}));
    std::string reasoning, content;
    for (const TokenId id : t.encode("x</think>say </think> twice", {})) {
      const auto piece = parser.push(id);
      reasoning += piece.reasoning, content += piece.content;
    }
    const auto rest = parser.finish();
    EXPECT_EQ(reasoning + rest.reasoning, "x");
    EXPECT_EQ(content + rest.content, "say </think> twice");
  }
}

}  // namespace
}  // namespace kogia
