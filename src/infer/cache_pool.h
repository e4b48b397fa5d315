#pragma once
// The memory of the key/value cache, in pages.

#include <cstdint>
#include <memory>
#include <span>

#include "infer/page_pool.h"
#include "model/model.h"

namespace kogia {

/// Of some layers. Mapped at once and backed by memory as it is touched.
class PagedMemory {
 public:
  /// Layers [first_layer, first_layer + n_layers) of the model. Throws Error (usage) naming the
  /// bytes where the address space or memory cannot hold it.
  PagedMemory(const Model& model, DType cache_dtype, Index first_layer, Index n_layers,
              Index n_pages);
  ~PagedMemory();
  PagedMemory(const PagedMemory&) = delete;
  PagedMemory& operator=(const PagedMemory&) = delete;

  const CacheMemory& memory() const { return memory_; }
  std::span<std::byte> page(std::int32_t page) const {
    return {memory_.base + page * memory_.page_stride,
            static_cast<std::size_t>(memory_.page_stride)};
  }

 private:
  CacheMemory memory_;
  Index mapped_bytes_ = 0;
};

/// A fixed number of pages. Those of the main layers are what is shared, saved and restored; what
/// layers of multi-token prediction cache of the same tokens lies apart, under the same numbers.
/// Threads: one at a time.
class CachePool {
 public:
  /// Room for at least `n_tokens` tokens of one sequence. Errors as those of PagedMemory.
  CachePool(const Model& model, DType cache_dtype, Index n_tokens);

  const CacheMemory& memory() const { return main_.memory(); }
  PagePool& pages() { return pages_; }
  Index page_bytes() const { return memory().page_stride; }
  std::span<std::byte> page(std::int32_t page) const { return main_.page(page); }
  /// Null where the model has none of these layers loaded.
  const PagedMemory* mtp() const { return mtp_.get(); }

 private:
  PagePool pages_;
  PagedMemory main_;
  std::unique_ptr<PagedMemory> mtp_;
};

}  // namespace kogia
