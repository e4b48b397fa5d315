#pragma once
// GPT-2's alphabet: the 256 bytes as printable characters, in which byte-level vocabularies are
// written.

#include <optional>
#include <string>
#include <string_view>

namespace kogia {

/// The character that stands for a byte: itself where printable in Latin-1, else U+0100 and on.
char32_t byte_to_char(unsigned char byte);
/// The bytes that `text` spells in this alphabet; empty if a character is not of it.
std::optional<std::string> spelt_bytes(std::string_view text);

}  // namespace kogia
