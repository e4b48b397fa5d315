// The gradient of causal attention, of one key head and the heads that share it:
//   p_rt = softmax_t(scale q_r · k_t);  dv_t += p_rt dout_r;  dp_rt = dout_r · v_t
//   ds_rt = p_rt (dp_rt − Σ_j p_rj dp_rj);  dq_r += Σ_t ds_rt scale k_t;  dk_t += ds_rt scale q_r
//                                                                              arXiv:2205.14135 B.2
// Head after head and kQueries rows at a time, p is made again from q and k for all keys of these
// rows, so that memory grows with the sequence and not with its square. All five products are
// tiles of product-inl.h; what a row cannot see is left out tile by tile. dk and dv grow by what
// kQueries rows give, in order.
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
constexpr Index kKeys = 192;    // columns of a block; a multiple of every tile's sides
static_assert(kKeys % kTileCols == 0 && kKeys % kTileRows == 0);

// One vector of columns of four rows: to[c][r] = from[r][c] for c < n
HWY_INLINE void transpose_four(const float* from, Index stride, Index n, float* to,
                               Index to_stride) {
  const auto r0 = load_n(from, n), r1 = load_n(from + stride, n);
  const auto r2 = load_n(from + 2 * stride, n), r3 = load_n(from + 3 * stride, n);
  // In each 128-bit block: columns 0 and 1, or 2 and 3, of two rows and then of four.
  const auto low02 = hn::InterleaveLower(kF32, r0, r2), up02 = hn::InterleaveUpper(kF32, r0, r2);
  const auto low13 = hn::InterleaveLower(kF32, r1, r3), up13 = hn::InterleaveUpper(kF32, r1, r3);
  alignas(64) float columns[4][kLanes];
  hn::Store(hn::InterleaveLower(kF32, low02, low13), kF32, columns[0]);
  hn::Store(hn::InterleaveUpper(kF32, low02, low13), kF32, columns[1]);
  hn::Store(hn::InterleaveLower(kF32, up02, up13), kF32, columns[2]);
  hn::Store(hn::InterleaveUpper(kF32, up02, up13), kF32, columns[3]);
  const auto put = [&](Index c) HWY_ATTR {
    __builtin_memcpy(to + c * to_stride, columns[c % 4] + c / 4 * 4, 16);
  };
  if (n >= kLanes) {
    for (Index c = 0; c < kLanes; ++c) put(c);
  } else {
    for (Index c = 0; c < n; ++c) put(c);
  }
}

void transpose(const float* from, Index stride, Index rows, Index cols, float* to,
               Index to_stride) {
  Index r = 0;
  for (; r + 4 <= rows; r += 4) {
    for (Index c = 0; c < cols; c += kLanes) {
      transpose_four(from + r * stride + c, stride, cols - c, to + c * to_stride + r, to_stride);
    }
  }
  for (; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * stride + c];
  }
}

// to[r][i] = factor from[r][i] for i < n, zero from there to to_stride
void scale_rows(const float* from, Index stride, Index rows, Index n, float factor, float* to,
                Index to_stride) {
  const auto f = hn::Set(kF32, factor);
  for (Index r = 0; r < rows; ++r) {
    Index i = 0;
    for (; i < n; i += kLanes) {
      hn::StoreU(hn::Mul(f, load_n(from + r * stride + i, n - i)), kF32, to + r * to_stride + i);
    }
    for (; i < to_stride; i += kLanes) hn::StoreU(hn::Zero(kF32), kF32, to + r * to_stride + i);
  }
}

// Pointers into scratch, and how much of it is needed (where there is none yet).
struct VjpScratch {
  VjpScratch(const AttentionVjpHead& a, float* memory) {
    n_blocks = ceil_div(a.n_rows, kKeys);
    k_pad = round_up(a.k_dim, kTileCols), v_pad = round_up(a.v_dim, kTileCols);
    const auto take = [&](Index n) {
      float* begin = memory == nullptr ? nullptr : memory + n_floats;
      n_floats += round_up(n, 16);
      return begin;
    };
    k_t = take(n_blocks * a.k_dim * kKeys);
    v_t = a.v == a.k ? k_t : take(n_blocks * a.v_dim * kKeys);
    v_block = (a.v == a.k ? a.k_dim : a.v_dim) * kKeys;
    k_rows = take(n_blocks * kKeys * k_pad);
    // Tiles may read kTileRows − 1 rows beyond the last: within what follows.
    q = take(kQueries * k_pad);
    dout = take(kQueries * v_pad);
    p_block = take(n_blocks * kQueries * kKeys);
    dp_block = take(n_blocks * kQueries * kKeys);
    take(kTileRows * kKeys);
  }
  float* p_of(Index block) const { return p_block + block * kQueries * kKeys; }
  float* dp_of(Index block) const { return dp_block + block * kQueries * kKeys; }

  Index n_blocks, k_pad, v_pad, v_block, n_floats = 0;
  float *k_t, *v_t;           // [block][channel][kKeys]
  float* k_rows;              // scale k: [column tile][key][kTileCols], zero beyond k_dim
  float *q, *dout;            // scale q and dout of these rows: [kQueries][pad], zero beyond
  float *p_block, *dp_block;  // [block][kQueries][kKeys]
};

Index attention_vjp_floats(const AttentionVjpHead& head) {
  return VjpScratch(head, nullptr).n_floats;
}

/// Some rows of one head: [first, first + n) of the sequence.
struct QueryRows {
  Index head, first, n;
  Index end() const { return first + n; }  // keys from here on are seen by none
};

Index least(Index a, Index b) { return a < b ? a : b; }

// scores[q][t] = x[q] · y[t] for the rows q and the keys that any of a tile's rows sees
void score_tiles(const QueryRows& rows, const float* x, Index x_stride, Index depth,
                 const float* y_t, Index y_block, float* scores) {
  for (Index key = 0; key < rows.end(); key += kTileCols) {
    const Index block = key / kKeys, t = key % kKeys;
    const Right right = {.b = y_t + block * y_block + t, .step = kKeys};
    float* to = scores + block * kQueries * kKeys + t;
    // Tiles of rows that all come before the key are skipped.
    Index i = key > rows.first ? (key - rows.first) / kTileRows * kTileRows : 0;
    for (; i < rows.n; i += kTileRows) {
      const Index m = least(kTileRows, rows.n - i);
      const Index n = least(kTileCols, rows.first + i + m - key);
      set_product({.a = x + i * x_stride, .row = x_stride, .step = 1}, right, depth, to + i * kKeys,
                  kKeys, m, n);
    }
  }
}

// Calls body(offset from the row's first number) for each vector of `valid` keys.
template <class Body>
HWY_INLINE void key_vectors(Index valid, const Body& body) {
  for (Index begin = 0; begin < valid; begin += kKeys) {
    const Index n = least(kKeys, valid - begin), at = begin * kQueries;
    for (Index i = 0; i < n; i += kLanes) body(at + i);
  }
}

/// scores -> exp(scores − max), which is p but for the factor that is returned, and dp -> ds of one
/// row that sees `valid` keys. Both are zero in those that follow as far as a tile's rows reach.
float softmax_vjp_row(float* p, float* dp, Index valid, Index n_keys) {
  const Index last = valid - 1, tail = last / kLanes * kLanes;
  const auto offset = [](Index t) { return t / kKeys * kQueries * kKeys + t % kKeys; };
  {
    const auto here = hn::FirstN(kF32, static_cast<size_t>(valid - tail));
    float *p_tail = p + offset(tail), *dp_tail = dp + offset(tail);
    const auto minus_inf = hn::Neg(hn::Inf(kF32));
    hn::StoreU(hn::IfThenElse(here, hn::LoadU(kF32, p_tail), minus_inf), kF32, p_tail);
    hn::StoreU(hn::IfThenElseZero(here, hn::LoadU(kF32, dp_tail)), kF32, dp_tail);
  }
  auto top = hn::Neg(hn::Inf(kF32));
  key_vectors(valid, [&](Index at) HWY_ATTR { top = hn::Max(top, hn::LoadU(kF32, p + at)); });
  const auto max = hn::Set(kF32, hn::ReduceMax(kF32, top));

  auto sum = hn::Zero(kF32), dot = hn::Zero(kF32);
  key_vectors(valid, [&](Index at) HWY_ATTR {
    const auto e = exp(hn::Sub(hn::LoadU(kF32, p + at), max));
    hn::StoreU(e, kF32, p + at);
    sum = hn::Add(sum, e);
    dot = hn::MulAdd(e, hn::LoadU(kF32, dp + at), dot);
  });
  const float inverse = 1 / hn::ReduceSum(kF32, sum);
  const auto mean = hn::Set(kF32, hn::ReduceSum(kF32, dot) * inverse);
  const auto v_inverse = hn::Set(kF32, inverse);
  key_vectors(valid, [&](Index at) HWY_ATTR {
    const auto weight = hn::Mul(hn::LoadU(kF32, p + at), v_inverse);
    hn::StoreU(hn::Mul(weight, hn::Sub(hn::LoadU(kF32, dp + at), mean)), kF32, dp + at);
  });
  for (Index t = tail + kLanes; t < least(n_keys, valid + kTileRows); t += kLanes) {
    hn::StoreU(hn::Zero(kF32), kF32, p + offset(t));
    hn::StoreU(hn::Zero(kF32), kF32, dp + offset(t));
  }
  return inverse;
}

// to[t] += Σ_q weights[q][t] x[q] over the rows q that see any key of t's tile
void spread_tiles(const QueryRows& rows, const float* weights, const float* x, Index x_stride,
                  Index channels, float* to, Index to_stride) {
  for (Index key = 0; key < rows.end(); key += kTileRows) {
    const Index m = least(kTileRows, rows.end() - key);
    const Index skip = key > rows.first ? key - rows.first : 0;
    const float* a = weights + key / kKeys * kQueries * kKeys + skip * kKeys + key % kKeys;
    for (Index c = 0; c < channels; c += kTileCols) {
      add_product({.a = a, .row = 1, .step = kKeys},
                  {.b = x + skip * x_stride + c, .step = x_stride}, rows.n - skip,
                  to + key * to_stride + c, to_stride, m, least(kTileCols, channels - c));
    }
  }
}

// dq[q] += Σ_t ds[q][t] scale k[t], the keys of a block by themselves
void gather_tiles(const AttentionVjpHead& a, const QueryRows& rows, const VjpScratch& s) {
  float* dq = a.dq + rows.first * a.q_stride + rows.head * a.k_dim;
  for (Index block = 0; block * kKeys < rows.end(); ++block) {
    for (Index c = 0; c < a.k_dim; c += kTileCols) {
      const Right right = {.b = s.k_rows + (c * s.n_blocks + block * kTileCols) * kKeys,
                           .step = kTileCols};
      for (Index i = 0; i < rows.n; i += kTileRows) {
        const Index m = least(kTileRows, rows.n - i);
        const Index seen = rows.first + i + m - block * kKeys;  // by the last of them
        if (seen <= 0) continue;
        add_product({.a = s.dp_of(block) + i * kKeys, .row = kKeys, .step = 1}, right,
                    least(kKeys, seen), dq + i * a.q_stride + c, a.q_stride, m,
                    least(kTileCols, a.k_dim - c));
      }
    }
  }
}

void query_rows_vjp(const AttentionVjpHead& a, const QueryRows& rows, const VjpScratch& s) {
  const float* dout = a.dout + rows.first * a.dout_stride + rows.head * a.v_dim;
  scale_rows(a.q + rows.first * a.q_stride + rows.head * a.k_dim, a.q_stride, rows.n, a.k_dim,
             a.scale, s.q, s.k_pad);
  scale_rows(dout, a.dout_stride, rows.n, a.v_dim, 1, s.dout, s.v_pad);
  score_tiles(rows, s.q, s.k_pad, a.k_dim, s.k_t, a.k_dim * kKeys, s.p_block);
  score_tiles(rows, s.dout, s.v_pad, a.v_dim, s.v_t, s.v_block, s.dp_block);
  for (Index i = 0; i < rows.n; ++i) {
    const float inverse = softmax_vjp_row(s.p_block + i * kKeys, s.dp_block + i * kKeys,
                                          rows.first + i + 1, s.n_blocks * kKeys);
    // What p lacks, dout gets: it has fewer numbers.
    scale_rows(dout + i * a.dout_stride, a.dout_stride, 1, a.v_dim, inverse, s.dout + i * s.v_pad,
               s.v_pad);
  }
  spread_tiles(rows, s.p_block, s.dout, s.v_pad, a.v_dim, a.dv, a.v_stride);
  spread_tiles(rows, s.dp_block, s.q, s.k_pad, a.k_dim, a.dk, a.k_stride);
  gather_tiles(a, rows, s);
}

void attention_vjp(const AttentionVjpHead& a, float* scratch) {
  const VjpScratch s(a, scratch);
  for (Index block = 0; block < s.n_blocks; ++block) {
    const Index first = block * kKeys, n = least(kKeys, a.n_rows - first);
    transpose(a.k + first * a.k_stride, a.k_stride, n, a.k_dim, s.k_t + first * a.k_dim, kKeys);
    if (a.v == a.k) continue;
    transpose(a.v + first * a.v_stride, a.v_stride, n, a.v_dim, s.v_t + first * a.v_dim, kKeys);
  }
  for (Index c = 0; c < a.k_dim; c += kTileCols) {
    scale_rows(a.k + c, a.k_stride, a.n_rows, least(kTileCols, a.k_dim - c), a.scale,
               s.k_rows + c * s.n_blocks * kKeys, kTileCols);
  }
  for (Index head = 0; head < a.n_heads; ++head) {
    for (Index first = 0; first < a.n_rows; first += kQueries) {
      query_rows_vjp(a, {.head = head, .first = first, .n = least(kQueries, a.n_rows - first)}, s);
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
