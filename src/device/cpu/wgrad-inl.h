// dw[o,i] += Σ_r dy[r,o] x[r,i], block by block (product-inl.h).
//
// Roofline: 2 n cols flops a token against 4 (n + cols) bytes of it, and 8 n cols bytes of dw for
// each block, which a task's share of the second-level cache holds. So the multiply-adds are the
// bound from about 64 outputs a task on; dy and x are copied to the order in which they are
// multiplied, which costs one copy of x for the outputs of a task.
#pragma once

#include "device/cpu/gradient_table.h"
#include "device/cpu/product-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

// to[p][r][j] = from[r][p kWidth + j], zero beyond n
template <Index kWidth>
void pack_columns(const float* from, Index stride, Index rows, Index n, float* to) {
  for (Index r = 0; r < rows; ++r) {
    const float* row = from + r * stride;
    for (Index i = 0; i < n; i += kWidth) {
      float* piece = to + i * rows + r * kWidth;
      if (i + kWidth <= n) {
        __builtin_memcpy(piece, row + i, kWidth * sizeof(float));
      } else {
        for (Index j = 0; j < kWidth; ++j) piece[j] = i + j < n ? row[i + j] : 0;
      }
    }
  }
}

// db[o] += Σ_r dy[r,o], from the packed dy
void add_bias(const float* packed, Index rows, Index n, float* db) {
  for (Index o = 0; o < n; o += kTileRows) {
    float sum[kTileRows] = {};
    const float* dy = packed + o * rows;
    for (Index r = 0; r < rows; ++r) {
      for (Index j = 0; j < kTileRows; ++j) sum[j] += dy[r * kTileRows + j];
    }
    for (Index j = 0; j < kTileRows && o + j < n; ++j) db[o + j] += sum[j];
  }
}

void linear_wgrad(const WgradTile& a, float* scratch) {
  float *dy = scratch, *x = scratch + kTokenBlock * round_up(a.n, 48);
  for (Index block = 0; block < a.n_blocks; ++block) {
    const TokenBlock& tokens = a.blocks[block];
    if (tokens.n == 0) continue;
    pack_columns<kTileRows>(a.dy + tokens.begin * a.dy_stride, a.dy_stride, tokens.n, a.n, dy);
    pack_columns<kTileCols>(a.x + tokens.begin * a.x_stride, a.x_stride, tokens.n, a.cols, x);
    if (a.db != nullptr) add_bias(dy, tokens.n, a.n, a.db);
    // A panel of x stays in the first-level cache while all of dy passes.
    for (Index i = 0; i < a.cols; i += kTileCols) {
      const Index n = a.cols - i < kTileCols ? a.cols - i : kTileCols;
      const Right right = {.b = x + i * tokens.n, .step = kTileCols};
      for (Index o = 0; o < a.n; o += kTileRows) {
        const Index m = a.n - o < kTileRows ? a.n - o : kTileRows;
        const Left left = {.a = dy + o * tokens.n, .row = 1, .step = kTileRows};
        add_product(left, right, tokens.n, a.dw + o * a.dw_stride + i, a.dw_stride, m, n);
      }
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
