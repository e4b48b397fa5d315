#pragma once
// Which pages are in use.

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "infer/page_folder.h"
#include "infer/page_key.h"

namespace kogia {

/// What this process knows of the order of pages and of when they were used last.
///
/// A page is of use only with all pages before it, and those may have been in memory for hours
/// without a look at their files. So whatever uses a page uses those before it too: it walks
/// towards the root, as far as the first page that this minute has seen already, since then all
/// before that one have been seen too.
class PageRecency {
 public:
  /// Calls touch(key, age) for every page from `key` on whose file is to be marked. Gives the age
  /// of `key`.
  template <class Touch>
  PageAge use(const PageKey& key, const PageKey& before, std::int64_t minute, const Touch& touch) {
    if (seen_.size() > kMaxSeen) seen_.clear();  // marks are then lost, pages are not
    const auto parent = seen_.find(before);
    const Index depth = parent == seen_.end() ? 0 : parent->second.age.depth + 1;
    const auto self = seen_.try_emplace(key, Seen{before, {.minute = 0, .depth = depth}}).first;
    for (auto it = self; it != seen_.end() && it->second.age.minute != minute;
         it = seen_.find(it->second.before)) {
      it->second.age.minute = minute;
      touch(it->first, it->second.age);
    }
    return self->second.age;
  }

 private:
  static constexpr std::size_t kMaxSeen = std::size_t{1} << 20;  // some 100 bytes each
  struct Seen {
    PageKey before;
    PageAge age;
  };
  std::unordered_map<PageKey, Seen, PageKeyHash> seen_;
};

}  // namespace kogia
