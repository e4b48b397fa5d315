#pragma once
// Regular expressions of pre-tokenizers: Oniguruma's meaning, linear time on any text.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace kogia {

/// A set of characters, as [...] or \p{..} writes it. An invalid byte counts as an unassigned
/// character.
class CharSet {
 public:
  void add(char32_t first, char32_t last) { ranges_.push_back({first, last}); }
  void add_categories(std::uint32_t mask) { categories_ |= mask; }
  void add_white_space(bool positive) { (positive ? white_space_ : not_white_space_) = true; }
  /// No more additions after this.
  void finish(bool negated);

  bool has(char32_t c) const {
    return c < 128 ? (ascii_[c >> 6] >> (c & 63) & 1) != 0 : has_slow(c) != negated_;
  }

 private:
  struct Range {
    char32_t first, last;
  };
  bool has_slow(char32_t c) const;

  std::uint64_t ascii_[2] = {0, 0};
  std::uint32_t categories_ = 0;
  bool white_space_ = false, not_white_space_ = false, negated_ = false;
  std::vector<Range> ranges_;  // sorted, apart
};

/// One step of the compiled matcher. Numbers a, b are targets, or the bounds of a run.
struct RegexStep {
  enum Op : std::uint8_t {
    kChar,        // one character of `set`
    kRun,         // a to b characters of `set`, as many as possible, fewer if what follows fails
    kPossessive,  // the same, never fewer
    kSplit,       // go on at a; if that fails, at b
    kJump,        // go on at a
    kAhead,       // the next character is in `set` (not: a == 0), which the end of text never is
    kLineStart,
    kLineEnd,
    kMatch,
  };
  Op op;
  std::uint16_t set = 0;
  std::uint32_t a = 0, b = 0;
};

/// A compiled pattern. The part of Oniguruma's syntax that published tokenizers use: alternation,
/// groups (plain, non-capturing, case-insensitive), classes, \p{..} of general categories, greedy,
/// lazy and possessive repetition, one-character lookahead, ^ and $ (of a line).
///
/// Matching is leftmost, first alternative first. It backtracks; when a text makes that costly, the
/// search goes on with a memory of failed states, so that time stays O(text × pattern).
/// Errors   compile throws Error(kUnsupported) that names what it cannot read
/// Threads  immutable
class Regex {
 public:
  static Regex compile(std::string_view pattern);
  /// All non-empty matches, from left to right.
  void find_all(std::string_view text, std::vector<ByteRange>& matches) const;

  static constexpr std::uint32_t kNoLimit = 0xFFFFFFFF;

 private:
  friend class RegexCompiler;
  friend class RegexSearch;
  std::vector<CharSet> sets_;
  std::vector<RegexStep> quick_;             // runs as one step
  std::vector<RegexStep> plain_;             // runs spelt out, so that a state is (step, position)
  std::vector<std::uint32_t> alternatives_;  // where each top alternative begins in quick_
  std::uint64_t first_[128] = {};  // alternatives that can begin with this ASCII character
};

}  // namespace kogia
