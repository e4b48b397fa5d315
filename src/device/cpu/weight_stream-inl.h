#pragma once
// How a kernel walks the panels of a matrix (cpu/packed.h), once per instruction set: part of
// linear_avx2.cc and linear_avx512.cc.

#include "device/cpu/packed.h"

#define KOGIA_INLINE __attribute__((always_inline))
// Loops of few steps: shifts are then constants, sums and decoded weights stay in registers. g++
// does so by itself.
#ifdef __clang__
#define KOGIA_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KOGIA_UNROLL
#endif

namespace kogia::KOGIA_ISA {
namespace {

/// A tile's weights, panel after panel, as one stream, asked for so far ahead that memory has
/// answered when they are read. Nothing beyond the tile is asked for.
class Stream {
 public:
  explicit KOGIA_INLINE inline Stream(const LinearTile& t)
      : next_(t.w->panel(t.panel_begin)), end_(t.w->panel(t.panel_end)) {
    reach(next_);
  }
  /// Asks for what lies before `at` + kAheadBytes and was not asked for.
  KOGIA_INLINE inline void reach(const std::byte* at) {
    constexpr Index kAheadBytes = 12 << 10;  // a core's share of the bandwidth × its latency
    const std::byte* until = end_ - at < kAheadBytes ? end_ : at + kAheadBytes;
    for (; next_ < until; next_ += 64) __builtin_prefetch(next_);
  }

 private:
  const std::byte *next_, *end_;
};

/// Where a panel's next group is.
struct Walk {
  const PackedView& w;
  const std::byte* record;
  Index i = 0;
  KOGIA_INLINE inline GroupAt next() {
    if (i == w.groups_per_record) i = 0, record += w.record_bytes;
    return group_at(w, record, i++);
  }
};

}  // namespace
}  // namespace kogia::KOGIA_ISA
