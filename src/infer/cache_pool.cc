#include "infer/cache_pool.h"

#include <sys/mman.h>

#include "base/error.h"

namespace kogia {

PagedMemory::PagedMemory(const Model& model, DType cache_dtype, Index first_layer, Index n_layers,
                         Index n_pages) {
  memory_.spec = model.cache_spec(cache_dtype);
  memory_.layer_stride = round_up(model.device().cache_page_bytes(memory_.spec), 64);
  memory_.page_stride = n_layers * memory_.layer_stride;
  memory_.first_layer = first_layer;
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
            n_pages * kPageTokens, n_pages, memory_.page_stride),
        "ask for a shorter context with --ctx");
  }
  memory_.base = static_cast<std::byte*>(p);
}

PagedMemory::~PagedMemory() {
  if (memory_.base != nullptr) munmap(memory_.base, static_cast<std::size_t>(mapped_bytes_));
}

CachePool::CachePool(const Model& model, DType cache_dtype, Index n_tokens)
    : pages_(ceil_div(n_tokens, kPageTokens)),
      main_(model, cache_dtype, 0, model.config().num_hidden_layers, pages_.n_pages()) {
  if (!model.has_mtp()) return;
  mtp_ = std::make_unique<PagedMemory>(model, cache_dtype, model.config().num_hidden_layers,
                                       model.n_mtp_layers(), pages_.n_pages());
}

}  // namespace kogia
