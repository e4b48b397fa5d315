#include "tensor/arena.h"

#include <algorithm>

#include "base/error.h"
#include "base/page_memory.h"

namespace kogia {
namespace {
constexpr Index kAlign = 64;
constexpr Index kMinBlock = Index{1} << 20;
}  // namespace

void Arena::reset() {
  block_ = 0, used_ = 0;
  for (Block& block : blocks_) block.touched = 0;
}

Index Arena::n_bytes() const {
  Index n = 0;
  for (const Block& block : blocks_) n += block.most;
  return n;
}

Index Arena::used_bytes() const {
  Index n = used_;
  for (std::size_t i = 0; i < block_ && i < blocks_.size(); ++i) n += blocks_[i].touched;
  return n;
}

std::vector<std::span<std::byte>> Arena::touched() const {
  std::vector<std::span<std::byte>> parts;
  for (const Block& block : blocks_) {
    parts.emplace_back(block.data.get(), static_cast<std::size_t>(block.touched));
  }
  return parts;
}

void Arena::add_block(Index n) {
  Block block;
  if (blocks_.empty()) {
    block.size = std::max(n, reservable_bytes());
    if (block.size > std::max(n, kMinBlock)) block.data = reserve_pages(block.size);
  }
  if (block.data == nullptr) {
    block.size = std::max(n, blocks_.empty() ? kMinBlock : 2 * blocks_.back().size);
    block.data = allocate_pages(block.size);
  }
  blocks_.push_back(std::move(block));
}

void* Arena::allocate_bytes(Index n) {
  n = round_up(std::max<Index>(n, 1), kAlign);
  while (block_ < blocks_.size() && used_ + n > blocks_[block_].size) ++block_, used_ = 0;
  if (block_ == blocks_.size()) add_block(n), used_ = 0;
  Block& block = blocks_[block_];
  void* p = block.data.get() + used_;
  used_ += n;
  block.touched = std::max(block.touched, used_);
  block.most = std::max(block.most, used_);
  return p;
}

}  // namespace kogia
