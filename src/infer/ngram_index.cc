#include "infer/ngram_index.h"

#include <algorithm>
#include <utility>

namespace kogia {
namespace {

constexpr std::int32_t kNone = -1;

// Of the n tokens before `end`, below a power of two.
std::size_t hash_before(std::span<const TokenId> tokens, Index end, Index n, std::size_t size) {
  std::uint64_t hash = 0;
  for (Index i = end - n; i < end; ++i) {
    hash ^= static_cast<std::uint32_t>(tokens[static_cast<std::size_t>(i)]);
    hash *= 0x9E3779B97F4A7C15;
    hash ^= hash >> 29;
  }
  return static_cast<std::size_t>(hash) & (size - 1);
}

}  // namespace

// The end of the text itself is not in the tables: nothing follows it yet.
void NgramIndex::update(Table& table, std::span<const TokenId> tokens) {
  const auto size = static_cast<Index>(tokens.size());
  if (2 * tokens.size() > table.head.size()) {
    std::size_t buckets = 256;
    while (buckets < 4 * tokens.size()) buckets *= 2;
    table.head.assign(buckets, kNone);
    table.before.clear();
  }
  for (auto end = static_cast<Index>(table.before.size()); end < size; ++end) {
    std::int32_t earlier = kNone;
    if (end >= table.n) {
      earlier = std::exchange(table.head[hash_before(tokens, end, table.n, table.head.size())],
                              static_cast<std::int32_t>(end));
    }
    table.before.push_back(earlier);
  }
}

Index NgramIndex::common_suffix(std::span<const TokenId> tokens, Index end) {
  Index n = 0;
  const Index most = std::min(end, kLongest);
  const auto last = tokens.size() - 1, candidate = static_cast<std::size_t>(end) - 1;
  while (n < most && tokens[last - static_cast<std::size_t>(n)] ==
                         tokens[candidate - static_cast<std::size_t>(n)]) {
    ++n;
  }
  n_compared_ += n + 1;
  return n;
}

void NgramIndex::search(const Table& table, std::span<const TokenId> tokens, Match& best) {
  const auto size = static_cast<Index>(tokens.size());
  if (size < table.n) return;
  std::int32_t end = table.head[hash_before(tokens, size, table.n, table.head.size())];
  for (Index i = 0; i < kCandidates && end != kNone && best.length < kLongest; ++i) {
    const Index length = common_suffix(tokens, end);
    if (length >= kShortest && length > best.length) best = {.next_pos = end, .length = length};
    end = table.before[static_cast<std::size_t>(end)];
  }
}

NgramIndex::Match NgramIndex::find(std::span<const TokenId> tokens) {
  Match best;
  for (Table& table : tables_) update(table, tokens);
  search(tables_[1], tokens, best);
  if (best.length < kLong) search(tables_[0], tokens, best);
  return best;
}

}  // namespace kogia
