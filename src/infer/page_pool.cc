#include "infer/page_pool.h"

#include "base/error.h"

namespace kogia {

PagePool::PagePool(Index n_pages) : pages_(static_cast<std::size_t>(n_pages)) {
  free_.reserve(pages_.size());
  for (Index i = n_pages; i-- > 0;) free_.push_back(static_cast<std::int32_t>(i));
}

const PagePool::Page& PagePool::at(std::int32_t page) const {
  KOGIA_CHECK(page >= 0 && page < n_pages());
  return pages_[static_cast<std::size_t>(page)];
}
PagePool::Page& PagePool::at(std::int32_t page) {
  return const_cast<Page&>(static_cast<const PagePool*>(this)->at(page));
}

std::int32_t PagePool::take() {
  if (free_.empty()) return -1;
  const std::int32_t page = free_.back();
  free_.pop_back();
  Page& p = at(page);
  p = {.n_holders = 1, .kept = false, .n_taken = p.n_taken + 1};
  return page;
}

void PagePool::retain(std::int32_t page) {
  Page& p = at(page);
  KOGIA_CHECK(p.n_holders > 0);
  n_idle_ -= idle(p);
  ++p.n_holders;
}

void PagePool::release(std::int32_t page) {
  Page& p = at(page);
  KOGIA_CHECK(p.n_holders > (p.kept ? 1 : 0));
  if (--p.n_holders == 0) free_.push_back(page);
  n_idle_ += idle(p);
}

void PagePool::keep(std::int32_t page) {
  Page& p = at(page);
  KOGIA_CHECK(p.n_holders > 0 && !p.kept);
  ++p.n_holders;
  p.kept = true;
}

void PagePool::unkeep(std::int32_t page) {
  Page& p = at(page);
  KOGIA_CHECK(p.kept);
  n_idle_ -= idle(p);
  p.kept = false;
  if (--p.n_holders == 0) free_.push_back(page);
}

}  // namespace kogia
