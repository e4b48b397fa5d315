// The matcher of pre-tokenizers: meaning, refusals, and linear time.

#include "text/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  std::vector<ByteRange> found;
  Regex::compile(pattern).find_all(text, found);
  std::vector<std::string> out;
  for (const ByteRange& r : found) out.emplace_back(text.substr(r.begin, r.size()));
  return out;
}

TEST(Regex, TakesTheFirstAlternativeThatMatches) {
  EXPECT_THAT(matches("a|ab", "ab"), ElementsAre("a"));
  EXPECT_THAT(matches("ab|a", "aab"), ElementsAre("a", "ab"));
  EXPECT_THAT(matches("(?:ab|a)b?c", "abc"), ElementsAre("abc"));
}

TEST(Regex, GivesBackWhatFollowsNeeds) {
  EXPECT_THAT(matches(R"(\s+(?!\S)|\s+)", "a   b  "), ElementsAre("  ", " ", "  "));
  EXPECT_THAT(matches(R"(\s*[\r\n]+)", "  \n \n x"), ElementsAre("  \n \n"));
  EXPECT_THAT(matches("a++a", "aaa"), IsEmpty());
  EXPECT_THAT(matches("a+?b|a", "aab"), ElementsAre("aab"));
  EXPECT_THAT(matches("(?:aé)+a", "aéaéb"), ElementsAre("aéa"));
}

TEST(Regex, KnowsTheUnicodeOfHuggingFace) {
  EXPECT_THAT(matches(R"(\p{L}+)", "x\u1c89\U0002ebf0\U00031350."),
              ElementsAre("x\u1c89\U0002ebf0\U00031350"));
  EXPECT_THAT(matches(R"(\s)", "\u180e\u0085\u3000\u200b"), ElementsAre("\u0085", "\u3000"));
  EXPECT_THAT(matches("(?i:'s)", "'S'ſ'z"), ElementsAre("'S", "'ſ"));
}

TEST(Regex, ReadsInvalidBytesAsUnassignedCharacters) {
  EXPECT_THAT(matches(R"([^\s\p{L}]+)", "a\xff\xc3 b"), ElementsAre("\xff\xc3"));
  EXPECT_THAT(matches(R"(\p{L}+)", "\xff\xe4\xbd"), IsEmpty());
}

TEST(Regex, NamesWhatItCannotRead) {
  for (const char* pattern :
       {"(?<=a)b", R"(\bx)", R"(\w)", R"(\p{Han})", "[a&&b]", "a{2}{3}", "(a*)*", "(", "[", "a)",
        "*a", "(?!ab)", "a{1001}", "[z-a]", "\xff", R"(\p{)", R"(\x{110000})", "(?i:é)"}) {
    try {
      Regex::compile(pattern);
      ADD_FAILURE() << pattern;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
      EXPECT_THAT(e.what(), HasSubstr("pattern"));
    }
  }
}

TEST(Regex, StaysLinearWhereBacktrackersDoNot) {
  const std::string text(200'000, 'a');
  for (const char* pattern :
       {"(?:a|a)+b", "a+a+a+b", "(?:a+)+b", "a*?a*?a*?b|c", "a++b", "(?:aa?)+(?:aa?)+b"}) {
    EXPECT_THAT(matches(pattern, text), IsEmpty()) << pattern;
  }
  EXPECT_EQ(matches("(?:a|a)+b|aa", text).size(), text.size() / 2);
  EXPECT_EQ(matches("a+b|a", text + "b" + text).size(), 1 + text.size());
}

}  // namespace
}  // namespace kogia
