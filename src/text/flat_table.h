#pragma once
// Hash tables for vocabularies: open addressing, filled once, keyed by a per-process secret so that
// a crafted file cannot make lookups slow.

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace kogia {

/// The secret of this process. It decides where entries lie, never what a lookup returns.
std::uint64_t hash_secret();

inline std::uint64_t mix64(std::uint64_t a, std::uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t hash_bytes(std::string_view s, std::uint64_t secret) {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15ULL;
  std::uint64_t h = secret ^ s.size();
  while (s.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, s.data(), 8);
    h = mix64(h ^ word, kOdd ^ secret);
    s.remove_prefix(8);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, s.data(), s.size());
  return mix64(h ^ rest, 0xD6E8FEB86659FD93ULL ^ secret);
}

/// Strings to ids.
class StringTable {
 public:
  static constexpr std::int32_t kNone = -1;

  explicit StringTable(std::size_t expected = 0) { reserve(expected); }
  /// The first entry of a key stays; false if there was one. The table keeps its own copy of the
  /// bytes.
  bool insert(std::string_view key, std::int32_t id) {
    if ((n_ + 1) * 2 > slots_.size()) rehash(slots_.size() * 2);
    Slot& slot = slots_[find_slot(key)];
    if (slot.id != kNone) return false;
    slot = {static_cast<std::uint32_t>(bytes_.size()), static_cast<std::uint32_t>(key.size()), id};
    bytes_.insert(bytes_.end(), key.begin(), key.end());
    ++n_;
    return true;
  }
  std::int32_t find(std::string_view key) const { return slots_[find_slot(key)].id; }

 private:
  struct Slot {
    std::uint32_t begin = 0, size = 0;
    std::int32_t id = kNone;
  };
  void reserve(std::size_t expected) {
    std::size_t n = 16;
    while (n < expected * 2 + 2) n *= 2;
    slots_.assign(n, {});
  }
  std::string_view key_of(const Slot& s) const { return {bytes_.data() + s.begin, s.size}; }
  std::size_t find_slot(std::string_view key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = hash_bytes(key, secret_) & mask;
    while (slots_[i].id != kNone && key_of(slots_[i]) != key) i = (i + 1) & mask;
    return i;
  }
  void rehash(std::size_t n) {
    std::vector<Slot> old(n);
    old.swap(slots_);
    for (const Slot& s : old) {
      if (s.id != kNone) slots_[find_slot(key_of(s))] = s;
    }
  }

  std::uint64_t secret_ = hash_secret();
  std::vector<Slot> slots_;
  std::vector<char> bytes_;
  std::size_t n_ = 0;
};

/// Pairs of adjacent tokens to the merge that joins them.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = 0xFFFFFFFF;  // none
    std::int32_t result = -1;
    explicit operator bool() const { return result >= 0; }
  };

  explicit MergeTable(std::size_t expected = 0) {
    std::size_t n = 16;
    while (n < expected * 2 + 2) n *= 2;
    slots_.assign(n, {});
  }
  /// A later entry of a pair replaces the earlier. No more insertions than expected.
  void insert(std::int32_t left, std::int32_t right, Merge merge) {
    Slot& slot = slots_[find_slot(key(left, right))];
    slot = {key(left, right), merge};
  }
  Merge find(std::int32_t left, std::int32_t right) const {
    return slots_[find_slot(key(left, right))].merge;
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Merge merge;
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t find_slot(std::uint64_t k) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = mix64(k ^ secret_, 0x9E3779B97F4A7C15ULL) & mask;
    while (slots_[i].merge && slots_[i].key != k) i = (i + 1) & mask;
    return i;
  }
  std::uint64_t secret_ = hash_secret();
  std::vector<Slot> slots_;
};

}  // namespace kogia
