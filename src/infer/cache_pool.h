#pragma once
// Pages of the key/value cache and who owns them.

#include <cstdint>
#include <memory>
#include <vector>

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
  Index n_pages() const { return n_pages_; }
  Index n_free() const { return static_cast<Index>(free_.size()); }
  Index page_bytes() const { return memory_.page_stride; }

  /// -1 when the pool is empty (an expected outcome: the caller waits or preempts).
  std::int32_t take();
  void give_back(std::int32_t page);

 private:
  CacheMemory memory_;
  Index n_pages_ = 0, mapped_bytes_ = 0;
  std::vector<std::int32_t> free_;  // a stack: the page given back last is taken first
};

}  // namespace kogia
