#include "infer/cache_pool.h"

#include <sys/mman.h>

#include "base/error.h"

namespace kogia {

CachePool::CachePool(const Model& model, DType cache_dtype, Index n_tokens)
    : pages_(ceil_div(n_tokens, kPageTokens)) {
  memory_.spec = model.cache_spec(cache_dtype);
  memory_.layer_stride = round_up(model.device().cache_page_bytes(memory_.spec), 64);
  memory_.page_stride = model.n_cache_layers() * memory_.layer_stride;
  const Index n_pages = pages_.n_pages();
  constexpr Index kMaxBytes = Index{1} << 46;
  void* p = MAP_FAILED;
  if (n_pages <= kMaxBytes / memory_.page_stride) {
    mapped_bytes_ = n_pages * memory_.page_stride;
    p = mmap(nullptr, static_cast<std::size_t>(mapped_bytes_), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (p == MAP_FAILED) {
    throw Error(
        ErrorCode::kUsage,
        fmt::format(
            "a cache of {} tokens needs {} pages of {} bytes, which this machine cannot map",
            n_tokens, n_pages, memory_.page_stride),
        "ask for a shorter context with --ctx");
  }
  memory_.base = static_cast<std::byte*>(p);
}

CachePool::~CachePool() {
  if (memory_.base != nullptr) munmap(memory_.base, static_cast<std::size_t>(mapped_bytes_));
}

}  // namespace kogia
