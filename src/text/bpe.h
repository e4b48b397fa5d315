#pragma once
// Byte pair encoding: a piece begins as one token a byte; the pair whose merge is ranked lowest is
// joined (the leftmost of equals) until no pair has a merge.             arXiv:1508.07909

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/flat_table.h"
#include "text/tokenizer.h"

namespace kogia {

/// The vocabulary entries of a byte-level tokenizer, as its file spells them (GPT-2's alphabet).
class BpeModel {
 public:
  /// entries[id] is empty for an id without one. `left right` of each merge are entries; their
  /// concatenation must be one too. Throws Error that names the merge.
  BpeModel(std::vector<std::string> entries,
           std::span<const std::pair<std::string_view, std::string_view>> merges,
           bool ignore_merges);

  /// Appends the ids of one piece, O(n log n). Bytes without an entry are left out, as `tokenizers`
  /// does when there is no unknown token.
  void encode(std::string_view piece, std::vector<TokenId>& out) const;

  const std::vector<std::string>& entries() const { return entries_; }
  TokenId find_entry(std::string_view spelt) const { return by_spelling_.find(spelt); }

 private:
  // Does merging the bytes of a token give that token? Asked of each token once, when first met.
  enum Whole : std::uint8_t { kUnasked, kYes, kNo };

  void merge(std::string_view piece, std::vector<TokenId>& out) const;
  void merge_short(std::vector<TokenId>& ids) const;
  void merge_long(std::vector<TokenId>& ids) const;

  std::vector<std::string> entries_;
  StringTable by_spelling_, by_bytes_;
  MergeTable merges_;
  std::array<TokenId, 256> byte_ids_{};
  bool ignore_merges_;
  std::unique_ptr<std::atomic<std::uint8_t>[]> whole_;
};

}  // namespace kogia
