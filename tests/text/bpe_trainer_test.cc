// A learnt vocabulary is the one that Hugging Face's `tokenizers` learns, token by token.

#include "text/bpe_trainer.h"

#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer_convert.h"

namespace kogia {
namespace {

using Json = nlohmann::json;

std::string read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

GgufVocab learn(const std::vector<std::string>& documents, BpeTrainerOptions options) {
  BpeTrainer trainer(std::move(options));
  for (const std::string& document : documents) trainer.add(document);
  return trainer.train();
}

TEST(BpeTrainer, LearnsWhatHuggingFaceLearns) {
  const Json expected = Json::parse(read(std::string(KOGIA_TEST_DATA) + "/text/bpe_trained.json"));
  const std::string text = read(expected.at("text"));
  ASSERT_FALSE(text.empty());
  for (const Json& c : expected.at("cases")) {
    const GgufVocab vocab =
        learn({text}, {.vocab_size = c.at("vocab_size"), .min_frequency = c.at("min_frequency")});
    EXPECT_EQ(vocab.tokens, c.at("tokens").get<std::vector<std::string>>());
    EXPECT_EQ(vocab.merges, c.at("merges").get<std::vector<std::string>>());
  }
}

TEST(BpeTrainer, WhatItLearnsIsReadBackAndIsExact) {
  const GgufVocab vocab =
      learn({"the cat and the hat sat on the mat; the cat spat"}, {.vocab_size = 280});
  const auto from_gguf = Tokenizer::from_gguf(vocab);
  const auto from_json =
      Tokenizer::from_json(tokenizer_json_of(vocab), tokenizer_config_of(vocab, ""));
  EXPECT_EQ(from_json->bos(), 0);
  EXPECT_EQ(from_json->eos(), 1);
  EXPECT_TRUE(from_json->is_special(2));
  for (const std::string text : {"the cat", " the\n\nhat 12345", "\xff\x00 zebra",
                                 "<think>the</think>", "日本語 <｜User｜>the mat"}) {
    const auto ids = from_gguf->encode(text, {});
    EXPECT_EQ(from_json->encode(text, {}), ids);
    EXPECT_EQ(from_json->decode(ids, false), text);
  }
  EXPECT_EQ(from_json->encode(" the", {}).size(), 1u) << "the most frequent word is one token";
}

TEST(BpeTrainer, TheOrderOfDocumentsIsNothing) {
  const std::vector<std::string> a{"one two two three three three", "four four one", "five"},
      b{"five", "one two two three three three", "four four one"};
  const GgufVocab x = learn(a, {.vocab_size = 290}), y = learn(b, {.vocab_size = 290});
  EXPECT_EQ(x.tokens, y.tokens);
  EXPECT_EQ(x.merges, y.merges);
}

TEST(BpeTrainer, EndsWhereTheTextHasNoMorePairs) {
  const GgufVocab vocab = learn({"ab ab"}, {.vocab_size = 1000});
  // "ab" and " ab": one merge joins a and b, and only one piece has the space.
  EXPECT_THAT(vocab.merges, testing::ElementsAre("a b"));
  EXPECT_EQ(vocab.tokens.size(), trained_special_tokens().size() + 256 + 1);
  EXPECT_EQ(learn({"ab ab"}, {.vocab_size = 1000, .min_frequency = 3}).merges.size(), 0u);
}

TEST(BpeTrainer, EqualPairsInARowAreJoinedFromTheLeft) {
  const GgufVocab vocab = learn({"aaaaa", "aaaaa"}, {.vocab_size = 1000});
  ASSERT_GE(vocab.merges.size(), 2u);
  EXPECT_EQ(vocab.merges[0], "a a");
  EXPECT_EQ(vocab.merges[1], "aa a") << "aa aa a: the later pair has the lower ids";
}

TEST(BpeTrainer, RefusesWhatCannotBe) {
  EXPECT_THROW(BpeTrainer({.vocab_size = 200}), Error);
  EXPECT_THROW(BpeTrainer({.pre = "no-such-name"}), Error);
}

}  // namespace
}  // namespace kogia
