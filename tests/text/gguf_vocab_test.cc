// Tokenizers from a GGUF's plain data: what is taken, what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace kogia {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// All bytes, then a control token, a user's token, an unused row.
GgufVocab small_vocab(std::string pre) {
  GgufVocab vocab;
  vocab.model = "gpt2";
  vocab.pre = std::move(pre);
  for (unsigned b = 0; b < 256; ++b) {
    std::string spelt;
    append_utf8(spelt, byte_to_char(static_cast<unsigned char>(b)));
    vocab.tokens.push_back(spelt);
  }
  vocab.token_types.assign(256, 1);
  const auto add = [&](const char* token, std::int64_t type) {
    vocab.tokens.emplace_back(token);
    vocab.token_types.push_back(type);
  };
  add("<s>", 3), add("<tool>", 4), add("ab", 1), add("[PAD9]", 5);
  vocab.merges = {"a b"};
  vocab.bos = 256;
  return vocab;
}

std::string message_of(const GgufVocab& vocab) {
  try {
    Tokenizer::from_gguf(vocab);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

std::vector<std::string> pieces(std::string_view pre, std::string_view text) {
  std::vector<std::string> out;
  gguf_pretokenizer(pre).pretokenizer.split(text, [&](std::string_view p) { out.emplace_back(p); });
  return out;
}

TEST(GgufVocab, ReadsTheKindsOfTokens) {
  const auto t = Tokenizer::from_gguf(small_vocab("qwen2"));
  EXPECT_THAT(t->encode("ab<s><tool>", {}), ElementsAre(258, 256, 257));
  EXPECT_TRUE(t->is_special(256));
  EXPECT_TRUE(t->is_added(257));
  EXPECT_FALSE(t->is_special(257));
  EXPECT_EQ(t->n_tokens(), 259);  // an unused row is no token
  EXPECT_FALSE(t->adds_bos());
  auto llama = small_vocab("llama-bpe");
  EXPECT_TRUE(Tokenizer::from_gguf(llama)->adds_bos());
  llama.add_bos = false;
  EXPECT_FALSE(Tokenizer::from_gguf(llama)->adds_bos());
}

TEST(GgufVocab, RefusesUnknownNamesInsteadOfGuessing) {
  EXPECT_THAT(message_of(small_vocab("default")), HasSubstr("'default'"));
  EXPECT_THAT(message_of(small_vocab("")), HasSubstr("deepseek-v3"));
  auto vocab = small_vocab("qwen2");
  vocab.model = "llama";
  EXPECT_THAT(message_of(vocab), HasSubstr("'llama'"));
}

TEST(GgufVocab, RefusesTablesThatContradictEachOther) {
  auto vocab = small_vocab("qwen2");
  vocab.token_types.pop_back();
  EXPECT_THAT(message_of(vocab), HasSubstr("token_type has 259"));
  vocab = small_vocab("qwen2");
  vocab.merges = {"a c"};
  EXPECT_THAT(message_of(vocab), HasSubstr("'ac' is not in the vocabulary"));
  vocab.merges = {"abc"};
  EXPECT_THAT(message_of(vocab), HasSubstr("not two parts"));
  vocab = small_vocab("qwen2");
  vocab.bos = 260;
  EXPECT_THAT(message_of(vocab), HasSubstr("bos_token_id is 260"));
  vocab.tokens.clear();
  EXPECT_THAT(message_of(vocab), HasSubstr("0 entries"));
}

TEST(Pretokenizer, V2SplitsLinesWordsPunctuationCjkAndSingleDigits) {
  EXPECT_THAT(
      pieces("deepseek-llm", "Hi there,\n\n1234 中文字x  "),
      ElementsAre("Hi", " there", ",", "\n", "\n", "1", "2", "3", "4", " ", "中文字", "x", "  "));
  // The CJK rule's range U+0800..U+4E00 takes letters out of words again, as published.
  EXPECT_THAT(pieces("deepseek-llm", "K\u212A \u2126x"),
              ElementsAre("K", "\u212A", " ", "\u2126", "x"));
  EXPECT_THAT(pieces("deepseek-coder", "if (x1) { }"),
              ElementsAre("if", " (", "x", "1", ")", " {", " }"));
}

TEST(Pretokenizer, V3TakesDigitsByThreesFromTheLeft) {
  EXPECT_THAT(pieces("deepseek-v3", "x12345 #if 漢字!"),
              ElementsAre("x", "123", "45", " #", "if", " ", "漢字", "!"));
  EXPECT_THAT(pieces("qwen2", "it's 12"), ElementsAre("it", "'s", " ", "1", "2"));
  EXPECT_THAT(pieces("llama3", "it'S 12345"), ElementsAre("it", "'S", " ", "123", "45"));
  EXPECT_THAT(pieces("gpt-2", "don't  go\n"), ElementsAre("don", "'t", " ", " go", "\n"));
}

}  // namespace
}  // namespace kogia
