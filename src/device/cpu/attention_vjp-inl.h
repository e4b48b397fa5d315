// The gradient of causal attention, of one key head and the heads that share it:
//   p_rt = softmax_t(scale q_r · k_t);  dv_t += p_rt dout_r;  dp_rt = dout_r · v_t
//   ds_rt = scale p_rt (dp_rt − Σ_j p_rj dp_rj);  dq_r += Σ_t ds_rt k_t;  dk_t += ds_rt q_r
//                                                                              arXiv:2205.14135 B.2
// Head after head and kQueries rows at a time, p is made again from q and k for all keys of these
// rows, so that memory grows with the sequence and not with its square. All five products are
// tiles of product-inl.h; what a row cannot see is left out tile by tile.
//
// In scratch keys stand in blocks of kKeys columns: kT, vT and the gradients dkT, dvT as
// [block][channel][key], p and dp as [block][query][key]; so that each is what a product wants
// without being turned around again, and no two rows are a power of two apart.
//
// Roofline: 2 (3 k_dim + 2 v_dim) flops for each query and key it sees, and about 24 bytes of p and
// dp, which come from the second-level cache up to 4000 keys: multiply-adds are the bound, and
// beside them exp and its kin, about a tenth at k_dim 64.
#pragma once

#include "device/cpu/exp-inl.h"
#include "device/cpu/gradient_table.h"
#include "device/cpu/product-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

constexpr Index kQueries = 64;  // rows at a time
constexpr Index kKeys = 192;    // columns of a block; a multiple of every tile's
static_assert(kKeys % kTileCols == 0);

// to[c][r] (+)= from[r][c], four rows and a vector of columns at a time
template <bool kAdd>
void transpose(const float* from, Index stride, Index rows, Index cols, float* to,
               Index to_stride) {
  const hn::CappedTag<float, 4> four;
  const auto put = [&](const float* x, float* y) HWY_ATTR {
    const auto v = hn::LoadU(four, x);
    hn::StoreU(kAdd ? hn::Add(v, hn::LoadU(four, y)) : v, four, y);
  };
  Index r = 0;
  for (; r + 4 <= rows; r += 4) {
    const float* x = from + r * stride;
    for (Index c = 0; c < cols; c += kLanes) {
      const Index left = cols - c < kLanes ? cols - c : kLanes;
      const auto r0 = load_n(x + c, left), r1 = load_n(x + stride + c, left);
      const auto r2 = load_n(x + 2 * stride + c, left), r3 = load_n(x + 3 * stride + c, left);
      // In each 128-bit block: columns 0 and 1, then 2 and 3, of two rows and then of four.
      const auto low02 = hn::InterleaveLower(kF32, r0, r2),
                 up02 = hn::InterleaveUpper(kF32, r0, r2);
      const auto low13 = hn::InterleaveLower(kF32, r1, r3),
                 up13 = hn::InterleaveUpper(kF32, r1, r3);
      alignas(64) float columns[4][kLanes];
      hn::Store(hn::InterleaveLower(kF32, low02, low13), kF32, columns[0]);
      hn::Store(hn::InterleaveUpper(kF32, low02, low13), kF32, columns[1]);
      hn::Store(hn::InterleaveLower(kF32, up02, up13), kF32, columns[2]);
      hn::Store(hn::InterleaveUpper(kF32, up02, up13), kF32, columns[3]);
      for (Index j = 0; j < left; ++j)
        put(columns[j % 4] + j / 4 * 4, to + (c + j) * to_stride + r);
    }
  }
  for (; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) {
      float* y = to + c * to_stride + r;
      *y = kAdd ? *y + from[r * stride + c] : from[r * stride + c];
    }
  }
}

// Pointers into scratch, and how much of it there is.
struct VjpScratch {
  VjpScratch(const AttentionVjpHead& a, float* memory) {
    const bool latent = a.v == a.k;
    n_blocks = ceil_div(a.n_rows, kKeys);
    k_pad = round_up(a.k_dim, 16), v_pad = round_up(a.v_dim, 16);
    float* p = memory;
    const auto take = [&](Index n) {
      float* begin = p;
      p += n;
      return begin;
    };
    k_t = take(n_blocks * a.k_dim * kKeys);
    dk_t = take(n_blocks * a.k_dim * kKeys);
    v_block = (latent ? a.k_dim : a.v_dim) * kKeys;
    v_t = latent ? k_t : take(n_blocks * v_block);
    dv_t = latent ? dk_t : take(n_blocks * v_block);
    k_rows = take(round_up(a.k_dim, kTileCols) * n_blocks * kKeys);
    // Tiles may read kTileRows − 1 rows or channels beyond the last: within what follows.
    q = take(kQueries * k_pad);
    dout = take(kQueries * v_pad);
    p_block = take(n_blocks * kQueries * kKeys);
    dp_block = take(n_blocks * kQueries * kKeys);
    take(kTileRows * kKeys);
    n_floats = p - memory;
  }
  float* p_of(Index block) const { return p_block + block * kQueries * kKeys; }
  float* dp_of(Index block) const { return dp_block + block * kQueries * kKeys; }

  Index n_blocks, k_pad, v_pad, v_block, n_floats;
  float *k_t, *v_t, *dk_t, *dv_t;  // [block][channel][kKeys]
  float* k_rows;                   // [column tile][key][kTileCols], zero beyond k_dim
  float *q, *dout;                 // of these rows: [kQueries][k_pad], [kQueries][v_pad]
  float *p_block, *dp_block;       // [block][kQueries][kKeys]
};

Index attention_vjp_floats(const AttentionVjpHead& head) {
  return VjpScratch(head, nullptr).n_floats;
}

/// Some rows of one head: [first, first + n) of the sequence.
struct QueryRows {
  Index head, first, n;
  Index end() const { return first + n; }  // keys from here on are seen by none
};

void copy_rows(const float* from, Index stride, Index rows, Index n, float* to, Index to_stride) {
  for (Index r = 0; r < rows; ++r) {
    for (Index i = 0; i < to_stride; i += kLanes) {
      store_n(load_n(from + r * stride + i, n - i > 0 ? n - i : 0), to + r * to_stride + i, kLanes);
    }
  }
}

// Calls visit(block, first key inside it, how many) for the tiles of keys before `end`.
template <class Visit>
HWY_INLINE void key_tiles(Index end, const Visit& visit) {
  for (Index t = 0; t < end; t += kTileCols) {
    visit(t / kKeys, t % kKeys, end - t < kTileCols ? end - t : kTileCols);
  }
}

// scores[q][t] = x[q] · y[t] for the rows q and the keys that any of a tile's rows sees
void score_tiles(const QueryRows& rows, const float* x, Index x_stride, Index depth,
                 const float* y_t, Index y_block, float* scores) {
  key_tiles(rows.end(), [&](Index block, Index t, Index n) HWY_ATTR {
    const Index key = block * kKeys + t;
    // Tiles of rows that all come before the keys are skipped.
    const Index skip = key > rows.first ? (key - rows.first) / kTileRows * kTileRows : 0;
    const Right right = {.b = y_t + block * y_block + t, .step = kKeys};
    for (Index i = skip; i < rows.n; i += kTileRows) {
      const Index m = rows.n - i < kTileRows ? rows.n - i : kTileRows;
      const Left left = {.a = x + i * x_stride, .row = x_stride, .step = 1};
      float* to = scores + block * kQueries * kKeys + i * kKeys + t;
      set_product(left, right, depth, to, kKeys, m, n);
    }
  });
}

// scores -> p and dp -> ds of one row that sees `valid` keys; both are zero from there to `end`
void softmax_vjp_row(float* p_row, float* dp_row, Index valid, Index end, float scale) {
  constexpr Index kNextBlock = kQueries * kKeys;
  const auto v_scale = hn::Set(kF32, scale);
  const auto minus_inf = hn::Neg(hn::Inf(kF32));
  const auto each = [&](auto body) HWY_ATTR {
    for (Index begin = 0; begin < valid; begin += kKeys) {
      const Index n = valid - begin < kKeys ? valid - begin : kKeys;
      const Index at = begin / kKeys * kNextBlock;
      for (Index i = 0; i < n; i += kLanes) body(p_row + at + i, dp_row + at + i, n - i);
    }
  };
  auto top = minus_inf;
  each([&](float* p, float*, Index left) HWY_ATTR {
    const auto x = hn::Mul(hn::LoadU(kF32, p), v_scale);
    const auto here = hn::FirstN(kF32, static_cast<size_t>(left < kLanes ? left : kLanes));
    top = hn::Max(top, hn::IfThenElse(here, x, minus_inf));
  });
  const auto max = hn::Set(kF32, hn::ReduceMax(kF32, top));
  auto sum = hn::Zero(kF32), dot = hn::Zero(kF32);
  each([&](float* p, float* dp, Index left) HWY_ATTR {
    const auto here = hn::FirstN(kF32, static_cast<size_t>(left < kLanes ? left : kLanes));
    const auto x = hn::Mul(hn::LoadU(kF32, p), v_scale);
    const auto e = hn::IfThenElseZero(here, exp(hn::Sub(x, max)));
    hn::StoreU(e, kF32, p);
    sum = hn::Add(sum, e);
    dot = hn::MulAdd(e, hn::IfThenElseZero(here, hn::LoadU(kF32, dp)), dot);
  });
  const float inverse = 1 / hn::ReduceSum(kF32, sum);
  const auto v_inverse = hn::Set(kF32, inverse);
  const auto mean = hn::Set(kF32, hn::ReduceSum(kF32, dot) * inverse);
  each([&](float* p, float* dp, Index left) HWY_ATTR {
    const auto here = hn::FirstN(kF32, static_cast<size_t>(left < kLanes ? left : kLanes));
    const auto weight = hn::Mul(hn::LoadU(kF32, p), v_inverse);
    const auto ds = hn::Mul(hn::Mul(weight, v_scale), hn::Sub(hn::LoadU(kF32, dp), mean));
    hn::StoreU(weight, kF32, p);
    hn::StoreU(hn::IfThenElseZero(here, ds), kF32, dp);
  });
  for (Index t = valid; t < end; ++t) {
    p_row[t / kKeys * kNextBlock + t % kKeys] = 0;
    dp_row[t / kKeys * kNextBlock + t % kKeys] = 0;
  }
}

// to_t[c][t] += Σ_q weights[q][t] x[q][c] over the rows q that see a key of t's tile
void spread_tiles(const QueryRows& rows, const float* weights, const float* x, Index x_stride,
                  Index channels, float* to_t, Index to_block) {
  key_tiles(rows.end(), [&](Index block, Index t, Index n) HWY_ATTR {
    const Index key = block * kKeys + t;
    const Index skip = key > rows.first ? key - rows.first : 0;
    const float* b = weights + block * kQueries * kKeys + skip * kKeys + t;
    for (Index c = 0; c < channels; c += kTileRows) {
      const Index m = channels - c < kTileRows ? channels - c : kTileRows;
      const Left left = {.a = x + skip * x_stride + c, .row = 1, .step = x_stride};
      add_product(left, {.b = b, .step = kKeys}, rows.n - skip,
                  to_t + block * to_block + c * kKeys + t, kKeys, m, n);
    }
  });
}

// dq[q] += Σ_t ds[q][t] k[t], the keys of a block by themselves
void gather_tiles(const AttentionVjpHead& a, const QueryRows& rows, const VjpScratch& s) {
  float* dq = a.dq + rows.first * a.q_stride + rows.head * a.k_dim;
  for (Index block = 0; block * kKeys < rows.end(); ++block) {
    for (Index c = 0; c < a.k_dim; c += kTileCols) {
      const Index n = a.k_dim - c < kTileCols ? a.k_dim - c : kTileCols;
      const Right right = {.b = s.k_rows + c * s.n_blocks * kKeys + block * kKeys * kTileCols,
                           .step = kTileCols};
      for (Index i = 0; i < rows.n; i += kTileRows) {
        const Index m = rows.n - i < kTileRows ? rows.n - i : kTileRows;
        const Index seen = rows.first + i + m - block * kKeys;  // by the last of them
        if (seen <= 0) continue;
        const Left left = {.a = s.dp_of(block) + i * kKeys, .row = kKeys, .step = 1};
        add_product(left, right, seen < kKeys ? seen : kKeys, dq + i * a.q_stride + c, a.q_stride,
                    m, n);
      }
    }
  }
}

void query_rows_vjp(const AttentionVjpHead& a, const QueryRows& rows, const VjpScratch& s) {
  copy_rows(a.q + rows.first * a.q_stride + rows.head * a.k_dim, a.q_stride, rows.n, a.k_dim, s.q,
            s.k_pad);
  copy_rows(a.dout + rows.first * a.dout_stride + rows.head * a.v_dim, a.dout_stride, rows.n,
            a.v_dim, s.dout, s.v_pad);
  score_tiles(rows, s.q, s.k_pad, a.k_dim, s.k_t, a.k_dim * kKeys, s.p_block);
  score_tiles(rows, s.dout, s.v_pad, a.v_dim, s.v_t, s.v_block, s.dp_block);
  const Index end = round_up(rows.end(), kTileCols);
  for (Index i = 0; i < rows.n; ++i) {
    softmax_vjp_row(s.p_block + i * kKeys, s.dp_block + i * kKeys, rows.first + i + 1, end,
                    a.scale);
  }
  spread_tiles(rows, s.p_block, s.dout, s.v_pad, a.v_dim, s.dv_t, s.v_block);
  spread_tiles(rows, s.dp_block, s.q, s.k_pad, a.k_dim, s.dk_t, a.k_dim * kKeys);
  gather_tiles(a, rows, s);
}

void set_zero(float* p, Index n) {  // n: a multiple of kTileCols
  for (Index i = 0; i < n; i += kLanes) hn::StoreU(hn::Zero(kF32), kF32, p + i);
}

void attention_vjp(const AttentionVjpHead& a, float* scratch) {
  const VjpScratch s(a, scratch);
  const bool latent = a.v == a.k;
  for (Index block = 0; block < s.n_blocks; ++block) {
    const Index first = block * kKeys, left = a.n_rows - first, n = left < kKeys ? left : kKeys;
    transpose<false>(a.k + first * a.k_stride, a.k_stride, n, a.k_dim,
                     s.k_t + block * a.k_dim * kKeys, kKeys);
    if (!latent) {
      transpose<false>(a.v + first * a.v_stride, a.v_stride, n, a.v_dim, s.v_t + block * s.v_block,
                       kKeys);
    }
  }
  for (Index c = 0; c < a.k_dim; c += kTileCols) {
    const Index n = a.k_dim - c < kTileCols ? a.k_dim - c : kTileCols;
    copy_rows(a.k + c, a.k_stride, a.n_rows, n, s.k_rows + c * s.n_blocks * kKeys, kTileCols);
  }
  set_zero(s.dk_t, s.n_blocks * a.k_dim * kKeys);
  if (!latent) set_zero(s.dv_t, s.n_blocks * s.v_block);

  for (Index head = 0; head < a.n_heads; ++head) {
    for (Index first = 0; first < a.n_rows; first += kQueries) {
      const Index left = a.n_rows - first;
      query_rows_vjp(a, {.head = head, .first = first, .n = left < kQueries ? left : kQueries}, s);
    }
  }

  for (Index block = 0; block < s.n_blocks; ++block) {
    const Index first = block * kKeys, left = a.n_rows - first, n = left < kKeys ? left : kKeys;
    transpose<true>(s.dk_t + block * a.k_dim * kKeys, kKeys, a.k_dim, n, a.dk + first * a.k_stride,
                    a.k_stride);
    if (!latent) {
      transpose<true>(s.dv_t + block * s.v_block, kKeys, a.v_dim, n, a.dv + first * a.v_stride,
                      a.v_stride);
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
