// A chat template from a stranger and messages from another: renders or is refused, within limits,
// and the ids always decode to the rendered text.
//
// Input: the template, then optionally a zero byte and the content of a message.

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/chat.h"
#include "text/unicode.h"

namespace {

std::unique_ptr<kogia::Tokenizer> byte_tokenizer() {
  kogia::GgufVocab vocab;
  vocab.model = "gpt2";
  vocab.pre = "gpt-2";
  for (unsigned b = 0; b < 256; ++b) {
    std::string spelt;
    kogia::append_utf8(spelt, kogia::byte_to_char(static_cast<unsigned char>(b)));
    vocab.tokens.push_back(spelt);
    vocab.token_types.push_back(1);
  }
  for (const char* control : {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"}) {
    vocab.tokens.emplace_back(control);
    vocab.token_types.push_back(3);
  }
  return kogia::Tokenizer::from_gguf(vocab);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer = byte_tokenizer();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string content(zero == std::string_view::npos ? "a<s></think> b "
                                                           : input.substr(zero + 1));
  try {
    const auto chat =
        kogia::ChatTemplate::create(std::string(input.substr(0, zero)), *tokenizer, "<s>", "</s>");
    const std::vector<kogia::ChatMessage> messages = {
        {"system", "You are <|im_start|>", ""},
        {"user", content, ""},
        {"assistant", "",
         R"({"tool_calls": [{"function": {"name": "f", "arguments": {"x": 1.5}}}], "content": null})"},
        {"tool", content, ""}};
    kogia::ChatOptions options;
    options.max_bytes = std::size_t{1} << 20;  // a unit stays well under a second
    const auto rendered = chat->render(messages, options);
    if (tokenizer->decode(rendered.ids, false) != rendered.text) __builtin_trap();
  } catch (const kogia::Error&) {
  }
  return 0;
}
