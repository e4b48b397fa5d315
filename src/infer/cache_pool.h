#pragma once
// The memory of the key/value cache, in pages.

#include <cstdint>
#include <span>

#include "infer/page_pool.h"
#include "model/model.h"

namespace kogia {

/// A fixed number of pages, mapped at once and backed by memory as they are touched.
/// Threads: one at a time.
class CachePool {
 public:
  /// Room for at least `n_tokens` tokens of one sequence. Throws Error (usage) naming the bytes
  /// where the address space or memory cannot hold it.
  CachePool(const Model& model, DType cache_dtype, Index n_tokens);
  ~CachePool();
  CachePool(const CachePool&) = delete;
  CachePool& operator=(const CachePool&) = delete;

  const CacheMemory& memory() const { return memory_; }
  PagePool& pages() { return pages_; }
  Index page_bytes() const { return memory_.page_stride; }
  std::span<std::byte> page(std::int32_t page) const {
    return {memory_.base + page * memory_.page_stride,
            static_cast<std::size_t>(memory_.page_stride)};
  }

 private:
  CacheMemory memory_;
  Index mapped_bytes_ = 0;
  PagePool pages_;
};

}  // namespace kogia
