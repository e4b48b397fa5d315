#pragma once
// Scratch memory of a forward pass: handed out in order, taken back all at once, kept for the next
// one.

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/index.h"
#include "tensor/view.h"

namespace kogia {

/// A bump allocator of 64-byte aligned pieces. Its memory is one range of addresses as large as the
/// machine's memory, whose pages take memory when they are first used and keep it: what it costs is
/// the most that was ever in use at once. (Where addresses are limited: ranges that double in size,
/// with what is left over at their ends.) Threads: one at a time. Contents are not initialised.
class Arena {
 public:
  /// Scratch for n values of T, valid until the next reset() or the end of a Scope begun before it.
  template <class T>
  T* allocate(Index n) {
    return static_cast<T*>(allocate_bytes(n * static_cast<Index>(sizeof(T))));
  }
  Mat matrix(Index rows, Index cols) { return {allocate<float>(rows * cols), rows, cols, cols}; }

  void reset();
  /// The most that was in use at once, from the arena's begin to now.
  Index n_bytes() const;
  /// Up to where the last allocation ends.
  Index used_bytes() const;
  /// What was in use at any time since the last reset(); whole multiples of 64 bytes.
  std::vector<std::span<std::byte>> touched() const;

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
  void add_block(Index n);
  struct Block {
    std::shared_ptr<std::byte> data;
    Index size = 0;
    Index touched = 0;  // since the last reset()
    Index most = 0;     // ever
  };
  std::vector<Block> blocks_;
  std::size_t block_ = 0;  // the block in use
  Index used_ = 0;         // bytes of it
};

}  // namespace kogia
