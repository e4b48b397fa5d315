// tokenizer.json: what is taken and what is refused, by name.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer.h"

namespace kogia {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

Json small() {
  return Json::parse(R"({
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
    "added_tokens": [{"id": 4, "content": "<s>", "special": true}, {"id": 5, "content": "</s>", "special": true}],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": ["a b"]}})");
}

std::unique_ptr<Tokenizer> load(const Json& json, const std::string& config = "") {
  return Tokenizer::from_json(json.dump(), config);
}

std::string refusal(const Json& json, const std::string& config = "") {
  try {
    load(json, config);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

Json with(const char* pointer, Json value) {
  Json json = small();
  json[Json::json_pointer(pointer)] = std::move(value);
  return json;
}

TEST(TokenizerJson, ReadsMergesAsTextAndAsPairs) {
  EXPECT_THAT(load(small())->encode("ab ab<s>", {}), ElementsAre(2, 3, 2, 4));
  EXPECT_THAT(load(with("/model/merges", Json::parse(R"([["a", "b"]])")))->encode("ab", {}),
              ElementsAre(2));
}

TEST(TokenizerJson, IgnoreMergesTakesWholePieces) {
  Json json = with("/model/merges", Json::array());
  EXPECT_THAT(load(json)->encode("ab", {}), ElementsAre(0, 1));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(load(json)->encode("ab", {}), ElementsAre(2));
}

TEST(TokenizerJson, AddsWhatTemplateAndConfigSay) {
  const Json processor = Json::parse(
      R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}}]})");
  const Json json = with("/post_processor", processor);
  EXPECT_THAT(load(json)->encode("a", {.add_special = true}), ElementsAre(4, 0));
  EXPECT_TRUE(load(json)->adds_bos());
  const auto config = [](bool bos, bool eos) {
    return Json({{"bos_token", "<s>"},
                 {"eos_token", {{"content", "</s>"}}},
                 {"add_bos_token", bos},
                 {"add_eos_token", eos},
                 {"model_max_length", Json::parse("1000000000000000019884624838656")}})
        .dump();
  };
  EXPECT_THAT(load(json, config(true, true))->encode("a", {.add_special = true}),
              ElementsAre(4, 0, 5));
  EXPECT_THAT(load(json, config(false, false))->encode("a", {.add_special = true}), ElementsAre(0));
  EXPECT_THAT(load(small(), config(true, false))->encode("a", {.add_special = true}),
              ElementsAre(4, 0));
}

TEST(TokenizerJson, RefusesByNameWhatItCannotDo) {
  EXPECT_THAT(refusal(with("/model/type", "Unigram")), HasSubstr("Unigram"));
  EXPECT_THAT(refusal(with("/model/dropout", 0.1)), HasSubstr("dropout"));
  EXPECT_THAT(refusal(with("/model/byte_fallback", true)), HasSubstr("byte_fallback"));
  EXPECT_THAT(refusal(with("/model/unk_token", "<unk>")), HasSubstr("unk_token"));
  EXPECT_THAT(refusal(with("/model/end_of_word_suffix", "</w>")), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(refusal(with("/normalizer", {{"type", "NFKC"}})), HasSubstr("NFKC"));
  EXPECT_THAT(refusal(with("/pre_tokenizer", {{"type", "Metaspace"}})), HasSubstr("Metaspace"));
  EXPECT_THAT(refusal(with("/pre_tokenizer", nullptr)), HasSubstr("byte-level"));
  EXPECT_THAT(refusal(with("/post_processor", {{"type", "BertProcessing"}})),
              HasSubstr("BertProcessing"));
  EXPECT_THAT(refusal(with("/decoder", {{"type", "WordPiece"}})), HasSubstr("WordPiece"));
  EXPECT_THAT(refusal(with("/added_tokens/0/content", std::string(600, 'x'))),
              HasSubstr("600 bytes"));
}

TEST(TokenizerJson, RefusesFilesThatContradictThemselves) {
  EXPECT_THAT(refusal(with("/model/vocab/ab", -1)), HasSubstr("token id"));
  EXPECT_THAT(refusal(with("/model/vocab/ab", 2'000'000'000)), HasSubstr("token id"));
  EXPECT_THAT(refusal(with("/model/vocab/ab", 0)), HasSubstr("gives id 0"));
  EXPECT_THAT(refusal(with("/model/merges/0", "b a")), HasSubstr("'ba' is not in the vocabulary"));
  EXPECT_THAT(refusal(with("/model/merges/0", "a")), HasSubstr("not two parts"));
  EXPECT_THAT(refusal(with("/model/merges", 3)), HasSubstr("model.merges"));
  EXPECT_THAT(refusal(with("/added_tokens", 3)), HasSubstr("added_tokens"));
  EXPECT_THAT(refusal(small(), R"({"add_bos_token": true})"), HasSubstr("bos_token is no token"));
  EXPECT_THAT(refusal(small(), "{"), HasSubstr("tokenizer_config.json is not JSON"));
  EXPECT_THAT(refusal(small(), std::string("{}\0{}", 5)), HasSubstr("byte 2 is zero"));
  EXPECT_THAT(refusal(Json::array()), HasSubstr("not an object"));
  EXPECT_THROW(Tokenizer::from_json("", ""), Error);
  EXPECT_THROW(Tokenizer::from_json(std::string(100'000, '['), ""), Error);
  EXPECT_THROW(Tokenizer::from_json("{}", std::string(100'000, '[')), Error);
}

}  // namespace
}  // namespace kogia
