#pragma once
// Scratch memory of a forward pass: handed out in order, taken back all at once, kept for the next
// one.

#include <cstddef>
#include <memory>
#include <vector>

#include "base/index.h"
#include "tensor/view.h"

namespace kogia {

/// A bump allocator of 64-byte aligned blocks. After the first passes have shown how much is
/// needed, reset() and the allocations that follow touch no system allocator. Threads: one at a
/// time. Contents are not initialised.
class Arena {
 public:
  /// Scratch for n values of T, valid until the next reset() or the end of a Scope begun before it.
  template <class T>
  T* allocate(Index n) {
    return static_cast<T*>(allocate_bytes(n * static_cast<Index>(sizeof(T))));
  }
  Mat matrix(Index rows, Index cols) { return {allocate<float>(rows * cols), rows, cols, cols}; }

  void reset() { block_ = 0, used_ = 0; }
  Index n_bytes() const;
  /// Of these, up to where the last allocation ends.
  Index used_bytes() const;

  /// Memory that was handed out, by block and the bytes before it there: for those who keep
  /// something beside each value.
  struct Place {
    std::size_t block = 0;
    Index offset = 0;
  };
  Place place_of(const void* p) const;
  Index block_bytes(std::size_t block) const { return blocks_[block].size; }

  /// Gives back what was allocated since it began.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() { arena_.block_ = block_, arena_.used_ = used_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t block_;
    Index used_;
  };

 private:
  void* allocate_bytes(Index n);
  struct Free {
    void operator()(std::byte* p) const;
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    Index size = 0;
  };
  std::vector<Block> blocks_;
  std::size_t block_ = 0;  // the block in use
  Index used_ = 0;         // bytes of it
};

}  // namespace kogia
