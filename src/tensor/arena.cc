#include "tensor/arena.h"

#include <algorithm>
#include <functional>
#include <new>

#include "base/error.h"

namespace kogia {
namespace {
constexpr Index kAlign = 64;
constexpr Index kMinBlock = Index{1} << 20;
}  // namespace

void Arena::Free::operator()(std::byte* p) const {
  ::operator delete(p, std::align_val_t{static_cast<std::size_t>(kAlign)});
}

Index Arena::n_bytes() const {
  Index n = 0;
  for (const Block& block : blocks_) n += block.size;
  return n;
}

Index Arena::used_bytes() const {
  Index n = used_;
  for (std::size_t i = 0; i < block_ && i < blocks_.size(); ++i) n += blocks_[i].size;
  return n;
}

Arena::Place Arena::place_of(const void* p) const {
  const auto* at = static_cast<const std::byte*>(p);
  const auto holds = [&](const Block& block) {
    const std::byte* const begin = block.data.get();
    return !std::less<>()(at, begin) && std::less<>()(at, begin + block.size);
  };
  const auto block = std::find_if(blocks_.begin(), blocks_.end(), holds);
  KOGIA_CHECK(block != blocks_.end());
  return {static_cast<std::size_t>(block - blocks_.begin()), at - block->data.get()};
}

void* Arena::allocate_bytes(Index n) {
  n = round_up(std::max<Index>(n, 1), kAlign);
  while (block_ < blocks_.size() && used_ + n > blocks_[block_].size) ++block_, used_ = 0;
  if (block_ == blocks_.size()) {
    const Index last = blocks_.empty() ? kMinBlock / 2 : blocks_.back().size;
    const Index size = std::max(n, 2 * last);
    Block block;
    block.data.reset(static_cast<std::byte*>(::operator new(
        static_cast<std::size_t>(size), std::align_val_t{static_cast<std::size_t>(kAlign)})));
    block.size = size;
    blocks_.push_back(std::move(block));
    used_ = 0;
  }
  void* p = blocks_[block_].data.get() + used_;
  used_ += n;
  return p;
}

}  // namespace kogia
