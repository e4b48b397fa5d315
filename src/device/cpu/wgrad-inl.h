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

// to[r][j] = from[r][j] for j < n, zero from there to kWidth
template <Index kWidth>
void pack_panel(const float* from, Index stride, Index rows, Index n, float* to) {
  for (Index r = 0; r < rows; ++r, from += stride, to += kWidth) {
    if (n >= kWidth) {
      __builtin_memcpy(to, from, kWidth * sizeof(float));
    } else {
      for (Index j = 0; j < kWidth; ++j) to[j] = j < n ? from[j] : 0;
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

/// Numbers that will be wanted soon, asked for from memory a few cache lines at a time.
class Ahead {
 public:
  Ahead(const float* from, Index stride, Index rows, Index n, Index times)
      : from_(from), stride_(stride), rows_(rows), n_(n) {
    each_ = ceil_div(rows * ceil_div(n, kLine), times);
  }
  void fetch() {
    for (Index i = 0; i < each_ && row_ < rows_; ++i) {
      __builtin_prefetch(from_ + row_ * stride_ + column_, 0, 2);
      column_ += kLine;
      if (column_ >= n_) column_ = 0, ++row_;
    }
  }

 private:
  static constexpr Index kLine = 16;
  const float* from_;
  Index stride_, rows_, n_, each_ = 0, row_ = 0, column_ = 0;
};

void linear_wgrad(const WgradTile& a, float* scratch) {
  float *dy = scratch, *x = scratch + kTokenBlock * round_up(a.n, 48);
  const Index times = ceil_div(a.cols, kTileCols) * ceil_div(a.n, kTileRows);
  for (Index block = 0; block < a.n_blocks; ++block) {
    const TokenBlock& tokens = a.blocks[block];
    if (tokens.n == 0) continue;
    for (Index o = 0; o < a.n; o += kTileRows) {
      pack_panel<kTileRows>(a.dy + tokens.begin * a.dy_stride + o, a.dy_stride, tokens.n, a.n - o,
                            dy + o * tokens.n);
    }
    if (a.db != nullptr) add_bias(dy, tokens.n, a.n, a.db);
    const TokenBlock next = block + 1 < a.n_blocks ? a.blocks[block + 1] : TokenBlock{};
    Ahead next_x(a.x + next.begin * a.x_stride, a.x_stride, next.n, a.cols, times);
    Ahead next_dy(a.dy + next.begin * a.dy_stride, a.dy_stride, next.n, a.n, times);
    // A panel of x stays in the first-level cache while all of dy passes.
    for (Index i = 0; i < a.cols; i += kTileCols) {
      const Index n = a.cols - i < kTileCols ? a.cols - i : kTileCols;
      pack_panel<kTileCols>(a.x + tokens.begin * a.x_stride + i, a.x_stride, tokens.n, n, x);
      for (Index o = 0; o < a.n; o += kTileRows) {
        next_x.fetch();
        next_dy.fetch();
        const Index m = a.n - o < kTileRows ? a.n - o : kTileRows;
        add_product({.a = dy + o * tokens.n, .row = 1, .step = kTileRows},
                    {.b = x, .step = kTileCols}, tokens.n, a.dw + o * a.dw_stride + i, a.dw_stride,
                    m, n);
      }
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
