// Any ids into the streaming decoder and the reasoning parser: every piece is valid UTF-8, and the
// pieces make up the decoded text.
//
// Input: pairs of bytes, each an id.

#include <memory>
#include <string>
#include <vector>

#include "text/byte_level.h"
#include "text/chat.h"
#include "text/unicode.h"

namespace {

// Single bytes, some longer tokens, tags as tokens or as text, holes.
std::unique_ptr<kogia::Tokenizer> tokenizer_with(bool tags) {
  kogia::GgufVocab vocab;
  vocab.model = "gpt2";
  vocab.pre = "gpt-2";
  for (unsigned b = 0; b < 256; ++b) {
    std::string spelt;
    kogia::append_utf8(spelt, kogia::byte_to_char(static_cast<unsigned char>(b)));
    vocab.tokens.push_back(spelt);
    vocab.token_types.push_back(1);
  }
  const auto add = [&](const char* token, std::int64_t type) {
    vocab.tokens.emplace_back(token);
    vocab.token_types.push_back(type);
  };
  for (const char* word : {"ðŁĳ", "Ģä½", "think", "</", "ĊĊ", "th", "ink>", "<th"}) add(word, 1);
  add("<s>", 3), add("[PAD]", 5), add("é", 4);
  if (tags) add("<think>", 4), add("</think>", 4);
  return kogia::Tokenizer::from_gguf(vocab);
}

void check(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::unique_ptr<kogia::Tokenizer> tokenizers[] = {tokenizer_with(false),
                                                                 tokenizer_with(true)};
  std::vector<kogia::TokenId> ids;
  for (std::size_t i = 0; i + 1 < size; i += 2) {
    const int id = data[i] | (data[i + 1] & 3) << 8;
    ids.push_back(id == 1023 ? -1 : id);
  }
  for (const auto& tokenizer : tokenizers) {
    for (const bool skip_special : {false, true}) {
      kogia::StreamDecoder stream(*tokenizer, skip_special);
      std::string text;
      for (const auto id : ids) {
        const std::string piece = stream.push(id);
        check(kogia::is_valid_utf8(piece));
        text += piece;
      }
      text += stream.finish();
      check(text == kogia::to_valid_utf8(tokenizer->decode(ids, skip_special)));
    }
    const std::size_t prompt = ids.size() / 4;
    kogia::ReasoningParser parser(*tokenizer, std::span(ids).first(prompt));
    std::size_t shown = 0;
    for (const auto id : std::span(ids).subspan(prompt)) {
      const auto piece = parser.push(id);
      check(kogia::is_valid_utf8(piece.reasoning) && kogia::is_valid_utf8(piece.content));
      shown += piece.reasoning.size() + piece.content.size();
    }
    const auto rest = parser.finish();
    check(kogia::is_valid_utf8(rest.reasoning) && kogia::is_valid_utf8(rest.content));
    shown += rest.reasoning.size() + rest.content.size();
    check(shown <= 3 * tokenizer->decode(ids, false).size());
  }
  return 0;
}
