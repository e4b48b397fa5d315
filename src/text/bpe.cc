#include "text/bpe.h"

#include <algorithm>
#include <queue>
#include <random>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/unicode.h"

namespace kogia {
namespace {

// Up to this many bytes the scan for the lowest rank is faster than a heap.
constexpr std::size_t kShort = 48;

}  // namespace

std::uint64_t hash_secret() {
  static const std::uint64_t secret = [] {
    std::random_device source;
    return (static_cast<std::uint64_t>(source()) << 32 | source()) | 1;
  }();
  return secret;
}

BpeModel::BpeModel(std::vector<std::string> entries,
                   std::span<const std::pair<std::string_view, std::string_view>> merges,
                   bool ignore_merges)
    : entries_(std::move(entries)),
      by_spelling_(entries_.size()),
      by_bytes_(entries_.size()),
      merges_(merges.size()),
      ignore_merges_(ignore_merges),
      whole_(new std::atomic<std::uint8_t>[entries_.size()]()) {
  for (std::size_t id = 0; id < entries_.size(); ++id) {
    if (entries_[id].empty()) continue;
    const auto token = static_cast<TokenId>(id);
    by_spelling_.insert(entries_[id], token);
    if (const auto bytes = spelt_bytes(entries_[id])) by_bytes_.insert(*bytes, token);
  }
  for (unsigned b = 0; b < 256; ++b) {
    std::string spelt;
    append_utf8(spelt, byte_to_char(static_cast<unsigned char>(b)));
    byte_ids_[b] = by_spelling_.find(spelt);
  }
  std::string joined;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    joined.assign(left).append(right);
    const TokenId l = by_spelling_.find(left), r = by_spelling_.find(right),
                  result = by_spelling_.find(joined);
    if (l < 0 || r < 0 || result < 0) {
      throw_error(ErrorCode::kInvalid,
                  "tokenizer: merge {} is '{} {}', but '{}' is not in the vocabulary", rank, left,
                  right,
                  l < 0   ? left
                  : r < 0 ? right
                          : std::string_view(joined));
    }
    merges_.insert(l, r, {static_cast<std::uint32_t>(rank), result});
  }
}

void BpeModel::encode(std::string_view piece, std::vector<TokenId>& out) const {
  if (piece.empty()) return;
  const TokenId token = by_bytes_.find(piece);
  if (token < 0) return merge(piece, out);
  if (ignore_merges_) return out.push_back(token);

  std::atomic<std::uint8_t>& whole = whole_[static_cast<std::size_t>(token)];
  switch (whole.load(std::memory_order_relaxed)) {
    case kYes:
      return out.push_back(token);
    case kNo:
      return merge(piece, out);
    default:
      break;
  }
  const std::size_t before = out.size();
  merge(piece, out);
  const bool yes = out.size() == before + 1 && out.back() == token;
  whole.store(yes ? kYes : kNo, std::memory_order_relaxed);
}

void BpeModel::merge(std::string_view piece, std::vector<TokenId>& out) const {
  std::vector<TokenId> ids;
  ids.reserve(piece.size());
  for (const char c : piece) {
    const TokenId id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0) ids.push_back(id);
  }
  if (ids.size() <= kShort) {
    merge_short(ids);
  } else {
    merge_long(ids);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

void BpeModel::merge_short(std::vector<TokenId>& ids) const {
  // pair[i] is the merge of ids[i] and ids[i + 1].
  std::array<MergeTable::Merge, kShort> pair;
  std::size_t n = ids.size();
  for (std::size_t i = 0; i + 1 < n; ++i) pair[i] = merges_.find(ids[i], ids[i + 1]);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i) {
      if (pair[i].rank < pair[best].rank) best = i;
    }
    if (!pair[best]) break;
    ids[best] = pair[best].result;
    for (std::size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      pair[i] = pair[i + 1];
    }
    --n;
    if (best > 0) pair[best - 1] = merges_.find(ids[best - 1], ids[best]);
    if (best + 1 < n) pair[best] = merges_.find(ids[best], ids[best + 1]);
  }
  ids.resize(n);
}

void BpeModel::merge_long(std::vector<TokenId>& ids) const {
  struct Candidate {
    std::uint32_t rank;
    std::uint32_t left;  // index of the left token
    TokenId result;
    bool operator>(const Candidate& o) const {
      return rank != o.rank ? rank > o.rank : left > o.left;
    }
  };
  constexpr std::uint32_t kEnd = 0xFFFFFFFF;
  const auto n = static_cast<std::uint32_t>(ids.size());
  std::vector<std::uint32_t> next(n), previous(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1 < n ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
  }
  std::vector<Candidate> storage;
  storage.reserve(n);
  std::priority_queue queue(std::greater<Candidate>{}, std::move(storage));
  const auto offer = [&](std::uint32_t left) {
    if (left == kEnd || next[left] == kEnd) return;
    if (const auto m = merges_.find(ids[left], ids[next[left]]))
      queue.push({m.rank, left, m.result});
  };
  for (std::uint32_t i = 0; i + 1 < n; ++i) offer(i);

  constexpr TokenId kGone = -1;
  while (!queue.empty()) {
    const Candidate c = queue.top();
    queue.pop();
    if (ids[c.left] == kGone || next[c.left] == kEnd) continue;
    const std::uint32_t right = next[c.left];
    const auto now = merges_.find(ids[c.left], ids[right]);  // stale if either side has changed
    if (now.rank != c.rank || now.result != c.result) continue;
    ids[c.left] = c.result;
    ids[right] = kGone;
    next[c.left] = next[right];
    if (next[right] != kEnd) previous[next[right]] = c.left;
    offer(previous[c.left]);
    offer(c.left);
  }
  std::erase(ids, kGone);
}

}  // namespace kogia
