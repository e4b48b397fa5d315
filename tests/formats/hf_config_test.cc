// What config.json may say, and what is refused with which words.

#include "formats/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace kogia {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

HfConfig config(std::string_view text) { return HfConfig::parse(text, "config.json"); }

/// The message f throws; "" if it throws none.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalid);
    return e.what();
  }
  return "";
}
std::string refusal_of(std::string_view text) {
  return refusal([&] { config(text); });
}

TEST(HfConfig, GivesEachTypeOfValue) {
  const HfConfig c = config(R"({"hidden_size": 7168, "rms_norm_eps": 1e-6, "tie": false,
                                "model_type": "deepseek_v3", "negative": -3})");
  EXPECT_EQ(c.get_int("hidden_size"), 7168);
  EXPECT_EQ(c.get_int("negative"), -3);
  EXPECT_EQ(c.get_float("rms_norm_eps"), 1e-6);
  EXPECT_EQ(c.get_float("hidden_size"), 7168.0);
  EXPECT_EQ(c.get_bool("tie"), false);
  EXPECT_EQ(c.get_string("model_type"), "deepseek_v3");
  EXPECT_EQ(c.file(), "config.json");
}

TEST(HfConfig, TakesNullForAbsent) {
  const HfConfig c = config(R"({"q_lora_rank": null})");
  for (const char* key : {"q_lora_rank", "not there"}) {
    EXPECT_FALSE(c.has(key));
    EXPECT_EQ(c.get_int(key), std::nullopt);
    EXPECT_EQ(c.get_float(key), std::nullopt);
    EXPECT_EQ(c.get_bool(key), std::nullopt);
    EXPECT_EQ(c.get_string(key), std::nullopt);
    EXPECT_FALSE(c.get_object(key).has_value());
    EXPECT_THAT(c.get_ints_or_one(key), IsEmpty());
    EXPECT_THAT(c.get_strings(key), IsEmpty());
  }
  EXPECT_TRUE(config(R"({"zero": 0})").has("zero"));
}

TEST(HfConfig, TakesAWholeFloatForAnInteger) {
  EXPECT_EQ(config(R"({"n": 4096.0})").get_int("n"), 4096);
  EXPECT_EQ(config(R"({"n": 4.096e3})").get_int("n"), 4096);
  EXPECT_EQ(config(R"({"n": -0.0})").get_int("n"), 0);
  EXPECT_THAT(refusal([] { config(R"({"n": 2.5})").get_int("n"); }), HasSubstr("n is 2.5"));
}

TEST(HfConfig, RefusesIntegersBeyond64Bits) {
  EXPECT_EQ(config(R"({"n": 9223372036854775807})").get_int("n"), INT64_MAX);
  EXPECT_EQ(config(R"({"n": -9223372036854775808})").get_int("n"), INT64_MIN);
  for (const char* number : {"9223372036854775808", "18446744073709551615", "18446744073709551616",
                             "-9223372036854775809", "1e300"}) {
    const HfConfig c = config(fmt::format(R"({{"n": {}}})", number));
    EXPECT_THAT(refusal([&] { c.get_int("n"); }), HasSubstr("expected an integer of 64 bits"))
        << number;
  }
  EXPECT_THAT(refusal_of(R"({"n": 1e999})"), HasSubstr("config.json: not JSON"));
}

TEST(HfConfig, NamesFileFieldWhatWasFoundAndWhatWasExpected) {
  const HfConfig c = config(R"({"hidden_size": "x", "list": [1, "two"], "rope": {"factor": []}})");
  EXPECT_EQ(refusal([&] { c.get_int("hidden_size"); }),
            R"(config.json: hidden_size is "x", expected an integer)");
  EXPECT_EQ(refusal([&] { c.get_float("hidden_size"); }),
            R"(config.json: hidden_size is "x", expected a number)");
  EXPECT_EQ(refusal([&] { c.get_bool("hidden_size"); }),
            R"(config.json: hidden_size is "x", expected true or false)");
  EXPECT_EQ(refusal([&] { c.get_object("hidden_size"); }),
            R"(config.json: hidden_size is "x", expected an object)");
  EXPECT_EQ(refusal([&] { c.get_string("list"); }),
            "config.json: list is array of 2, expected a string");
  EXPECT_EQ(refusal([&] { c.get_ints_or_one("list"); }),
            R"(config.json: list is "two", expected an integer)");
  EXPECT_EQ(refusal([&] { c.get_object("rope")->get_float("factor"); }),
            "config.json: rope.factor is array of 0, expected a number");
}

TEST(HfConfig, GivesOneNumberOrAListOfThem) {
  EXPECT_THAT(config(R"({"eos_token_id": 1})").get_ints_or_one("eos_token_id"), ElementsAre(1));
  EXPECT_THAT(config(R"({"eos_token_id": [1, 128009]})").get_ints_or_one("eos_token_id"),
              ElementsAre(1, 128009));
  EXPECT_THAT(config(R"({"architectures": ["A", "B"]})").get_strings("architectures"),
              ElementsAre("A", "B"));
}

TEST(HfConfig, AnInnerObjectOutlivesTheOuterOne) {
  std::optional<HfConfig> inner;
  {
    const HfConfig outer = config(R"({"rope_scaling": {"type": "yarn", "deep": {"n": 3}}})");
    inner = outer.get_object("rope_scaling");
  }
  ASSERT_TRUE(inner.has_value());
  EXPECT_EQ(inner->get_string("type"), "yarn");
  EXPECT_EQ(inner->get_object("deep")->get_int("n"), 3);
}

TEST(HfConfig, RefusesWhatIsNotOneJsonObject) {
  for (const char* text : {"", " ", "[]", "3", "null", "\"x\""}) {
    EXPECT_NE(refusal_of(text), "") << text;
  }
  for (const char* text : {"{", "{\"a\": }", "{\"a\": 1,}", "{} {}", "{'a': 1}", "{\"a\": NaN}",
                           "{\"a\": \"\xff\"}", "{\"a\": 1 /* no */}"}) {
    EXPECT_THAT(refusal_of(text), HasSubstr("config.json: not JSON")) << text;
  }
  EXPECT_THAT(refusal_of("{\n\"a\": }"), HasSubstr("line 2"));
}

TEST(HfConfig, NothingHidesBehindAZeroByte) {
  EXPECT_THAT(refusal_of(std::string_view("{\"a\": 1}\0{", 10)),
              HasSubstr("a zero byte at position 8"));
}

TEST(HfConfig, RefusesWhatIsNestedTooDeep) {
  const auto nested = [](int depth) {  // `depth` containers in all
    const auto n = static_cast<std::size_t>(depth - 1);
    return "{\"a\":" + std::string(n, '[') + std::string(n, ']') + "}";
  };
  EXPECT_EQ(refusal_of(nested(HfConfig::kMaxDepth)), "");
  EXPECT_THAT(refusal_of(nested(HfConfig::kMaxDepth + 1)), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(refusal_of(nested(1'000'000)), HasSubstr("nested deeper than 64"));
}

TEST(HfConfig, RefusesWhatIsTooLongBeforeReadingIt) {
  const std::string text(HfConfig::kMaxBytes + 1, '{');
  EXPECT_THAT(refusal_of(text), HasSubstr("more than the 16777216"));
}

TEST(HfConfig, MessagesStayShort) {
  const std::string word(100'000, 'w');
  EXPECT_LT(refusal_of("{\"a\": \"" + word).size(), 400u);
  const HfConfig c = config("{\"a\": \"" + word + "\"}");
  EXPECT_LT(refusal([&] { c.get_int("a"); }).size(), 400u);
}

constexpr std::string_view kSmall =
    R"({"a": [1, 2.0], "b": {"c": "d", "e": null}, "f": true, "g": "é\n"})";

TEST(HfConfig, RefusesEachCutOffCopy) {
  ASSERT_EQ(refusal_of(kSmall), "");
  for (std::size_t n = 0; n < kSmall.size(); ++n) {
    EXPECT_NE(refusal_of(kSmall.substr(0, n)), "") << n;
  }
}

TEST(HfConfig, SurvivesDamagedBytes) {
  int refused = 0;
  for (std::uint64_t attempt = 0; attempt < 500; ++attempt) {
    const Philox random(20261125, attempt);
    std::string text(kSmall);
    text[random.below(text.size(), 0)] = static_cast<char>(random.below(256, 1));
    try {
      const HfConfig c = config(text);
      c.get_ints_or_one("a");
      if (const auto b = c.get_object("b")) b->get_string("c");
      c.get_bool("f");
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("config.json: "));
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_LT(refused, 500);
}

}  // namespace
}  // namespace kogia
