// Attention over one tile of queries and the blocks of 64 keys it sees: for each block
//   s = scale · q K,  m = max s,  p = exp(s − m),  l = Σ p,  o = p V
// made by itself and then merged into (max, sum, out), in order of position (online softmax,
// arXiv:2205.14135): the blocks of a span into the span, the spans into one another.
//
// The order of every sum: s over channels 0, 1, …; o over keys 0, 1, …; l by lanes. Nothing depends
// on the other queries of the tile, so tiles are cut as suits the caches.
//
// Roofline: a key block of 64 tokens costs 2 (k_dim + v_dim) flops a token and query. With bf16
// pages of k_dim = v_dim = 64 that is a flop a byte and query: a decoded token of few heads is
// bound by memory, everything else by multiply-adds, so the inner loops hold 4 queries (or 8 keys)
// in registers.
#pragma once

#include <cstdint>

#ifdef __AVX512BF16__
#include "device/cpu/attention_bf16-inl.h"
#endif
#include "device/cpu/exp-inl.h"
#include "device/cpu/kernel_table.h"

namespace kogia::KOGIA_ISA {
namespace {

constexpr int kWide = kLanes == 16 ? 4 : 2;  // vectors in registers beside 4 queries
constexpr Index kGroup = 4;                  // queries in registers

HWY_INLINE VecF32 load_cached(const float* p) { return hn::LoadU(kF32, p); }
HWY_INLINE VecF32 load_cached(const std::uint16_t* p) {
  const hn::Rebind<std::uint16_t, F32> u16;
  const hn::RebindToUnsigned<F32> u32;
  return hn::BitCast(kF32, hn::ShiftLeft<16>(hn::PromoteTo(u32, hn::LoadU(u16, p))));
}

// s[i][t] = Σ_d q[i][d] keys[d][t], keys in lanes
template <int kQueries, class T>
void score_group(const float* const* q, const T* keys, Index k_dim, float* s) {
  for (Index t = 0; t < kPageTokens; t += kWide * kLanes) {
    VecF32 acc[kQueries][kWide];
    for (auto& row : acc) {
      for (auto& a : row) a = hn::Zero(kF32);
    }
    for (Index d = 0; d < k_dim; ++d) {
      VecF32 k[kWide];
      for (int j = 0; j < kWide; ++j) k[j] = load_cached(keys + d * kPageTokens + t + j * kLanes);
      for (int i = 0; i < kQueries; ++i) {
        const auto qd = hn::Set(kF32, q[i][d]);
        for (int j = 0; j < kWide; ++j) acc[i][j] = hn::MulAdd(qd, k[j], acc[i][j]);
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int j = 0; j < kWide; ++j) {
        hn::StoreU(acc[i][j], kF32, s + i * kPageTokens + t + j * kLanes);
      }
    }
  }
}

// out[i][c] += Σ_t p[i][t] values[t][c] for t in [t0, t1) and kVecs vectors of channels; t0 == 0
// begins
template <int kQueries, int kVecs, class T>
void value_group(const float* p, const T* values, Index stride, Index t0, Index t1, float* out,
                 Index out_stride) {
  VecF32 acc[kQueries][kVecs];
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVecs; ++j) {
      acc[i][j] = t0 == 0 ? hn::Zero(kF32) : hn::LoadU(kF32, out + i * out_stride + j * kLanes);
    }
  }
  for (Index t = t0; t < t1; ++t) {
    VecF32 v[kVecs];
    for (int j = 0; j < kVecs; ++j) v[j] = load_cached(values + t * stride + j * kLanes);
    for (int i = 0; i < kQueries; ++i) {
      const auto pt = hn::Set(kF32, p[i * kPageTokens + t]);
      for (int j = 0; j < kVecs; ++j) acc[i][j] = hn::MulAdd(pt, v[j], acc[i][j]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int j = 0; j < kVecs; ++j) {
      hn::StoreU(acc[i][j], kF32, out + i * out_stride + j * kLanes);
    }
  }
}

// Latent scores: queries in lanes, so that a key row serves all heads. st[t][i] = Σ_d keys[t][d]
// qt[d][i]
template <int kKeys, int kVecs>
void latent_score_group(const float* qt, Index q_pad, const float* keys, Index row, Index k_dim,
                        float* st) {
  VecF32 acc[kKeys][kVecs];
  for (auto& key : acc) {
    for (auto& a : key) a = hn::Zero(kF32);
  }
  for (Index d = 0; d < k_dim; ++d) {
    VecF32 q[kVecs];
    for (int j = 0; j < kVecs; ++j) q[j] = hn::LoadU(kF32, qt + d * q_pad + j * kLanes);
    for (int i = 0; i < kKeys; ++i) {
      const auto k = hn::Set(kF32, keys[i * row + d]);
      for (int j = 0; j < kVecs; ++j) acc[i][j] = hn::MulAdd(q[j], k, acc[i][j]);
    }
  }
  for (int i = 0; i < kKeys; ++i) {
    for (int j = 0; j < kVecs; ++j) hn::StoreU(acc[i][j], kF32, st + i * q_pad + j * kLanes);
  }
}

template <int kVecs>
void latent_score_columns(const float* qt, Index q_pad, const float* keys, Index n_keys,
                          const AttentionTile& a, float* st) {
  constexpr int kKeys = kLanes == 16 ? 8 : 4;
  for (Index t = 0; t < n_keys; t += kKeys) {
    latent_score_group<kKeys, kVecs>(qt, q_pad, keys + t * a.row, a.row, a.k_dim, st + t * q_pad);
  }
}

// The pointers into scratch of attention_blocks.
struct AttentionScratch {
  AttentionScratch(const AttentionTile& a, float* p) {
    const Index nq = round_up(a.n_queries(), 16);
    part = AttentionState::at(p, a);
    p += a.state_floats();
    scores = p, p += nq * kPageTokens;
    keys = p, p += kPageTokens * (a.latent ? a.row : a.k_dim);
    values = p, p += a.latent ? 0 : kPageTokens * a.row;
    queries_t = p, p += a.latent ? nq * a.k_dim : 0;
    scores_t = p;
  }
  AttentionState part;
  float* scores;     // [queries, 64]
  float* keys;       // one block as f32
  float* values;     // likewise
  float* queries_t;  // latent: [k_dim, queries]
  float* scores_t;   // latent: [64, queries]
};

void to_f32(const std::uint16_t* src, float* dst, Index n) {  // n: a multiple of 16
  for (Index i = 0; i < n; i += kLanes) hn::StoreU(load_cached(src + i), kF32, dst + i);
}

void transpose_queries(const AttentionTile& a, Index q_pad, float* qt) {
  const hn::RebindToSigned<F32> i32;
  for (Index i = 0; i < q_pad; i += kLanes) {
    const Index left = a.n_queries() - i < kLanes ? a.n_queries() - i : kLanes;
    alignas(64) std::int32_t at[kLanes] = {};
    for (Index j = 0; j < left; ++j) {
      const Index r = (i + j) / a.n_heads, h = (i + j) % a.n_heads;
      at[j] = static_cast<std::int32_t>(r * a.q_stride + h * a.k_dim);
    }
    const auto index = hn::Load(i32, at);
    const auto there = hn::FirstN(kF32, static_cast<size_t>(left > 0 ? left : 0));
    for (Index d = 0; d < a.k_dim; ++d) {
      const auto q = hn::IfThenElseZero(there, hn::GatherIndex(kF32, a.q + d, index));
      hn::StoreU(q, kF32, qt + d * q_pad + i);
    }
  }
}

// Of the first n_keys keys, at least.
void latent_scores(const AttentionTile& a, const float* keys, Index n_keys,
                   const AttentionScratch& s) {
  const Index q_pad = round_up(a.n_queries(), 16);
  Index i = 0;
  for (; i + 2 * kLanes <= q_pad; i += 2 * kLanes) {
    latent_score_columns<2>(s.queries_t + i, q_pad, keys, n_keys, a, s.scores_t + i);
  }
  for (; i < q_pad; i += kLanes) {
    latent_score_columns<1>(s.queries_t + i, q_pad, keys, n_keys, a, s.scores_t + i);
  }
  for (i = 0; i < a.n_queries(); ++i) {
    for (Index t = 0; t < n_keys; ++t) s.scores[i * kPageTokens + t] = s.scores_t[t * q_pad + i];
  }
}

template <class T>
void head_scores(const AttentionTile& a, const T* keys, Index first, const AttentionScratch& s) {
  const Index n = a.n_queries();
  for (Index i = first; i < n; i += kGroup) {
    const Index count = n - i < kGroup ? n - i : kGroup;
    const float* q[kGroup];
    for (Index j = 0; j < count; ++j) {
      q[j] = a.q + (i + j) / a.n_heads * a.q_stride + (i + j) % a.n_heads * a.k_dim;
    }
    float* out = s.scores + i * kPageTokens;
    switch (count) {
      case 1:
        score_group<1>(q, keys, a.k_dim, out);
        break;
      case 2:
        score_group<2>(q, keys, a.k_dim, out);
        break;
      case 3:
        score_group<3>(q, keys, a.k_dim, out);
        break;
      default:
        score_group<4>(q, keys, a.k_dim, out);
        break;
    }
  }
}

// scores[64] -> p = exp(scale s − max); what lies beyond n_valid keys is never looked at
void softmax_block(float* s, Index n_valid, float scale, float* max, float* sum) {
  constexpr Index kVecs = kPageTokens / kLanes;
  const auto v_scale = hn::Set(kF32, scale);
  VecF32 x[kVecs];
  auto top = hn::Neg(hn::Inf(kF32));
  for (Index j = 0; j < kVecs; ++j) {
    const Index left = n_valid - j * kLanes;
    const Index count = left < 0 ? 0 : left < kLanes ? left : kLanes;
    const auto valid = hn::FirstN(kF32, static_cast<size_t>(count));
    x[j] = hn::IfThenElse(valid, hn::Mul(hn::LoadU(kF32, s + j * kLanes), v_scale),
                          hn::Neg(hn::Inf(kF32)));
    top = hn::Max(top, x[j]);
  }
  *max = hn::ReduceMax(kF32, top);
  const auto v_max = hn::Set(kF32, *max);
  auto total = hn::Zero(kF32);
  for (Index j = 0; j < kVecs; ++j) {
    const auto p = exp(hn::Sub(x[j], v_max));
    hn::StoreU(p, kF32, s + j * kLanes);
    total = hn::Add(total, p);
  }
  *sum = hn::ReduceSum(kF32, total);
}

// One group of queries and one piece of channels. All take the keys that the first sees; then each
// goes on alone with the few more that causality grants to later rows.
template <int kVecs, class T>
void weigh_group(const AttentionTile& a, Index block, Index i, Index count, const T* values,
                 const AttentionScratch& s, Index channel, float* outs) {
  const Index v_pad = a.v_pad(), common = a.valid_keys(i, block);
  const float* p = s.scores + i * kPageTokens;
  float* out = outs + i * v_pad + channel;
  const T* v = values + channel;
  switch (count) {
    case 1:
      value_group<1, kVecs>(p, v, a.row, 0, common, out, v_pad);
      break;
    case 2:
      value_group<2, kVecs>(p, v, a.row, 0, common, out, v_pad);
      break;
    case 3:
      value_group<3, kVecs>(p, v, a.row, 0, common, out, v_pad);
      break;
    default:
      value_group<4, kVecs>(p, v, a.row, 0, common, out, v_pad);
      break;
  }
  for (Index j = 1; j < count; ++j) {
    const Index own = a.valid_keys(i + j, block);
    if (own == common) continue;
    value_group<1, kVecs>(p + j * kPageTokens, v, a.row, common, own, out + j * v_pad, v_pad);
  }
}

template <class T>
void weigh_values(const AttentionTile& a, Index block, Index first, const T* values,
                  const AttentionScratch& s, float* outs) {
  const Index n = a.n_queries(), v_pad = a.v_pad();
  for (Index c = 0; c < v_pad;) {
    const bool wide = c + kWide * kLanes <= v_pad;
    for (Index i = first; i < n; i += kGroup) {
      const Index count = n - i < kGroup ? n - i : kGroup;
      if (wide) {
        weigh_group<kWide>(a, block, i, count, values, s, c, outs);
      } else {
        weigh_group<1>(a, block, i, count, values, s, c, outs);
      }
    }
    c += wide ? kWide * kLanes : kLanes;
  }
}

// (max, sum, out) of queries [first, n) merged with later keys'
void merge_queries(const AttentionTile& a, Index first, const AttentionState& into,
                   const AttentionState& from) {
  const Index n = a.n_queries(), v_pad = a.v_pad();
  for (Index group = first - first % kLanes; group < n; group += kLanes) {
    const auto old_max = hn::LoadU(kF32, into.max + group);
    const auto new_max = hn::LoadU(kF32, from.max + group);
    const auto top = hn::IfThenElse(hn::Gt(old_max, new_max), old_max, new_max);
    alignas(64) float tops[kLanes], old_factor[kLanes], new_factor[kLanes];
    hn::Store(top, kF32, tops);
    hn::Store(exp(hn::Sub(old_max, top)), kF32, old_factor);
    hn::Store(exp(hn::Sub(new_max, top)), kF32, new_factor);
    const Index end = group + kLanes < n ? group + kLanes : n;
    for (Index i = group < first ? first : group; i < end; ++i) {
      const float f_old = old_factor[i - group], f_new = new_factor[i - group];
      into.max[i] = tops[i - group];
      into.sum[i] = __builtin_fmaf(into.sum[i], f_old, from.sum[i] * f_new);
      const auto v_old = hn::Set(kF32, f_old), v_new = hn::Set(kF32, f_new);
      float* out = into.out + i * v_pad;
      const float* more = from.out + i * v_pad;
      for (Index c = 0; c < v_pad; c += kLanes) {
        const auto added = hn::Mul(hn::LoadU(kF32, more + c), v_new);
        hn::StoreU(hn::MulAdd(hn::LoadU(kF32, out + c), v_old, added), kF32, out + c);
      }
    }
  }
}

template <class T>
void block_partial(const AttentionTile& a, Index block, Index first, const AttentionScratch& s,
                   const AttentionState& to) {
  const auto* page = reinterpret_cast<const T*>(a.base + a.pages[block] * a.page_stride);
  const T* values = page + a.value_begin;
  constexpr bool kIsF32 = sizeof(T) == 4;
  // Keys that some query sees, in eights as they are multiplied.
  const Index n_keys = round_up(a.valid_keys(a.n_queries() - 1, block), 8);
  // Many queries: a block is decoded once for all of them.
  const bool decode = !kIsF32 && (a.latent || a.n_queries() > 2 * kGroup);
  const float *keys_f32 = nullptr, *values_f32 = nullptr;
  if constexpr (kIsF32) {
    keys_f32 = page, values_f32 = values;
  } else if (decode) {
    to_f32(page, s.keys, a.latent ? n_keys * a.row : kPageTokens * a.k_dim);
    if (!a.latent) to_f32(values, s.values, kPageTokens * a.row);
    keys_f32 = s.keys, values_f32 = a.latent ? s.keys : s.values;
  }

  if (a.latent) {
    latent_scores(a, keys_f32, n_keys, s);
  } else if (keys_f32 != nullptr) {
    head_scores(a, keys_f32, first, s);
  } else {
    head_scores(a, page, first, s);
  }
  for (Index i = first; i < a.n_queries(); ++i) {
    softmax_block(s.scores + i * kPageTokens, a.valid_keys(i, block), a.scale, to.max + i,
                  to.sum + i);
  }
  if (values_f32 != nullptr) {
    weigh_values(a, block, first, values_f32, s, to.out);
  } else {
    weigh_values(a, block, first, values, s, to.out);
  }
}

// Of queries that see no key yet.
void set_empty(const AttentionTile& a, Index n_queries, const AttentionState& state) {
  for (Index i = 0; i < n_queries; ++i) {
    state.max[i] = -__builtin_inff();
    state.sum[i] = 0;
    float* out = state.out + i * a.v_pad();
    for (Index c = 0; c < a.v_pad(); c += kLanes) hn::StoreU(hn::Zero(kF32), kF32, out + c);
  }
}

/// Makes the first block in `state` and merges each other one, made in `part`, into it;
/// make(block, first query that sees any of it, where).
template <class Make>
HWY_INLINE void merge_blocks(const AttentionTile& a, Index begin, Index end,
                             const AttentionState& state, const AttentionState& part,
                             const Make& make) {
  set_empty(a, a.first_query(begin), state);
  make(begin, a.first_query(begin), state);
  for (Index block = begin + 1; block < end; ++block) {
    const Index first = a.first_query(block);
    make(block, first, part);
    merge_queries(a, first, state, part);
  }
}

void attention_blocks(const AttentionTile& a, Index begin, Index end, const AttentionState& state,
                      float* scratch) {
#ifdef __AVX512BF16__
  if (a.pairs) {
    const PairScratch s(a, scratch);
    round_queries(a, s);
    return merge_blocks(a, begin, end, state, s.part,
                        [&](Index block, Index first, const AttentionState& to) {
                          block_pairs(a, block, block + 1 < end ? block + 1 : block, first, s, to);
                        });
  }
#endif
  const AttentionScratch s(a, scratch);
  if (a.latent) transpose_queries(a, round_up(a.n_queries(), 16), s.queries_t);
  merge_blocks(a, begin, end, state, s.part,
               [&](Index block, Index first, const AttentionState& to) {
                 if (a.bf16) {
                   block_partial<std::uint16_t>(a, block, first, s, to);
                 } else {
                   block_partial<float>(a, block, first, s, to);
                 }
               });
}

void attention_merge(const AttentionTile& a, Index block, const AttentionState& into,
                     const AttentionState& from) {
  merge_queries(a, a.first_query(block), into, from);
}

void attention_finish(const AttentionTile& a, const AttentionState& state) {
  for (Index i = 0; i < a.n_queries(); ++i) {
    float* out = a.out + i / a.n_heads * a.out_stride + i % a.n_heads * a.v_dim;
    const float* sums = state.out + i * a.v_pad();
    const auto total = hn::Set(kF32, state.sum[i]);
    for (Index c = 0; c < a.v_dim; c += kLanes) {
      store_n(hn::Div(hn::LoadU(kF32, sums + c), total), out + c, a.v_dim - c);
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
