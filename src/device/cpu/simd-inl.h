// Vectors of the instruction set that this file is compiled for, and loads and stores of tails.
// Only for cpu/*_kernels.cc and the *-inl.h files that it includes; everything is static.
#pragma once

#include <hwy/highway.h>

#include "base/index.h"

namespace kogia::KOGIA_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using F32 = hn::ScalableTag<float>;
using VecF32 = hn::Vec<F32>;
constexpr F32 kF32;
inline constexpr Index kLanes = HWY_MAX_BYTES / 4;

// Lanes at and beyond `left` are zero and their memory is not touched.
HWY_INLINE VecF32 load_n(const float* p, Index left) {
  if (left >= kLanes) return hn::LoadU(kF32, p);
  return hn::LoadN(kF32, p, static_cast<size_t>(left));
}
HWY_INLINE void store_n(VecF32 v, float* p, Index left) {
  if (left >= kLanes) {
    hn::StoreU(v, kF32, p);
  } else {
    hn::StoreN(v, kF32, p, static_cast<size_t>(left));
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
