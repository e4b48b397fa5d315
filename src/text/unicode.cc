#include "text/unicode.h"

#include <array>
#include <vector>

namespace kogia {
namespace {

#include "text/unicode_tables.inc"

// Two stages: the block of 256 code points, then the byte inside the block. Equal blocks are
// shared.
class CharTable {
 public:
  CharTable() {
    constexpr std::size_t kBlocks = 0x110000 / 256;
    std::array<std::uint8_t, 256> block{};
    std::size_t run = 0;
    for (std::size_t b = 0; b < kBlocks; ++b) {
      for (std::size_t i = 0; i < 256; ++i) {
        const std::size_t code = b * 256 + i;
        while (run + 1 < std::size(kCharRuns) && (kCharRuns[run + 1] >> 8) <= code) ++run;
        block[i] = static_cast<std::uint8_t>(kCharRuns[run] & 0xFF);
      }
      block_[b] = find_or_add(block);
    }
  }
  std::uint8_t at(char32_t c) const { return blocks_[block_[c >> 8]][c & 0xFF]; }

 private:
  std::uint16_t find_or_add(const std::array<std::uint8_t, 256>& block) {
    for (std::size_t i = blocks_.size(); i-- > 0;) {
      if (blocks_[i] == block) return static_cast<std::uint16_t>(i);
    }
    blocks_.push_back(block);
    return static_cast<std::uint16_t>(blocks_.size() - 1);
  }
  std::array<std::uint16_t, 0x110000 / 256> block_{};
  std::vector<std::array<std::uint8_t, 256>> blocks_;
};

// Allowed range of the second byte by the first (Unicode, table 3-7); the rest are 80..BF.
struct LeadByte {
  int size;  // 0: not a lead byte
  unsigned char low, high;
};

LeadByte lead_byte(unsigned char b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// How many bytes at `pos` form a prefix of a valid character; `complete` if they are all of it.
std::size_t valid_prefix(std::string_view text, std::size_t pos, bool& complete) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const LeadByte lead = lead_byte(byte(pos));
  complete = false;
  if (lead.size == 0) return 0;
  std::size_t n = 1;
  while (n < static_cast<std::size_t>(lead.size)) {
    if (pos + n >= text.size()) return n;
    const unsigned char b = byte(pos + n);
    const unsigned char low = n == 1 ? lead.low : 0x80, high = n == 1 ? lead.high : 0xBF;
    if (b < low || b > high) return n;
    ++n;
  }
  complete = true;
  return n;
}

}  // namespace

CharInfo char_info(char32_t c) {
  static const CharTable table;
  return {c < kInvalidByte ? table.at(c) : static_cast<std::uint8_t>(Category::kCn)};
}

DecodedChar decode_utf8(std::string_view text, std::size_t pos) {
  const auto first = static_cast<unsigned char>(text[pos]);
  if (first < 0x80) return {first, 1};
  bool complete = false;
  const std::size_t n = valid_prefix(text, pos, complete);
  if (!complete) return {kInvalidByte + first, 1};
  char32_t code = first & (0xFFU >> (n + 1));
  for (std::size_t i = 1; i < n; ++i)
    code = code << 6 | (static_cast<unsigned char>(text[pos + i]) & 0x3FU);
  return {code, static_cast<std::uint32_t>(n)};
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code >= kInvalidByte) {
    put(code - kInvalidByte);
  } else if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6), put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F)), put(0x80 | (code & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (std::size_t pos = 0; pos < text.size();) {
    bool complete = false;
    const std::size_t n = valid_prefix(text, pos, complete);
    if (!complete) return false;
    pos += n;
  }
  return true;
}

std::size_t unfinished_utf8(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto b = static_cast<unsigned char>(text[text.size() - back]);
    if (b >= 0x80 && b < 0xC0) continue;  // a continuation byte: look further left for its lead
    bool complete = false;
    const std::size_t n = valid_prefix(text, text.size() - back, complete);
    return !complete && n == back ? back : 0;
  }
  return 0;
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (std::size_t pos = 0; pos < bytes.size();) {
    bool complete = false;
    const std::size_t n = valid_prefix(bytes, pos, complete);
    if (complete) {
      out.append(bytes.substr(pos, n));
    } else {
      out.append("\xEF\xBF\xBD");
    }
    pos += n == 0 ? 1 : n;
  }
  return out;
}

}  // namespace kogia
