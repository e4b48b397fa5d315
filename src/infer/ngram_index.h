#pragma once
// Where the last tokens of a text occurred in it before.

#include <cstdint>
#include <span>
#include <vector>

#include "base/index.h"
#include "text/tokenizer.h"

namespace kogia {

/// Chains of earlier places by the hash of the tokens before them, as deflate finds its matches:
/// one table for the last two tokens, one for the last six. Only the latest places are looked at,
/// so that a search costs no more in a text that says one thing a hundred thousand times.
///
/// Threads  one at a time.
class NgramIndex {
 public:
  static constexpr Index kShortest = 2, kLong = 6;
  static constexpr Index kLongest = 32;     // a match is not followed further back
  static constexpr Index kCandidates = 16;  // places looked at in a table

  struct Match {
    Index next_pos = 0;  // where the text went on then
    Index length = 0;    // tokens before it that equal the last ones; 0: none
  };

  NgramIndex() : tables_{Table(kShortest), Table(kLong)} {}
  /// The longest match of the end of `tokens`, of several the latest. `tokens` begins with those of
  /// the call before.
  Match find(std::span<const TokenId> tokens);
  /// Tokens compared since the beginning: what a search costs, for tests.
  Index n_compared() const { return n_compared_; }

 private:
  // Of n-grams that end before position p: head[hash] is the latest p, before[p] the one before it.
  struct Table {
    explicit Table(Index n_tokens) : n(n_tokens) {}
    Index n;
    std::vector<std::int32_t> head, before;
  };
  void update(Table& table, std::span<const TokenId> tokens);
  void search(const Table& table, std::span<const TokenId> tokens, Match& best);
  Index common_suffix(std::span<const TokenId> tokens, Index end);

  Table tables_[2];
  Index n_compared_ = 0;
};

}  // namespace kogia
