#pragma once
// The syntax tree of a pre-tokenizer's pattern.

#include <memory>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace kogia {

struct RegexNode {
  enum Kind { kSet, kSequence, kAlternation, kRepeat, kAhead, kLineStart, kLineEnd };
  enum Mode { kGreedy, kLazy, kPossessive };
  Kind kind = kSequence;
  std::vector<RegexNode> children;  // of sequence, alternation, repeat (one)
  std::uint16_t set = 0;            // of set and ahead
  bool negated = false;             // of ahead
  Mode mode = kGreedy;              // of repeat, as are the bounds
  std::uint32_t min = 0, max = 0;
  bool can_be_empty() const;
};

struct ParsedRegex {
  RegexNode root;
  std::vector<CharSet> sets;
};

/// Throws Error(kUnsupported) that quotes the pattern and names what is not supported.
ParsedRegex parse_regex(std::string_view pattern);

}  // namespace kogia
