// tokenizer.json from a stranger: loads or is refused; what loads encodes any text and decodes any
// ids.
//
// Input: the JSON, then optionally a zero byte and text to encode.

#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  const std::string_view json = input.substr(0, zero);
  std::string_view text =
      zero == std::string_view::npos ? "a <s> 12é\xff\n" : input.substr(zero + 1);
  text = text.substr(0, 4096);
  try {
    const auto tokenizer = kogia::Tokenizer::from_json(json, R"({"bos_token": "<s>"})");
    const auto ids = tokenizer->encode(text, {.add_special = true});
    tokenizer->encode(text, {.parse_added = false});
    tokenizer->decode(ids, false);
    for (const auto id : ids) {
      if (!tokenizer->has_token(id)) __builtin_trap();
    }
  } catch (const kogia::Error&) {
  }
  return 0;
}
