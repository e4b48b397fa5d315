// Published tokenizers: ids that two other implementations agree on, and recorded ones.

#include "text/tokenizer.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text_fixtures.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using Ids = std::vector<TokenId>;

Ids encode(const std::string& name, std::string_view text) {
  return shared_tokenizer(name).encode(text, {});
}
std::string decode(const std::string& name, const Ids& ids) {
  return shared_tokenizer(name).decode(ids, false);
}

constexpr const char* kNames[] = {"deepseek_v3", "qwen3", "llama3"};

TEST(Tokenizer, GivesTheIdsThatHuggingFaceGave) {
  for (const std::string name : {"deepseek_v3", "qwen3", "llama3", "smollm"}) {
    std::ifstream lines(KOGIA_TEST_DATA "/text/ids_" + name + ".jsonl");
    int n = 0;
    for (std::string line; std::getline(lines, line); ++n) {
      const auto row = nlohmann::json::parse(line);
      const auto text = row["text"].get<std::string>();
      EXPECT_EQ(encode(name, text), row["ids"].get<Ids>()) << name << ": " << row["text"];
    }
    EXPECT_GT(n, 200) << name;
  }
}

TEST(Tokenizer, T01GroupsDigitsAsEachFamilyDoes) {
  EXPECT_THAT(encode("deepseek_v3", "What is 60481 + 7293?"),
              ElementsAre(3085, 344, 223, 25196, 5929, 940, 223, 29094, 21, 33));
  EXPECT_THAT(encode("llama3", "What is 60481 + 7293?"),
              ElementsAre(3923, 374, 220, 20354, 5932, 489, 220, 22194, 18, 30));
  EXPECT_THAT(encode("qwen3", "What is 60481 + 7293?"),
              ElementsAre(3838, 374, 220, 21, 15, 19, 23, 16, 488, 220, 22, 17, 24, 18, 30));
  EXPECT_THAT(encode("deepseek_v3", "3333+777"), ElementsAre(11722, 21, 13, 22199));
  EXPECT_THAT(encode("llama3", "3333+777"), ElementsAre(8765, 18, 10, 15831));
  EXPECT_THAT(encode("qwen3", "3333+777"), ElementsAre(18, 18, 18, 18, 10, 22, 22, 22));
  EXPECT_THAT(encode("deepseek_v3", "1234567"), ElementsAre(6895, 18009, 25));
  EXPECT_THAT(encode("deepseek_v3", "٣٤٥٦"), ElementsAre(127056, 152, 100, 152, 101, 152, 102));
  EXPECT_THAT(encode("llama3", "٣٤٥٦"), ElementsAre(117413, 124079, 124043, 149, 99));
  EXPECT_THAT(encode("deepseek_v3", "²³½"), ElementsAre(1628, 5826, 23951));
}

TEST(Tokenizer, T03ComposesMarksOnlyWhereTheNormaliserSaysNfc) {
  const std::string nfd = "nai\u0308ve cafe\u0301 Ωmega", nfc = "naïve café Ωmega";
  const Ids ds_nfd = {58009, 66383, 427, 69292, 17793, 35571, 79, 12924};
  const Ids l3_nfd = {77, 2192, 127104, 588, 42030, 54939, 117336, 43610};
  const Ids q3 = {3376, 37572, 586, 51950, 7851, 102, 42510};
  EXPECT_EQ(encode("deepseek_v3", nfd), ds_nfd);
  EXPECT_THAT(encode("deepseek_v3", nfc), ElementsAre(2720, 91223, 57664, 35571, 79, 12924));
  EXPECT_EQ(encode("llama3", nfd), l3_nfd);
  EXPECT_THAT(encode("llama3", nfc), ElementsAre(3458, 38672, 588, 53050, 117336, 43610));
  EXPECT_EQ(encode("qwen3", nfd), q3);
  EXPECT_EQ(encode("qwen3", nfc), q3);
  EXPECT_EQ(decode("deepseek_v3", ds_nfd), nfd);
  EXPECT_EQ(decode("llama3", l3_nfd), nfd);
  EXPECT_EQ(decode("qwen3", q3), nfc);
  EXPECT_THAT(encode("deepseek_v3", "कि नमस्ते"),
              ElementsAre(11018, 5685, 23597, 12524, 70223, 6011));
}

TEST(Tokenizer, T05AddsBosOnceAndOnlyWhenAsked) {
  const Tokenizer& ds = shared_tokenizer("deepseek_v3");
  EXPECT_TRUE(ds.adds_bos());
  EXPECT_THAT(ds.encode("ping", {.add_special = true}), ElementsAre(0, 22153));
  EXPECT_THAT(ds.encode("ping", {}), ElementsAre(22153));
  EXPECT_FALSE(shared_tokenizer("qwen3").adds_bos());
  EXPECT_EQ(shared_tokenizer("qwen3").encode("ping", {.add_special = true}),
            encode("qwen3", "ping"));
}

TEST(Tokenizer, T07DecodesToTheExactText) {
  const std::string code = "x != y , 'ok' .";
  EXPECT_THAT(encode("llama3", code), ElementsAre(87, 976, 379, 1174, 364, 564, 6, 662));
  for (const std::string name : kNames) {
    for (const std::string& text :
         {code, std::string("  two  \t\ttabs\r\nlines\n\n "), std::string("\0nul", 4)}) {
      EXPECT_EQ(decode(name, encode(name, text)), text) << name;
    }
  }
}

TEST(Tokenizer, T09IdsWithoutATokenDecodeToNothing) {
  const Tokenizer& ds = shared_tokenizer("deepseek_v3");
  EXPECT_EQ(ds.n_tokens(), 128815);
  for (const TokenId id : {-1, 128815, 129279, 129280, 2147483647}) {
    EXPECT_FALSE(ds.has_token(id));
    EXPECT_EQ(ds.token_bytes(id), "");
    EXPECT_EQ(ds.decode(Ids{id, 22153, id}, false), "ping");
  }
  EXPECT_EQ(shared_tokenizer("qwen3").n_tokens(), 151669);
  StreamDecoder stream(ds, true);
  EXPECT_EQ(stream.push(129279) + stream.push(22153) + stream.finish(), "ping");
}

TEST(Tokenizer, ReadsAddedTokensInTextOnlyWhenAsked) {
  for (const std::string name : kNames) {
    const Tokenizer& t = shared_tokenizer(name);
    const std::string control = name == "deepseek_v3" ? "<｜Assistant｜>"
                                : name == "qwen3"     ? "<|im_start|>"
                                                      : "<|eot_id|>";
    const TokenId id = t.find(control).value();
    EXPECT_THAT(t.encode("a" + control + "b", {}), testing::Contains(id)) << name;
    const Ids plain = t.encode("a" + control + "b", {.parse_added = false});
    for (const TokenId p : plain) EXPECT_FALSE(t.is_added(p)) << name;
    EXPECT_EQ(t.decode(plain, false), "a" + control + "b");
  }
}

TEST(Tokenizer, LeavesOutOnlySpecialTokensWhenDecoding) {
  const Tokenizer& ds = shared_tokenizer("deepseek_v3");
  EXPECT_EQ(ds.decode(Ids{0, 128803, 22153, 1}, true),
            "<｜User｜>ping");  // User is added, not special
  EXPECT_TRUE(ds.is_added(128803));
  EXPECT_FALSE(ds.is_special(128803));
  EXPECT_EQ(ds.bos(), 0);
  EXPECT_EQ(ds.eos(), 1);
}

TEST(Tokenizer, PassesInvalidBytesAsTheirByteTokens) {
  for (const std::string name : kNames) {
    for (const std::string& bytes :
         {std::string("\xff"), std::string("a\xc3"), std::string("\xed\xa0\x80 x"),
          std::string("\xf0\x9f\x91 \x80\x80"), std::string("é\xe9é")}) {
      EXPECT_EQ(decode(name, encode(name, bytes)), bytes) << name;
    }
  }
}

TEST(StreamDecoder, NeverEmitsHalfACharacterAndEndsInTheSameText) {
  const Tokenizer& ds = shared_tokenizer("deepseek_v3");
  for (const std::string& text : {std::string("👍🏽 नमस्ते \U00031350"),
                                  std::string("a\xff"
                                              "b\xf0\x9f\x91"),
                                  std::string("\xe4\xbd \xbd\xa0")}) {
    StreamDecoder stream(ds, false);
    std::string whole;
    const Ids ids = ds.encode(text, {});
    for (const TokenId id : ids) {
      const std::string piece = stream.push(id);
      EXPECT_EQ(nlohmann::json(piece).dump().empty(), false);  // dump throws on broken UTF-8
      whole += piece;
    }
    whole += stream.finish();
    nlohmann::json dumped = whole;
    EXPECT_NO_THROW(dumped.dump());
    if (text[0] == '\xf0') {
      EXPECT_EQ(whole, text);
    }
  }
  StreamDecoder stream(ds, false);
  const auto byte = [&](const char* spelt) { return ds.find(spelt).value(); };
  EXPECT_EQ(stream.push(byte("ð")), "");  // F0
  EXPECT_EQ(stream.push(byte("Ł")), "");  // 9F: F0 9F may still become a character
  EXPECT_EQ(stream.push(22153), "\uFFFDping");
  EXPECT_EQ(stream.push(byte("Ã")), "");  // C3
  EXPECT_EQ(stream.finish(), "\uFFFD");
}

TEST(Tokenizer, IsLinearOnLongRunsOfOneCharacter) {
  // Nothing is timed: quadratic work on half a million characters would not end within the test's
  // limit.
  const Tokenizer& ds = shared_tokenizer("deepseek_v3");
  for (const std::string unit : {"a", " ", "!", "7", "\n ", "中", "\u0301\u0316"}) {
    std::string text;
    while (text.size() < 500'000) text += unit;
    EXPECT_EQ(ds.decode(ds.encode(text, {}), false).size(), text.size());
    EXPECT_FALSE(shared_tokenizer("qwen3").encode(text, {}).empty());
  }
}

}  // namespace
}  // namespace kogia
