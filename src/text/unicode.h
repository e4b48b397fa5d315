#pragma once
// UTF-8 and the character properties that tokenizers ask for, as Hugging Face `tokenizers` sees
// them.

#include <cstdint>
#include <string>
#include <string_view>

namespace kogia {

/// General categories, in the order of unicode_tables.inc.
enum class Category : std::uint8_t {
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCn,
  kCo,
  kCs
};
constexpr int kCategories = 30;

/// One code point's properties in a byte.
struct CharInfo {
  std::uint8_t bits;
  std::uint8_t category() const { return bits & 0x1F; }
  bool numeric() const { return (bits & 0x20) != 0; }      // Rust's char::is_numeric
  bool word() const { return (bits & 0x40) != 0; }         // \w of Rust's regex crate
  bool white_space() const { return (bits & 0x80) != 0; }  // White_Space
};

/// A byte that is not part of valid UTF-8 is read as the pseudo code point kInvalidByte + byte: an
/// unassigned character of length one.
constexpr char32_t kInvalidByte = 0x110000;

CharInfo char_info(char32_t c);

struct DecodedChar {
  char32_t code;
  std::uint32_t size;  // bytes taken, at least 1
};

/// The character that starts at text[pos]; pos < text.size().
DecodedChar decode_utf8(std::string_view text, std::size_t pos);
void append_utf8(std::string& out, char32_t code);
bool is_valid_utf8(std::string_view text);

/// Bytes at the end of `text` that begin a character and may still become valid with more bytes.
std::size_t unfinished_utf8(std::string_view text);
/// Replaces each maximal ill-formed part by U+FFFD, as Rust's from_utf8_lossy and the WHATWG do.
std::string to_valid_utf8(std::string_view bytes);

/// Unicode's NFC as `tokenizers` computes it, in linear time (up to a sort of adjacent marks).
/// Invalid bytes stay as they are.
std::string to_nfc(std::string_view text);

}  // namespace kogia
