// Sums of products in registers: C[m,n] += Σ_k A[m,k] B[k,n] in f32, where each of C is summed by
// itself in order of k, with fused multiply-adds, from zero, and then joins what is there.
//
// Roofline: a tile of kTileRows x kTileVecs vectors takes kTileVecs loads and kTileRows broadcasts
// a step and makes kTileRows * kTileVecs multiply-adds, 24 for 11 with AVX-512 and 12 for 8 with
// AVX2, so that two loads a cycle keep two multiply-adds busy. A and B are to come from the caches.
#pragma once

#include "device/cpu/simd-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

// All registers but a few: 32 of them, or 16 with AVX2.
constexpr int kTileRows = kLanes == 8 ? 6 : 8;
constexpr int kTileVecs = kLanes == 8 ? 2 : 3;
constexpr Index kTileCols = kTileVecs * kLanes;

/// A[m,k] at a[m * row + k * step].
struct Left {
  const float* a;
  Index row, step;
};
/// B[k,n] at b[k * step + n].
struct Right {
  const float* b;
  Index step;
};

// One tile. kTileRows rows of A and kVecs vectors of B are read whatever m and n are: what is not
// wanted is not stored.
template <bool kAdd, int kVecs>
HWY_INLINE void product_tile(const Left& left, const Right& right, Index depth, float* c,
                             Index c_stride, Index m, Index n) {
  VecF32 acc[kTileRows][kVecs];
  for (auto& row : acc) {
    for (auto& sum : row) sum = hn::Zero(kF32);
  }
  if constexpr (kAdd) {  // what the sums join comes from the second-level cache meanwhile
    for (int i = 0; i < kTileRows && i < m; ++i) {
      for (int j = 0; j < kVecs; ++j) __builtin_prefetch(c + i * c_stride + j * kLanes, 1);
    }
  }
  const float *a = left.a, *b = right.b;
  for (Index k = 0; k < depth; ++k) {
    VecF32 bk[kVecs];
    for (int j = 0; j < kVecs; ++j) bk[j] = hn::LoadU(kF32, b + j * kLanes);
    for (int i = 0; i < kTileRows; ++i) {
      const auto ak = hn::Set(kF32, a[i * left.row]);
      for (int j = 0; j < kVecs; ++j) acc[i][j] = hn::MulAdd(ak, bk[j], acc[i][j]);
    }
    a += left.step;
    b += right.step;
  }
  for (int i = 0; i < kTileRows; ++i) {
    if (i >= m) break;
    float* to = c + i * c_stride;
    for (int j = 0; j < kVecs; ++j) {
      const Index here = n - j * kLanes;
      if constexpr (kAdd) acc[i][j] = hn::Add(load_n(to + j * kLanes, here), acc[i][j]);
      store_n(acc[i][j], to + j * kLanes, here);
    }
  }
}

template <bool kAdd>
void product(const Left& left, const Right& right, Index depth, float* c, Index c_stride, Index m,
             Index n) {
  if constexpr (kTileVecs == 3) {
    if (n > 2 * kLanes) return product_tile<kAdd, 3>(left, right, depth, c, c_stride, m, n);
  }
  if (n > kLanes) return product_tile<kAdd, 2>(left, right, depth, c, c_stride, m, n);
  product_tile<kAdd, 1>(left, right, depth, c, c_stride, m, n);
}

/// C[m,n] += of one tile, m <= kTileRows and n <= kTileCols.
void add_product(const Left& left, const Right& right, Index depth, float* c, Index c_stride,
                 Index m, Index n) {
  product<true>(left, right, depth, c, c_stride, m, n);
}
/// C[m,n] = of one tile.
void set_product(const Left& left, const Right& right, Index depth, float* c, Index c_stride,
                 Index m, Index n) {
  product<false>(left, right, depth, c, c_stride, m, n);
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
