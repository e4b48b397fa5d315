#include "text/unicode.h"

#include <gtest/gtest.h>

namespace kogia {
namespace {

TEST(Utf8, ReplacesEachMaximalIllFormedPartOnce) {
  EXPECT_EQ(to_valid_utf8("a\xF0\x9F\x91z"), "a\uFFFDz");
  EXPECT_EQ(to_valid_utf8("\xC0\x80"), "\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xE4\xBD"), "\uFFFD");
  EXPECT_EQ(to_valid_utf8("né\U0010FFFF"), "né\U0010FFFF");
}

TEST(Utf8, HoldsBackOnlyWhatMayBecomeACharacter) {
  EXPECT_EQ(unfinished_utf8("a\xF0\x9F\x91"), 3u);
  EXPECT_EQ(unfinished_utf8("a\xF0\x9F"), 2u);
  EXPECT_EQ(unfinished_utf8("a\xC3"), 1u);
  EXPECT_EQ(unfinished_utf8("a\xC3\xA9"), 0u);
  EXPECT_EQ(unfinished_utf8("a\xED\xA0"), 0u);  // a surrogate: never valid
  EXPECT_EQ(unfinished_utf8("a\x80\x80"), 0u);
  EXPECT_EQ(unfinished_utf8(""), 0u);
}

TEST(Nfc, ComposesAndSortsMarks) {
  EXPECT_EQ(to_nfc("e\u0301 A\u030A \u212B"), "é Å Å");
  EXPECT_EQ(to_nfc("a\u0301\u0316"), "\u00e1\u0316");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(to_nfc("ascii\xff e\u0301\xc3"), "ascii\xff é\xc3");
}

TEST(Nfc, LeavesWhatTheCrateInsideTokenizersDoesNotKnow) {
  EXPECT_EQ(to_nfc("x\u0301\u0898\u0316"), "x\u0301\u0898\u0316");
  EXPECT_EQ(to_nfc("\U00011935\U00011930"), "\U00011935\U00011930");
}

}  // namespace
}  // namespace kogia
