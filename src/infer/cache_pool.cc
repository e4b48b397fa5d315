#include "infer/cache_pool.h"

#include <sys/mman.h>

#include "base/error.h"

namespace kogia {

CachePool::CachePool(const Model& model, DType cache_dtype, Index n_tokens) {
  memory_.spec = model.cache_spec(cache_dtype);
  memory_.layer_stride = round_up(model.device().cache_page_bytes(memory_.spec), 64);
  memory_.page_stride = model.n_cache_layers() * memory_.layer_stride;
  n_pages_ = ceil_div(n_tokens, kPageTokens);
  constexpr Index kMaxBytes = Index{1} << 46;
  void* p = MAP_FAILED;
  if (n_pages_ <= kMaxBytes / memory_.page_stride) {
    mapped_bytes_ = n_pages_ * memory_.page_stride;
    p = mmap(nullptr, static_cast<std::size_t>(mapped_bytes_), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (p == MAP_FAILED) {
    throw Error(
        ErrorCode::kUsage,
        fmt::format(
            "a cache of {} tokens needs {} pages of {} bytes, which this machine cannot map",
            n_tokens, n_pages_, memory_.page_stride),
        "ask for a shorter context with --ctx");
  }
  memory_.base = static_cast<std::byte*>(p);
  free_.reserve(static_cast<std::size_t>(n_pages_));
  for (Index i = n_pages_; i-- > 0;) free_.push_back(static_cast<std::int32_t>(i));
}

CachePool::~CachePool() {
  if (memory_.base != nullptr) munmap(memory_.base, static_cast<std::size_t>(mapped_bytes_));
}

std::int32_t CachePool::take() {
  if (free_.empty()) return -1;
  const std::int32_t page = free_.back();
  free_.pop_back();
  return page;
}

void CachePool::give_back(std::int32_t page) {
  KOGIA_CHECK(page >= 0 && page < n_pages_ && n_free() < n_pages_);
  free_.push_back(page);
}

}  // namespace kogia
