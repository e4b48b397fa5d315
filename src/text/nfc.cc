// NFC: decompose, sort adjacent marks by combining class, compose (Unicode Standard Annex 15).
//
// utf8proc has the tables, but its own normaliser sorts marks by neighbour swaps (quadratic on a
// text of marks alone) and knows a newer Unicode than the crate inside `tokenizers`. So we sort
// ourselves, and code points that the crate does not know stand as barriers: they are starters that
// compose with nothing, hence the text on either side is normalised by itself.

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <utf8proc.h>

#include "text/unicode.h"

namespace kogia {
namespace {

#include "text/unicode_tables.inc"

bool unknown_to_nfc(char32_t c) {
  const auto* after = std::upper_bound(std::begin(kNfcUnknown), std::end(kNfcUnknown), c);
  return (after - std::begin(kNfcUnknown)) % 2 == 1;  // inside a run [first, end)
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

void decompose(char32_t c, std::vector<utf8proc_int32_t>& out) {
  std::array<utf8proc_int32_t, 8> parts;  // a canonical decomposition has at most four
  int last_boundclass = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                         parts.size(), UTF8PROC_DECOMPOSE, &last_boundclass);
  if (n < 0 || n > static_cast<utf8proc_ssize_t>(parts.size())) {
    out.push_back(static_cast<utf8proc_int32_t>(c));
  } else {
    out.insert(out.end(), parts.begin(), parts.begin() + n);
  }
}

// A stable counting sort: linear, however many marks stand together.
void sort_by_class(std::span<utf8proc_int32_t> marks) {
  std::array<std::size_t, 257> begin{};
  for (const auto c : marks) ++begin[static_cast<std::size_t>(combining_class(c)) + 1];
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  const std::vector<utf8proc_int32_t> copy(marks.begin(), marks.end());
  for (const auto c : copy) marks[begin[static_cast<std::size_t>(combining_class(c))]++] = c;
}

void sort_marks(std::span<utf8proc_int32_t> codes) {
  for (std::size_t first = 0; first < codes.size();) {
    std::size_t last = first;
    while (last < codes.size() && combining_class(codes[last]) != 0) ++last;
    if (last > first + 1) sort_by_class(codes.subspan(first, last - first));
    first = std::max(last, first + 1);
  }
}

// Appends NFC of `codes` (known to the crate, valid) and empties it.
void flush(std::vector<utf8proc_int32_t>& codes, std::string& out) {
  if (codes.empty()) return;
  sort_marks(codes);
  const auto n =
      utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  const auto kept = n < 0 ? codes.size() : static_cast<std::size_t>(n);
  for (std::size_t i = 0; i < kept; ++i) append_utf8(out, static_cast<char32_t>(codes[i]));
  codes.clear();
}

// Bytes from `pos` on that are their own NFC: characters below U+0300 (whose lead bytes are below
// 0xCC), but not the last one if a larger character follows, for that may be a mark.
std::size_t plain_run(std::string_view text, std::size_t pos) {
  std::size_t end = pos;
  while (end < text.size() && static_cast<unsigned char>(text[end]) < 0xCC) ++end;
  if (end == text.size() || end == pos) return end - pos;
  do --end;
  while (end > pos && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end - pos;
}

}  // namespace

std::string to_nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t>
      codes;  // since the last starter that composes with nothing before it
  for (std::size_t pos = 0; pos < text.size();) {
    if (const std::size_t n = plain_run(text, pos); n > 0) {
      flush(codes, out);
      out.append(text.substr(pos, n));
      pos += n;
      continue;
    }
    const DecodedChar c = decode_utf8(text, pos);
    pos += c.size;
    if (c.code >= kInvalidByte || unknown_to_nfc(c.code)) {
      flush(codes, out);
      append_utf8(out, c.code);
      continue;
    }
    if (c.code < 0x300) flush(codes, out);
    decompose(c.code, codes);
  }
  flush(codes, out);
  return out;
}

}  // namespace kogia
