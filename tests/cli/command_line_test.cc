#include "cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "cli/batch_flags.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

TEST(ParseBytes, TakesTheUsualUnitsAndRefusesOthers) {
  EXPECT_EQ(parse_bytes("123"), 123);
  EXPECT_EQ(parse_bytes("1.5KiB"), 1536);
  EXPECT_EQ(parse_bytes("500 MB"), Index{500} << 20);
  EXPECT_EQ(parse_bytes("20G"), Index{20} << 30);
  EXPECT_EQ(parse_bytes("7B"), 7);
  for (const char* text : {"", "G", "1X", "1GiBs", "-1", "1e9", "9999999999T", "1..5K"}) {
    EXPECT_EQ(parse_bytes(text), std::nullopt) << text;
  }
}

using testing::ElementsAre;
using testing::HasSubstr;

struct Values {
  bool raw = false;
  Index threads = 0;
  std::optional<double> temperature;
  double penalty = 0;
  std::uint64_t seed = 0;
  std::string isa, model;
  std::optional<std::string> text;
  std::vector<std::string> stop;
  std::vector<Index> depth{7};

  CommandLine line() {
    return {.name = "run",
            .summary = "Answers.",
            .positionals = {{"MODEL", "a folder", &model}, {"TEXT", "the prompt", &text}},
            .groups = {{"Flags",
                        {{.flags = "--raw", .value = {}, .help = "no template", .target = &raw},
                         {.flags = "--threads",
                          .value = "N",
                          .help = "threads",
                          .target = &threads,
                          .low = 0,
                          .high = 64},
                         {.flags = "--temperature",
                          .value = "X",
                          .help = "heat",
                          .target = &temperature,
                          .low = 0},
                         {.flags = "--presence-penalty",
                          .value = "X",
                          .help = "penalty",
                          .target = &penalty,
                          .low = -2,
                          .high = 2},
                         {.flags = "--seed", .value = "N", .help = "seed", .target = &seed},
                         {.flags = "--depth",
                          .value = "LIST",
                          .help = "depths",
                          .target = &depth,
                          .low = 0,
                          .high = 99},
                         {.flags = "--isa,-i",
                          .value = "SET",
                          .help = "set",
                          .target = &isa,
                          .choices = {"scalar", "avx2"}},
                         {.flags = "--stop", .value = "TEXT", .help = "stop", .target = &stop}}}},
            .examples = {"kogia run model \"Hi\""}};
  }
};

struct Parsed : Values {
  explicit Parsed(std::vector<std::string> words) { EXPECT_TRUE(parse(line(), words)); }
};

std::pair<std::string, std::string> refusal(std::vector<std::string> words) {
  Values values;
  try {
    (void)parse(values.line(), words);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return {error.what(), error.help()};
  }
  return {"(accepted)", {}};
}

TEST(CommandLine, ReadsFlagsAndWordsInAnyOrder) {
  const Parsed p({"--threads", "3", "m", "--temperature=0.5", "hello world", "--raw", "-i", "avx2",
                  "--seed", "18446744073709551615"});
  EXPECT_EQ(p.model, "m");
  EXPECT_EQ(p.text, "hello world");
  EXPECT_EQ(p.threads, 3);
  EXPECT_EQ(p.temperature, 0.5);
  EXPECT_TRUE(p.raw);
  EXPECT_EQ(p.isa, "avx2");
  EXPECT_EQ(p.seed, ~std::uint64_t{0});
}

TEST(CommandLine, TheLastOfAFlagCountsAndAListCollects) {
  const Parsed p(
      {"m", "--threads", "1", "--stop", "a b", "--threads", "2", "--stop", "-c", "--", "--x"});
  EXPECT_EQ(p.threads, 2);
  EXPECT_THAT(p.stop, ElementsAre("a b", "-c"));
  EXPECT_EQ(p.text, "--x") << "-- ends the flags";
}

TEST(CommandLine, AListFlagTakesOneWordEach) {
  const Parsed p({"--stop", "x", "m", "text"});
  EXPECT_THAT(p.stop, ElementsAre("x"));
  EXPECT_EQ(p.model, "m");
  EXPECT_EQ(p.text, "text");
}

TEST(CommandLine, AListOfNumbersIsReadStrictly) {
  EXPECT_THAT(Parsed({"m"}).depth, ElementsAre(7));
  EXPECT_THAT(Parsed({"m", "--depth", "5"}).depth, ElementsAre(5));
  EXPECT_THAT(Parsed({"m", "--depth", "1,2", "--depth=32,0,32"}).depth, ElementsAre(32, 0, 32));
  for (const std::string bad : {"", ",", "32,,5", ",5", "5,", "5, 6", "5;6", "5,x", "5,-1", "5,100",
                                "1.0", "5,99999999999999999999"}) {
    EXPECT_EQ(
        refusal({"m", "--depth", bad}).first,
        "--depth is '" + bad + "', expected whole numbers from 0 to 99 with single commas between");
  }
}

TEST(CommandLine, ValuesMayBeNegativeEmptyOrOddText) {
  EXPECT_EQ(Parsed({"m", "--presence-penalty", "-1.5"}).penalty, -1.5);
  EXPECT_THAT(Parsed({"m", "--stop", ""}).stop, ElementsAre(""));
  EXPECT_THAT(Parsed({"m", "--stop="}).stop, ElementsAre(""));
  EXPECT_THAT(Parsed({"m", "--stop=[a, b]", "--stop", "\"q\"", "--stop", "{}"}).stop,
              ElementsAre("[a, b]", "\"q\"", "{}"));
  EXPECT_EQ(Parsed({"m", ""}).text, "");
  EXPECT_EQ(Parsed({"m", "a=b"}).text, "a=b");
  EXPECT_EQ(Parsed({"m", "--", "-5 degrees"}).text, "-5 degrees");
}

TEST(CommandLine, BadValuesAreNamedWithWhatWasExpected) {
  EXPECT_EQ(refusal({"m", "--threads", "many"}).first,
            "--threads is 'many', expected a whole number from 0 to 64");
  EXPECT_EQ(refusal({"m", "--threads", "65"}).first,
            "--threads is '65', expected a whole number from 0 to 64");
  EXPECT_EQ(refusal({"m", "--threads", "2.0"}).first,
            "--threads is '2.0', expected a whole number from 0 to 64");
  EXPECT_EQ(refusal({"m", "--threads", "99999999999999999999"}).first,
            "--threads is '99999999999999999999', expected a whole number from 0 to 64");
  EXPECT_EQ(refusal({"m", "--temperature", "-0.1"}).first,
            "--temperature is '-0.1', expected a number of 0 or more");
  EXPECT_EQ(refusal({"m", "--temperature", "nan"}).first,
            "--temperature is 'nan', expected a number of 0 or more");
  EXPECT_EQ(refusal({"m", "--temperature", "1x"}).first,
            "--temperature is '1x', expected a number of 0 or more");
  EXPECT_EQ(refusal({"m", "--isa", "sse"}).first, "--isa is 'sse', expected scalar, avx2");
  EXPECT_EQ(refusal({"m", "--seed", "-1"}).first,
            "--seed is '-1', expected a whole number from 0 to 2^64 - 1");
  EXPECT_EQ(refusal({"m", "--threads"}).first, "--threads needs a value after it");
}

TEST(CommandLine, UnknownFlagsAreNamedWithTheLikelyOne) {
  EXPECT_EQ(refusal({"m", "--temprature", "1"}),
            (std::pair<std::string, std::string>("kogia run has no flag '--temprature'",
                                                 "did you mean --temperature?")));
  EXPECT_EQ(refusal({"m", "--temp=1"}).second, "did you mean --temperature?");
  EXPECT_THAT(refusal({"m", "--zzzzzz"}).second, HasSubstr("kogia run --help"));
  EXPECT_THAT(refusal({"m", "-5 degrees"}).second, HasSubstr("put -- before text"));
}

TEST(CommandLine, MissingAndSurplusWordsAreNamed) {
  EXPECT_EQ(refusal({}).first, "kogia run needs MODEL: a folder");
  EXPECT_EQ(refusal({"m", "why", "is"}).first, "kogia run takes 2 arguments, found one more: 'is'");
}

TEST(CommandLine, HelpHoldsEveryFlagAndAnExample) {
  Values values;
  const std::string help = help_text(values.line());
  for (const char* part : {"usage: kogia run MODEL [TEXT] [FLAG...]", "--raw", "--threads N",
                           "--isa, -i SET", "--help", "Example", "kogia run model \"Hi\""}) {
    EXPECT_THAT(help, HasSubstr(part));
  }
  for (std::size_t begin = 0; begin < help.size();) {
    const std::size_t end = help.find('\n', begin);
    EXPECT_LE(end - begin, 100U) << help.substr(begin, end - begin);
    begin = end + 1;
  }
}

TEST(Output, ControlCharactersCannotReachTheTerminal) {
  EXPECT_EQ(printable("a\x1b[31mb\tc\nd"), "a\uFFFD[31mb\tc\nd");
  EXPECT_EQ(printable("\u009b31m"), "\uFFFD31m") << "CSI as one character";
  EXPECT_EQ(printable("caf\xc3\xa9 \xff\xc3"), "café \uFFFD\uFFFD");
  EXPECT_EQ(printable("日本 🦖"), "日本 🦖");
}

TEST(Output, Utf8IsCheckedByTheTable) {
  EXPECT_TRUE(is_utf8("日本 🦖"));
  for (const std::string_view bad : {"\x80", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80",
                                     "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf8", "\xe2\x82"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Output, NumbersAreWrittenForPeople) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(70272), "70,272");
  EXPECT_EQ(with_commas(-1234567), "-1,234,567");
  EXPECT_EQ(counted(1, "token"), "1 token");
  EXPECT_EQ(counted(1234, "token"), "1,234 tokens");
  EXPECT_EQ(short_count(671026419200), "671.0B");
  EXPECT_EQ(short_count(134515008), "134.5M");
  EXPECT_EQ(short_count(950), "950");
}

}  // namespace
}  // namespace kogia::cli
