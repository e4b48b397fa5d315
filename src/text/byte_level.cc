#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace kogia {
namespace {

constexpr bool stands_for_itself(unsigned b) {
  return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> chars{};
  std::array<int, 0x144> bytes{};  // by character; -1 for none
  constexpr Alphabet() {
    for (int& b : bytes) b = -1;
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      chars[b] = stands_for_itself(b) ? b : next++;
      bytes[chars[b]] = static_cast<int>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

char32_t byte_to_char(unsigned char byte) { return kAlphabet.chars[byte]; }

std::optional<std::string> spelt_bytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t pos = 0; pos < text.size();) {
    const DecodedChar c = decode_utf8(text, pos);
    if (c.code >= kAlphabet.bytes.size() || kAlphabet.bytes[c.code] < 0) return {};
    bytes.push_back(static_cast<char>(kAlphabet.bytes[c.code]));
    pos += c.size;
  }
  return bytes;
}

}  // namespace kogia
