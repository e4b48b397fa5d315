#include "text/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace kogia {
namespace {

// The character that ends at `pos`; pos > 0.
DecodedChar char_before(std::string_view text, std::size_t pos) {
  for (std::size_t back = 4; back > 1; --back) {
    if (back > pos) continue;
    const DecodedChar c = decode_utf8(text, pos - back);
    if (c.size == back) return c;
  }
  return decode_utf8(text, pos - 1);
}

bool word_before(std::string_view text, std::size_t pos) {
  return pos > 0 && char_info(char_before(text, pos).code).word();
}
bool word_at(std::string_view text, std::size_t pos) {
  return pos < text.size() && char_info(decode_utf8(text, pos).code).word();
}

std::size_t skip_space_back(std::string_view text, std::size_t pos, std::size_t limit) {
  while (pos > limit) {
    const DecodedChar c = char_before(text, pos);
    if (!char_info(c.code).white_space() || c.size > pos - limit) break;
    pos -= c.size;
  }
  return pos;
}
std::size_t skip_space(std::string_view text, std::size_t pos) {
  while (pos < text.size()) {
    const DecodedChar c = decode_utf8(text, pos);
    if (!char_info(c.code).white_space()) break;
    pos += c.size;
  }
  return pos;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty()) return;
  if (pattern.size() > kMaxLength) {
    throw_error(ErrorCode::kUnsupported,
                "tokenizer: added token {} is {} bytes long, at most {} are supported", token.id,
                pattern.size(), kMaxLength);
  }
  std::uint32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    std::uint32_t next = child(node, byte);
    if (next == 0) {
      next = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
      nodes_[node].children.emplace_back(byte, next);
    }
    node = next;
  }
  if (nodes_[node].token >= 0) return;  // of equal contents the first counts
  nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
  first_[static_cast<unsigned char>(pattern[0])] = true;
}

std::uint32_t AddedTokenMatcher::child(std::uint32_t node, unsigned char byte) const {
  for (const auto& [b, next] : nodes_[node].children) {
    if (b == byte) return next;
  }
  return 0;
}

std::size_t AddedTokenMatcher::longest(std::string_view text, std::size_t pos,
                                       std::int32_t& token) const {
  std::size_t end = pos;
  std::uint32_t node = 0;
  for (std::size_t i = pos; i < text.size(); ++i) {
    node = child(node, static_cast<unsigned char>(text[i]));
    if (node == 0) break;
    if (nodes_[node].token < 0) continue;
    token = nodes_[node].token;
    end = i + 1;
  }
  return end;
}

void AddedTokenMatcher::find(std::string_view text, ByteRange inside, std::size_t free_from,
                             std::vector<FoundToken>& found) const {
  const std::string_view window = text.substr(0, inside.end);
  std::size_t after_last = free_from;
  for (std::size_t pos = inside.begin; pos < window.size();) {
    std::int32_t index = -1;
    const std::size_t end =
        first_[static_cast<unsigned char>(window[pos])] ? longest(window, pos, index) : pos;
    if (index < 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
    const std::size_t begin = pos;
    pos = end;  // a match that is refused below is not searched again for a shorter one
    if (token.single_word && (word_before(text, begin) || word_at(text, end))) continue;
    ByteRange range{begin, end};
    if (token.lstrip) range.begin = skip_space_back(text, begin, std::min(after_last, begin));
    if (token.rstrip) range.end = skip_space(text, end);
    found.push_back({range, token.id});
    after_last = range.end;
  }
}

}  // namespace kogia
