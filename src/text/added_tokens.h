#pragma once
// Tokens that are read in the text before anything is split: control tokens and what a tokenizer's
// author added by hand.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"
#include "text/tokenizer.h"

namespace kogia {

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for in the normalised text, after the others
  bool special = false;
};

/// In the order of the text. As in `tokenizers`, a token that begins in the white space which the
/// one before took along counts from its own bytes on, so ranges may overlap and even step back.
struct FoundToken {
  ByteRange range;  // with the white space it takes along
  TokenId id;
};

/// Longest of the leftmost matches, as `tokenizers` finds them. Time O(text × longest token), which
/// is bounded by kMaxLength.
class AddedTokenMatcher {
 public:
  static constexpr std::size_t kMaxLength = 512;  // bytes of a token

  /// `pattern` is the content, normalised where the token says so. Throws if it is longer than
  /// allowed.
  void add(const AddedToken& token, std::string_view pattern);
  bool empty() const { return tokens_.empty(); }
  /// Matches inside [inside.begin, inside.end). Beyond, the text is only looked at: for
  /// single_word, and for the strips, which take white space back to `free_from` at most.
  void find(std::string_view text, ByteRange inside, std::size_t free_from,
            std::vector<FoundToken>& found) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;
    std::int32_t token = -1;  // index of tokens_
  };
  std::uint32_t child(std::uint32_t node, unsigned char byte) const;  // 0: none
  std::size_t longest(std::string_view text, std::size_t pos, std::int32_t& token) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> first_{};
  std::vector<AddedToken> tokens_;
};

}  // namespace kogia
