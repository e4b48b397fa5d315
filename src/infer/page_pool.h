#pragma once
// Which pages of the cache are free, and how many hold on to each of the others.

#include <cstdint>
#include <vector>

#include "base/index.h"

namespace kogia {

/// Numbers of pages, without their memory. A page is free, or in use by one holder or more (the
/// timelines that read it), or idle: kept for later by the prefix tree alone.
/// Threads: one at a time.
class PagePool {
 public:
  explicit PagePool(Index n_pages);

  Index n_pages() const { return static_cast<Index>(pages_.size()); }
  Index n_free() const { return static_cast<Index>(free_.size()); }
  Index n_idle() const { return n_idle_; }
  Index n_holders(std::int32_t page) const { return at(page).n_holders; }
  /// How often the page was taken: another number, other contents.
  Index n_taken(std::int32_t page) const { return at(page).n_taken; }

  /// A free page with one holder; -1 when there is none (an expected outcome: the caller waits,
  /// evicts or preempts).
  std::int32_t take();
  void retain(std::int32_t page);
  void release(std::int32_t page);
  /// The tree becomes a holder, or stops being one.
  void keep(std::int32_t page);
  void unkeep(std::int32_t page);

 private:
  struct Page {
    std::int32_t n_holders = 0;
    bool kept = false;  // one of the holders is the tree
    Index n_taken = 0;
  };
  const Page& at(std::int32_t page) const;
  Page& at(std::int32_t page);
  static bool idle(const Page& page) { return page.kept && page.n_holders == 1; }

  std::vector<Page> pages_;
  std::vector<std::int32_t> free_;  // a stack: the page given back last is taken first
  Index n_idle_ = 0;
};

}  // namespace kogia
