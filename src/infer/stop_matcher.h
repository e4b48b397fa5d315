#pragma once
// Stop strings in text that arrives in pieces.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/index.h"

namespace kogia {

/// Looks for stop strings: what could be the beginning of one is held back until it is decided.
/// With several matches the earliest beginning wins.
///
/// An Aho-Corasick automaton (CACM 18, 1975): linear in the text whatever the strings are.
/// Errors   the constructor refuses an empty string (usage)
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& stops);
  /// Text that is safe to show. After a match stopped() is true and nothing more comes.
  std::string push(std::string_view text);
  /// The rest, at the end of the text.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  struct Node {
    std::vector<std::pair<char, std::int32_t>> next;  // few: linear search
    std::int32_t fail = 0;    // the longest proper suffix of this prefix that is a prefix itself
    Index depth = 0;          // length of this prefix
    Index longest_match = 0;  // length of the longest stop string that ends here; 0: none
  };
  std::int32_t child(std::int32_t node, char c) const;  // 0: none
  std::int32_t advance(std::int32_t node, char c) const;
  void link();

  std::vector<Node> nodes_{1};
  std::int32_t state_ = 0;
  std::string held_;        // bytes from position held_begin_ on
  Index match_begin_ = -1;  // within held_; -1: none yet
  bool stopped_ = false;
};

}  // namespace kogia
