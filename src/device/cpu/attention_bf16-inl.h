// A block of bf16 keys by the bf16 dot products of AVX-512: part of attention-inl.h.
//
// Queries and the weights p = exp(s − m) are rounded to bf16 (to nearest even); products are exact,
// sums are f32, and the sum of the weights is that of the rounded ones. Order of every sum: scores
// over pairs of channels, outputs over pairs of keys, a pair at a time; a last key without a
// partner meets a zero.
//
// Latent rows hold pairs of channels side by side, so that a pair of a key is one broadcast and the
// queries lie in lanes: scores, softmax and weights never leave that order. Where keys have tokens
// in lanes, two rows of channels are interleaved on the way in, as two rows of values always are.
#pragma once

#include <cstring>

#include <immintrin.h>

#include "device/cpu/exp-inl.h"
#include "device/cpu/kernel_table.h"

namespace kogia::KOGIA_ISA {
namespace {

constexpr Index kPairGroup = 8;  // queries in registers

HWY_INLINE __m512 dot_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
HWY_INLINE __m512i broadcast_pair(const void* p) {
  std::int32_t pair;
  std::memcpy(&pair, p, 4);
  return _mm512_set1_epi32(pair);
}
/// Lane by lane the pair (a, b), rounded.
HWY_INLINE __m512i round_pairs(__m512 a, __m512 b) {
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(b));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
HWY_INLINE __m512 low_value(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}
HWY_INLINE __m512 high_value(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000)));
}

/// Two rows of 32 numbers as pairs, and the order in which unpacking leaves the 32 of them.
struct RowPairs {
  __m512i first, second;
  HWY_INLINE RowPairs(__m512i a, __m512i b)
      : first(_mm512_unpacklo_epi16(a, b)), second(_mm512_unpackhi_epi16(a, b)) {}
};
HWY_INLINE void to_order(__m512 first, __m512 second, __m512& low, __m512& high) {
  const __m512i l = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i h = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  low = _mm512_permutex2var_ps(first, l, second);
  high = _mm512_permutex2var_ps(first, h, second);
}
HWY_INLINE void from_order(__m512 low, __m512 high, __m512& first, __m512& second) {
  const __m512i f = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
  const __m512i s = _mm512_setr_epi32(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  first = _mm512_permutex2var_ps(low, f, high);
  second = _mm512_permutex2var_ps(low, s, high);
}

/// Where a tile's rounded numbers lie. A pair is an int32.
struct PairScratch {
  PairScratch(const AttentionTile& a, float* p) {
    const Index nq = round_up(a.n_queries(), 16);
    part = AttentionState::at(p, a);
    p += a.state_floats();
    scores = p, p += nq * kPageTokens;
    weights = reinterpret_cast<std::int32_t*>(p), p += nq * kPageTokens / 2;
    queries = reinterpret_cast<std::int32_t*>(p);
    weight_step = a.latent ? nq : 1;
    weight_row = a.latent ? 1 : kPageTokens / 2;
  }
  AttentionState part;
  float* scores;                  // latent [64, queries], else [queries, 64]
  std::int32_t* weights;          // latent [32, queries], else [queries, 32]
  std::int32_t* queries;          // latent [k_dim / 2, queries], else [queries, k_dim / 2]
  Index weight_step, weight_row;  // from pair to pair, from query to query
};

void round_queries(const AttentionTile& a, const PairScratch& s) {
  const Index nq = round_up(a.n_queries(), 16), n_pairs = a.k_dim / 2;
  const Index row = a.latent ? 1 : n_pairs, step = a.latent ? nq : 1;
  for (Index i = 0; i < (a.latent ? nq : a.n_queries()); ++i) {
    const float* q = a.q + i / a.n_heads * a.q_stride + i % a.n_heads * a.k_dim;
    for (Index d = 0; d < a.k_dim; d += 16) {
      const Index left = a.k_dim - d;
      const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
      const __m512 x = i < a.n_queries() ? _mm512_maskz_loadu_ps(mask, q + d) : _mm512_setzero_ps();
      alignas(32) std::int32_t pairs[8];
      _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), (__m256i)_mm512_cvtneps_pbh(x));
      for (Index j = 0; j < (left < 16 ? left : 16) / 2; ++j) {
        s.queries[i * row + (d / 2 + j) * step] = pairs[j];
      }
    }
  }
}

// --- scores ------------------------------------------------------------------------------------

// 16 kVecs queries in lanes and 16 / kVecs keys: as many sums as hide the latency of a product. The
// keys after these are fetched meanwhile.
template <int kVecs>
void latent_pair_scores(const std::int32_t* queries, Index nq, const std::uint16_t* keys,
                        const std::uint16_t* ahead, const AttentionTile& a, float* scores) {
  constexpr Index kKeys = 16 / kVecs;
  __m512 acc[kKeys][kVecs];
  for (auto& key : acc) {
    for (auto& x : key) x = _mm512_setzero_ps();
  }
  for (Index d = 0; d < a.k_dim / 2; ++d) {
    __m512i q[kVecs];
    for (int j = 0; j < kVecs; ++j) q[j] = _mm512_loadu_si512(queries + d * nq + j * 16);
    for (Index i = 0; i < kKeys; ++i) {
      const __m512i k = broadcast_pair(keys + i * a.row + 2 * d);
      for (int j = 0; j < kVecs; ++j) acc[i][j] = dot_pairs(acc[i][j], q[j], k);
    }
    // A line of `ahead` for every 16 kVecs numbers of the keys.
    if (d % kVecs == 0) _mm_prefetch(ahead + d / kVecs * 32, _MM_HINT_T0);
  }
  for (Index i = 0; i < kKeys; ++i) {
    for (int j = 0; j < kVecs; ++j) _mm512_storeu_ps(scores + i * nq + j * 16, acc[i][j]);
  }
}

template <int kVecs>
void latent_columns(const AttentionTile& a, const std::uint16_t* keys, const std::uint16_t* next,
                    const PairScratch& s, Index i) {
  constexpr Index kKeys = 16 / kVecs;
  const Index nq = round_up(a.n_queries(), 16);
  for (Index t = 0; t < kPageTokens; t += kKeys) {
    const std::uint16_t* ahead = t + kKeys < kPageTokens ? keys + (t + kKeys) * a.row : next;
    latent_pair_scores<kVecs>(s.queries + i, nq, keys + t * a.row, ahead, a, s.scores + t * nq + i);
  }
}

void latent_block_scores(const AttentionTile& a, const std::uint16_t* keys,
                         const std::uint16_t* next, const PairScratch& s) {
  const Index nq = round_up(a.n_queries(), 16);
  Index i = 0;
  for (; i + 32 <= nq; i += 32) latent_columns<2>(a, keys, next, s, i);
  for (; i < nq; i += 16) latent_columns<1>(a, keys, next, s, i);
}

// Tokens in lanes, 32 of them.
template <int kQueries>
void head_pair_scores(const std::int32_t* queries, const std::uint16_t* keys, Index n_pairs,
                      float* scores) {
  __m512 acc[kQueries][2];
  for (auto& row : acc) row[0] = row[1] = _mm512_setzero_ps();
  for (Index d = 0; d < n_pairs; ++d) {
    const std::uint16_t* k = keys + 2 * d * kPageTokens;
    const RowPairs pairs(_mm512_loadu_si512(k), _mm512_loadu_si512(k + kPageTokens));
    for (int i = 0; i < kQueries; ++i) {
      const __m512i q = _mm512_set1_epi32(queries[i * n_pairs + d]);
      acc[i][0] = dot_pairs(acc[i][0], q, pairs.first);
      acc[i][1] = dot_pairs(acc[i][1], q, pairs.second);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    __m512 low, high;
    to_order(acc[i][0], acc[i][1], low, high);
    _mm512_storeu_ps(scores + i * kPageTokens, low);
    _mm512_storeu_ps(scores + i * kPageTokens + 16, high);
  }
}

/// Calls use.template operator()<n>() for the number of queries that a group of 8 begins with.
template <class Use>
HWY_INLINE void for_count(Index count, const Use& use) {
  switch (count) {
    case 1:
      return use.template operator()<1>();
    case 2:
      return use.template operator()<2>();
    case 3:
      return use.template operator()<3>();
    case 4:
      return use.template operator()<4>();
    case 5:
      return use.template operator()<5>();
    case 6:
      return use.template operator()<6>();
    case 7:
      return use.template operator()<7>();
    default:
      return use.template operator()<8>();
  }
}

void head_block_scores(const AttentionTile& a, const std::uint16_t* keys, Index first,
                       const PairScratch& s) {
  const Index n = a.n_queries(), n_pairs = a.k_dim / 2;
  for (Index i = first; i < n; i += kPairGroup) {
    for_count(n - i < kPairGroup ? n - i : kPairGroup, [&]<int kQueries>() {
      for (Index t = 0; t < kPageTokens; t += 32) {
        head_pair_scores<kQueries>(s.queries + i * n_pairs, keys + t, n_pairs,
                                   s.scores + i * kPageTokens + t);
      }
    });
  }
}

// --- softmax -----------------------------------------------------------------------------------

/// exp(scale · score − top), nothing for keys that are not valid.
HWY_INLINE __m512 weight_of(__mmask16 valid, __m512 score, __m512 scale, __m512 top) {
  const __m512 x = _mm512_sub_ps(_mm512_mul_ps(score, scale), top);
  return _mm512_maskz_mov_ps(valid, exp(VecF32{x}).raw);
}

/// 16 queries in lanes.
void latent_softmax(const AttentionTile& a, Index block, Index i, const PairScratch& s,
                    const AttentionState& to) {
  const Index nq = round_up(a.n_queries(), 16);
  alignas(64) std::int32_t counts[16];
  for (Index j = 0; j < 16; ++j) {
    counts[j] =
        static_cast<std::int32_t>(a.first_pos + (i + j) / a.n_heads + 1 - block * kPageTokens);
  }
  const __m512i n_valid = _mm512_load_si512(counts);
  const auto valid = [&](Index t) {
    return _mm512_cmpgt_epi32_mask(n_valid, _mm512_set1_epi32(static_cast<int>(t)));
  };
  const __m512 scale = _mm512_set1_ps(a.scale);
  const float* scores = s.scores + i;
  __m512 top = _mm512_set1_ps(-__builtin_inff());
  for (Index t = 0; t < kPageTokens; ++t) {
    const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores + t * nq), scale);
    top = _mm512_mask_max_ps(top, valid(t), top, x);
  }
  __m512 sum = _mm512_setzero_ps();
  for (Index t = 0; t < kPageTokens; t += 2) {
    const __m512 even = weight_of(valid(t), _mm512_loadu_ps(scores + t * nq), scale, top);
    const __m512 odd = weight_of(valid(t + 1), _mm512_loadu_ps(scores + (t + 1) * nq), scale, top);
    const __m512i pairs = round_pairs(even, odd);
    _mm512_storeu_si512(s.weights + t / 2 * nq + i, pairs);
    sum = _mm512_add_ps(sum, _mm512_add_ps(low_value(pairs), high_value(pairs)));
  }
  // Queries that see none of these keys keep what they have.
  const __mmask16 seeing = valid(0);
  _mm512_mask_storeu_ps(to.max + i, seeing, top);
  _mm512_mask_storeu_ps(to.sum + i, seeing, sum);
}

/// One query, tokens in lanes.
void head_softmax(const AttentionTile& a, Index n_valid, Index i, const PairScratch& s,
                  const AttentionState& to) {
  const __m512 scale = _mm512_set1_ps(a.scale);
  const float* scores = s.scores + i * kPageTokens;
  __mmask16 valid[4];
  __m512 top = _mm512_set1_ps(-__builtin_inff());
  for (Index j = 0; j < 4; ++j) {
    const Index left = n_valid - j * 16;
    valid[j] = static_cast<__mmask16>(left >= 16 ? 0xFFFF : left <= 0 ? 0 : (1 << left) - 1);
    const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(scores + j * 16), scale);
    top = _mm512_mask_max_ps(top, valid[j], top, x);
  }
  to.max[i] = _mm512_reduce_max_ps(top);
  top = _mm512_set1_ps(to.max[i]);
  __m512 sum = _mm512_setzero_ps();
  for (Index j = 0; j < 4; ++j) {
    const __m512 p = weight_of(valid[j], _mm512_loadu_ps(scores + j * 16), scale, top);
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(p);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(s.weights + i * s.weight_row + j * 8), rounded);
    sum = _mm512_add_ps(sum, low_value(_mm512_cvtepu16_epi32(rounded)));
  }
  to.sum[i] = _mm512_reduce_add_ps(sum);
}

// --- values ------------------------------------------------------------------------------------

/// The keys [begin, end) of a block, begin even, and 32 channels (16 where mask says so).
struct ValueRange {
  const std::uint16_t* values;
  Index row, begin, end;
  __mmask32 mask;
};

// out[i][c] += Σ_t p[i][t] values[t][c]; begin == 0 begins.
template <int kQueries>
void add_value_pairs(const ValueRange& v, const std::int32_t* weights, const PairScratch& s,
                     float* out, Index out_stride) {
  const bool wide = v.mask == 0xFFFFFFFF;
  __m512 acc[kQueries][2];
  for (int i = 0; i < kQueries; ++i) {
    acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    if (v.begin == 0) continue;
    const float* from = out + i * out_stride;
    const __m512 high = wide ? _mm512_loadu_ps(from + 16) : _mm512_setzero_ps();
    from_order(_mm512_loadu_ps(from), high, acc[i][0], acc[i][1]);
  }
  for (Index t = v.begin; t < v.end; t += 2) {
    const std::uint16_t* at = v.values + t * v.row;
    const __m512i even = _mm512_maskz_loadu_epi16(v.mask, at);
    const __m512i odd =
        t + 1 < v.end ? _mm512_maskz_loadu_epi16(v.mask, at + v.row) : _mm512_setzero_si512();
    const RowPairs pairs(even, odd);
    for (int i = 0; i < kQueries; ++i) {
      const __m512i p = _mm512_set1_epi32(weights[i * s.weight_row + t / 2 * s.weight_step]);
      acc[i][0] = dot_pairs(acc[i][0], p, pairs.first);
      acc[i][1] = dot_pairs(acc[i][1], p, pairs.second);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    __m512 low, high;
    to_order(acc[i][0], acc[i][1], low, high);
    _mm512_storeu_ps(out + i * out_stride, low);
    if (wide) _mm512_storeu_ps(out + i * out_stride + 16, high);
  }
}

// Of a group of queries: together the pairs that all see, then each its own.
void weigh_pairs(const AttentionTile& a, Index block, Index i, Index count, ValueRange v,
                 const PairScratch& s, Index channel, float* outs) {
  const Index v_pad = a.v_pad(), least = a.valid_keys(i, block);
  const Index common = a.valid_keys(i + count - 1, block) == least ? least : least & ~Index{1};
  float* out = outs + i * v_pad + channel;
  const std::int32_t* weights = s.weights + i * s.weight_row;
  v.begin = 0, v.end = common;
  for_count(count, [&]<int kQueries>() { add_value_pairs<kQueries>(v, weights, s, out, v_pad); });
  for (Index j = 0; j < count; ++j) {
    v.begin = common, v.end = a.valid_keys(i + j, block);
    if (v.begin >= v.end) continue;
    add_value_pairs<1>(v, weights + j * s.weight_row, s, out + j * v_pad, v_pad);
  }
}

void weigh_block_pairs(const AttentionTile& a, Index block, Index first,
                       const std::uint16_t* values, const PairScratch& s, float* outs) {
  const Index n = a.n_queries(), v_pad = a.v_pad();
  for (Index c = 0; c < v_pad; c += 32) {
    const __mmask32 mask = c + 32 <= v_pad ? 0xFFFFFFFF : 0xFFFF;
    const ValueRange range = {
        .values = values + c, .row = a.row, .begin = 0, .end = 0, .mask = mask};
    for (Index i = first; i < n; i += kPairGroup) {
      weigh_pairs(a, block, i, n - i < kPairGroup ? n - i : kPairGroup, range, s, c, outs);
    }
  }
}

/// A block by itself, for queries from `first` on; `next` comes after it and is fetched meanwhile.
void block_pairs(const AttentionTile& a, Index block, Index next, Index first, const PairScratch& s,
                 const AttentionState& to) {
  const auto page = [&a](Index b) {
    return reinterpret_cast<const std::uint16_t*>(a.base + a.pages[b] * a.page_stride);
  };
  if (a.latent) {
    latent_block_scores(a, page(block), page(next), s);
    for (Index i = first & ~Index{15}; i < a.n_queries(); i += 16) {
      latent_softmax(a, block, i, s, to);
    }
  } else {
    head_block_scores(a, page(block), first, s);
    for (Index i = first; i < a.n_queries(); ++i) {
      head_softmax(a, a.valid_keys(i, block), i, s, to);
    }
  }
  weigh_block_pairs(a, block, first, page(block) + a.value_begin, s, to.out);
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
