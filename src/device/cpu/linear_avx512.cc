// Matrix products with AVX-512: its bf16 dot products, and VNNI for whole numbers of 8 and 16 bits.
//
// Roofline: one row is bound by reading the weights; many rows by the dot products (64 flops each,
// 128 of bytes, 32 of an FMA). Intel begins a bf16 dot product every other cycle and two of all
// others in each, so that there 16 bits are four times as fast as whole numbers. Either way a group
// of codes is decoded into L1 once for all rows of the tile, and a block of rows × panels of sums
// stays in registers while the group's columns are walked.
//
// Order of an output's sum: group after group; within a group the columns in order (pairs of them
// for bf16, exactly for whole numbers) from zero; then acc = acc + scale · sum, and acc = acc + min
// · Σx. It does not depend on the number of rows or panels that share the registers.

#include "device/cpu/decode_avx512-inl.h"

namespace kogia::avx512 {
namespace {

constexpr Index kWholeSums = 3;  // of a group of x in whole numbers: d, d Σq, Σq

// How a group's sums are scaled; [panels][16].
struct GroupScales {
  alignas(64) float scale[4][16];
  alignas(64) float min[4][16];
};

// --- products ----------------------------------------------------------------------------------

/// What is multiplied by a tile's kernels, known when they are compiled.
template <Products kProducts, Codes kCodesOf, ScaleType kScaleOf, bool kMinOf>
struct Kind {
  static constexpr Products kBy = kProducts;
  static constexpr bool kWhole = kBy == Products::int8 || kBy == Products::int16;
  static constexpr Codes kCodes = kCodesOf;  // f32: of f32 products any, values with their scales
  static constexpr ScaleType kScale = kScaleOf;
  static constexpr bool kScaled = kScale != ScaleType::none, kMin = kMinOf;
  static constexpr Index kOfStep = kBy == Products::f32 ? 1 : kBy == Products::int8 ? 4 : 2;
};

/// What the products read of a group, in `buffer` or where the matrix keeps it.
template <class K>
KOGIA_INLINE inline const __m512i* decode(const PackedView& w, const Tables<K::kCodes>& tables,
                                          GroupAt at, __m512i* buffer) {
  if constexpr (K::kBy == Products::f32 && K::kCodes == Codes::f32) {
    return decode_values(w, at, buffer);
  } else if constexpr (K::kBy == Products::f32) {
    return decode_halves<K::kCodes>(tables, at, buffer);
  } else if constexpr (K::kBy == Products::bf16) {
    return decode_pairs<K::kCodes>(tables, at, buffer);
  } else if constexpr (K::kBy == Products::int16) {
    decode_words<K::kCodes>(at, buffer);
    return buffer;
  } else {
    decode_quads<K::kCodes>(at, buffer);
    return buffer;
  }
}

/// What the micro-kernel adds: one group, its panels decoded.
struct Group {
  const PackedView* w;
  const __m512i* weights[4];
  Index steps;  // columns, pairs or quads
  const GroupScales* scales;
};

template <Products kBy>
KOGIA_INLINE inline __m512i multiply_add(__m512i sum, __m512i w, float x) {
  const __m512 xs = _mm512_set1_ps(x), sums = _mm512_castsi512_ps(sum);
  if constexpr (kBy == Products::int8) {
    return _mm512_dpbusd_epi32(sum, w, _mm512_castps_si512(xs));
  } else if constexpr (kBy == Products::int16) {
    return _mm512_dpwssd_epi32(sum, w, _mm512_castps_si512(xs));
  } else if constexpr (kBy == Products::bf16) {
    return _mm512_castps_si512(
        _mm512_dpbf16_ps(sums, (__m512bh)w, (__m512bh)_mm512_castps_si512(xs)));
  } else {
    return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(w), xs, sums));
  }
}

/// What a group's sums of one row are scaled by besides the weights' scales: d and d Σq where
/// x = d q; else Σx, if it is needed.
template <class K>
struct RowScales {
  __m512 scale, total;
  explicit KOGIA_INLINE inline RowScales(const float* x_sum)
      : scale(_mm512_setzero_ps()), total(_mm512_setzero_ps()) {
    if constexpr (K::kWhole) {
      scale = _mm512_set1_ps(x_sum[0]);
      if constexpr (K::kMin) total = _mm512_set1_ps(x_sum[1]);
    } else if constexpr (K::kMin) {
      total = _mm512_set1_ps(x_sum[0]);
    }
  }
};

/// acc + scale · sum (+ min · Σx).
template <class K>
KOGIA_INLINE inline __m512 add_scaled(ScaleMin by, __m512i sum, const RowScales<K>& row,
                                      __m512 acc) {
  __m512 sums = _mm512_castsi512_ps(sum);
  if constexpr (K::kWhole) {
    by.scale = _mm512_mul_ps(by.scale, row.scale);
    sums = _mm512_cvtepi32_ps(sum);
  }
  acc = K::kScaled ? _mm512_fmadd_ps(sums, by.scale, acc) : _mm512_add_ps(acc, sums);
  return K::kMin ? _mm512_fmadd_ps(by.min, row.total, acc) : acc;
}

/// What a sum of products begins with: codes have no sign there (of 8 bits only as quads), so that
/// they are too large where the lowest is below zero, as it is where there is no minimum.
template <class K>
KOGIA_INLINE inline __m512i zero_sum(const PackedView& w, const float* x_sum) {
  constexpr bool kSigned = K::kBy == Products::int16 && K::kCodes == Codes::q8;
  if constexpr (!K::kWhole || K::kMin || kSigned) return _mm512_setzero_si512();
  const int lowest = K::kCodes == Codes::q8 ? -128 : w.lowest;
  return _mm512_set1_epi32(lowest * static_cast<int>(x_sum[2]));
}

/// acc[kRows][kPanels][16] += x · group.
template <class K, int kRows, int kPanels>
KOGIA_INLINE inline void micro(const Group& group, const float* x, Index x_stride,
                               const float* sums, Index sums_stride, float* acc) {
  __m512i sum[kRows][kPanels];
  for (int r = 0; r < kRows; ++r) {
    const __m512i from = zero_sum<K>(*group.w, sums + r * sums_stride);
    for (int p = 0; p < kPanels; ++p) sum[r][p] = from;
  }
  const Index steps = K::kCodes == Codes::f32 ? group.steps : group_columns(K::kCodes) / K::kOfStep;
  for (Index s = 0; s < steps; ++s) {
    __m512i w[kPanels];
    for (int p = 0; p < kPanels; ++p) w[p] = _mm512_loadu_si512(group.weights[p] + s);
    for (int r = 0; r < kRows; ++r) {
      const float xr = x[r * x_stride + s];
      for (int p = 0; p < kPanels; ++p) sum[r][p] = multiply_add<K::kBy>(sum[r][p], w[p], xr);
    }
  }
  ScaleMin by[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    by[p].scale = K::kScaled ? _mm512_load_ps(group.scales->scale[p]) : _mm512_setzero_ps();
    by[p].min = K::kMin ? _mm512_load_ps(group.scales->min[p]) : _mm512_setzero_ps();
  }
  for (int r = 0; r < kRows; ++r) {
    const RowScales<K> row(sums + r * sums_stride);
    for (int p = 0; p < kPanels; ++p) {
      float* at = acc + (r * kPanels + p) * 16;
      _mm512_store_ps(at, add_scaled<K>(by[p], sum[r][p], row, _mm512_load_ps(at)));
    }
  }
}

/// Calls use.template operator()<n>() for 1 to 8 rows.
template <class Use>
KOGIA_INLINE inline void for_rows(Index n, const Use& use) {
  switch (n) {
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

/// All rows of a tile, in blocks of 8 (24 registers of sums) or, so that none is left with too few
/// sums to hide the latency of a product, somewhat less: 9 rows are 5 and 4.
template <class K, int kPanels>
void add_group(const Group& group, const LinearTile& t, const float* x, const float* sums,
               float* acc) {
  constexpr Index kMost = kPanels < 4 ? 8 : 4;
  for (Index r = 0, blocks = ceil_div(t.rows, kMost); blocks > 0; --blocks) {
    const Index n = ceil_div(t.rows - r, blocks);
    for_rows(n, [&]<int kRows>() {
      if constexpr (kRows <= kMost) {
        micro<K, kRows, kPanels>(group, x + r * t.x_stride, t.x_stride, sums + r * t.sums_stride,
                                 t.sums_stride, acc + r * kPanels * 16);
      }
    });
    r += n;
  }
}

/// What is read kAheadBytes after [begin, begin + bytes) of each of the panels, or in those that
/// come after them. The processor's own prefetching starts anew with each panel, and panels are
/// short.
template <int kPanels>
KOGIA_INLINE inline void prefetch(const PackedView& w, Index panel, Index begin, Index bytes) {
  constexpr Index kAheadBytes = 2048;
  begin += kAheadBytes;
  if (begin >= w.panel_bytes) {
    begin -= w.panel_bytes, panel += kPanels;
    if (begin >= w.panel_bytes || panel + kPanels > w.n_panels()) return;
  }
  for (int p = 0; p < kPanels; ++p) {
    const std::byte* at = w.panel(panel + p) + begin;
    for (Index i = 0; i < bytes; i += 64) _mm_prefetch(at + i, _MM_HINT_T0);
  }
}

template <int kPanels>
void finish(const LinearTile& t, Index panel, const float* acc) {
  for (int p = 0; p < kPanels; ++p) {
    const Index out = (panel + p) * kPanelRows, left = t.w->rows - out;
    const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
    for (Index r = 0; r < t.rows; ++r) {
      __m512 y = _mm512_load_ps(acc + (r * kPanels + p) * 16);
      const Index at = r * t.y_stride + out;
      if (t.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, t.bias + out));
      if (t.residual != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, t.residual + at));
      _mm512_mask_storeu_ps(t.y + at, mask, y);
    }
  }
}

/// Column by column through groups side by side, so that no sum waits for its own last addition.
/// Group i comes i after the first, in weights and in x.
template <class K, int kGroups, int kRows>
KOGIA_INLINE inline void add_rows(const PackedView& w, const Tables<K::kCodes>& tables,
                                  const GroupAt* at, const float* x, Index x_stride,
                                  __m512i (*sum)[kGroups]) {
  constexpr int kSteps = group_columns(K::kCodes) / K::kOfStep;
  const auto add = [&](int i, int step, __m512i weights) KOGIA_INLINE {
    KOGIA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const float xr = x[r * x_stride + i * kSteps + step];
      sum[r][i] = multiply_add<K::kBy>(sum[r][i], weights, xr);
    }
  };
  if constexpr (K::kOfStep == 2 && K::kCodes < Codes::q8) {
    WordsOf<K::kCodes> words[kGroups];
    const auto add_pair = [&]<int kPair>(int k) KOGIA_INLINE {
      KOGIA_UNROLL
      for (int i = 0; i < kGroups; ++i) {
        const __m512i pair = words[i].template pair<kPair>();
        add(i, 4 * k + kPair, K::kWhole ? code_words<K::kCodes>(pair) : tables.value(pair));
      }
    };
    KOGIA_UNROLL
    for (int k = 0; k < kSteps / 4; ++k) {
      KOGIA_UNROLL
      for (int i = 0; i < kGroups; ++i) next_words<K::kCodes>(at[i], k, words[i]);
      add_pair.template operator()<0>(k);
      add_pair.template operator()<1>(k);
      add_pair.template operator()<2>(k);
      add_pair.template operator()<3>(k);
    }
  } else if constexpr (K::kBy == Products::f32) {
    KOGIA_UNROLL
    for (int k = 0; k < kSteps / 8; ++k) {
      __m512i pairs[kGroups][4], even, odd;
      KOGIA_UNROLL
      for (int i = 0; i < kGroups; ++i) next_pairs<K::kCodes>(tables, at[i], k, pairs[i]);
      KOGIA_UNROLL
      for (int p = 0; p < 4; ++p) {
        KOGIA_UNROLL
        for (int i = 0; i < kGroups; ++i) {
          split(pairs[i][p], even, odd);
          add(i, 8 * k + 2 * p, even);
          add(i, 8 * k + 2 * p + 1, odd);
        }
      }
    }
  } else {
    KOGIA_UNROLL
    for (int i = 0; i < kGroups; ++i) {
      __m512i buffer[kSteps];
      const __m512i* weights = decode<K>(w, tables, at[i], buffer);
      KOGIA_UNROLL
      for (int s = 0; s < kSteps; ++s) add(i, s, weights[s]);
    }
  }
}

/// One row, as a decoded token has, or a few, through one panel: weights go from the registers they
/// are decoded in into the products. The same sums as micro(). Some groups at a time, as one panel
/// is one stream of memory, and four panels side by side are four that a busy memory serves worse.
template <class K, int kRows>
void run_rows(const LinearTile& t, Index panel, Stream& stream) {
  constexpr Index kSteps = group_columns(K::kCodes) / K::kOfStep;
  constexpr Index kSums = K::kWhole ? kWholeSums : 1;  // of a group
  const PackedView& w = *t.w;
  const Tables<K::kCodes> tables(w);
  __m512 acc[kRows];
  for (auto& a : acc) a = _mm512_setzero_ps();
  const float *x = t.x, *sums = t.sums;
  Walk walk = {w, w.panel(panel)};
  const auto add = [&]<int kGroups>() KOGIA_INLINE {
    GroupAt at[kGroups];
    for (auto& a : at) a = walk.next();
    stream.reach(at[0].low);
    const auto sums_of = [&](int r, int i) KOGIA_INLINE {
      return sums == nullptr ? sums : sums + r * t.sums_stride + i * kSums;
    };
    __m512i sum[kRows][kGroups];
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kGroups; ++i) sum[r][i] = zero_sum<K>(w, sums_of(r, i));
    }
    add_rows<K, kGroups, kRows>(w, tables, at, x, t.x_stride, sum);
    for (int i = 0; i < kGroups; ++i) {
      const ScaleMin by = load_scales<K::kScale, K::kMin>(w, at[i]);
      for (int r = 0; r < kRows; ++r) {
        acc[r] = add_scaled<K>(by, sum[r][i], RowScales<K>(sums_of(r, i)), acc[r]);
      }
    }
    x += kGroups * kSteps;
    if (sums != nullptr) sums += kGroups * kSums;
  };
  constexpr int kAtOnce = kRows == 1 ? 4 : 2;
  Index g = 0;
  for (; g + kAtOnce <= w.n_groups; g += kAtOnce) add.template operator()<kAtOnce>();
  for (; g < w.n_groups; ++g) add.template operator()<1>();
  alignas(64) float rows[kRows * 16];  // acc itself stays in registers
  for (int r = 0; r < kRows; ++r) _mm512_store_ps(rows + r * 16, acc[r]);
  finish<1>(t, panel, rows);
}

template <class K, int kPanels>
void run_panels(const LinearTile& t, Index panel) {
  const PackedView& w = *t.w;
  const Tables<K::kCodes> tables(w);
  alignas(64) float acc[kTileRows * kPanels * 16];
  const __m512 zero = _mm512_setzero_ps();
  for (Index i = 0; i < t.rows * kPanels; ++i) _mm512_store_ps(acc + i * 16, zero);

  __m512i buffer[kPanels][32 / K::kOfStep];
  GroupScales scales;
  Group group = {.w = &w, .weights = {}, .steps = w.group / K::kOfStep, .scales = &scales};
  const float *x = t.x, *sums = t.sums;
  Index record = 0;  // where it begins in a panel
  for (Index g = 0, i = 0; g < w.n_groups; ++g, ++i) {
    if (i == w.groups_per_record) i = 0, record += w.record_bytes;
    // Plain bf16 is walked by many rows at the processor's own pace.
    if (K::kCodes != Codes::bf16 || t.rows < 8) {
      const Index head = i == 0 ? 0 : w.codes_offset;
      prefetch<kPanels>(w, panel, record + head + i * w.group_bytes,
                        w.codes_offset - head + w.group_bytes);
    }
    for (int p = 0; p < kPanels; ++p) {
      const GroupAt at = group_at(w, w.panel(panel + p) + record, i);
      group.weights[p] = decode<K>(w, tables, at, buffer[p]);
      if constexpr (!K::kScaled) continue;
      const ScaleMin by = load_scales<K::kScale, K::kMin>(w, at);
      _mm512_store_ps(scales.scale[p], by.scale);
      _mm512_store_ps(scales.min[p], by.min);
    }
    add_group<K, kPanels>(group, t, x, sums, acc);
    x += group.steps;
    if (sums != nullptr) sums += K::kWhole ? kWholeSums : 1;
  }
  finish<kPanels>(t, panel, acc);
}

template <class K>
void run_tile(const LinearTile& t) {
  if constexpr (K::kCodes != Codes::f32) {
    const auto rows = [&]<int kRows>() {
      Stream stream(t);
      for (Index panel = t.panel_begin; panel < t.panel_end; ++panel) {
        run_rows<K, kRows>(t, panel, stream);
      }
    };
    if (t.rows == 1) return rows.template operator()<1>();
    if (t.rows == 2) return rows.template operator()<2>();
    if (t.rows == 3) return rows.template operator()<3>();
    if (t.rows == 4) return rows.template operator()<4>();
  }
  const Index wide = t.rows > 4 ? 3 : 4;
  for (Index panel = t.panel_begin; panel < t.panel_end;) {
    const Index n = t.panel_end - panel < wide ? t.panel_end - panel : wide;
    switch (n) {
      case 4:
        run_panels<K, 4>(t, panel);
        break;
      case 3:
        run_panels<K, 3>(t, panel);
        break;
      case 2:
        run_panels<K, 2>(t, panel);
        break;
      default:
        run_panels<K, 1>(t, panel);
    }
    panel += n;
  }
}

void tile(const LinearTile& t) {
  const PackedView& w = *t.w;
  if (w.products == Products::bf16) {
    for_layout(w, [&t]<Codes kCodes, ScaleType kScale, bool kMin>() {
      run_tile<Kind<Products::bf16, kCodes, kScale, kMin>>(t);
    });
  } else if (w.products == Products::int16) {
    for_layout(w, [&t]<Codes kCodes, ScaleType kScale, bool kMin>() {
      if constexpr (kCodes <= Codes::q8) run_tile<Kind<Products::int16, kCodes, kScale, kMin>>(t);
    });
  } else if (w.products == Products::int8) {
    for_layout(w, [&t]<Codes kCodes, ScaleType kScale, bool kMin>() {
      if constexpr (kCodes <= Codes::q8) run_tile<Kind<Products::int8, kCodes, kScale, kMin>>(t);
    });
  } else if (w.codes == Codes::bf16) {
    run_tile<Kind<Products::f32, Codes::bf16, ScaleType::none, false>>(t);
  } else if (w.codes == Codes::fp8 && w.scale == ScaleType::none) {
    run_tile<Kind<Products::f32, Codes::fp8, ScaleType::none, false>>(t);
  } else if (w.codes == Codes::fp8) {
    run_tile<Kind<Products::f32, Codes::fp8, ScaleType::f32, false>>(t);
  } else {
    run_tile<Kind<Products::f32, Codes::f32, ScaleType::none, false>>(t);
  }
}

// --- rounding x --------------------------------------------------------------------------------

KOGIA_INLINE inline __m512 load_some(const float* x, Index n) {
  const __mmask16 mask = static_cast<__mmask16>(n >= 16 ? 0xFFFF : n <= 0 ? 0 : (1 << n) - 1);
  return _mm512_maskz_loadu_ps(mask, x);
}

// To nearest even, as f32_to_bf16() rounds (the conversion instruction would flush subnormals).
KOGIA_INLINE inline __m512 round_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_mask_mov_epi32(rounded, nan, quiet),
                                              _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
}

// Per 32 columns: d = max|x| / most, q = x / d to nearest even.
struct Quantised {
  __m512 q[2];
  float d;
};
KOGIA_INLINE inline Quantised quantise(const ActivationRow& a, float most, Index c) {
  const __m512 x[2] = {load_some(a.x + c, a.n - c), load_some(a.x + c + 16, a.n - c - 16)};
  const float top = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])));
  const __m512 inverse = _mm512_set1_ps(top > 0 ? most / top : 0);
  Quantised to = {.q = {}, .d = top / most};
  for (int i = 0; i < 2; ++i) {
    to.q[i] = _mm512_roundscale_ps(_mm512_mul_ps(x[i], inverse),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // What is no number must not come out as one: whole numbers cannot say it, the scale can.
  if (_mm512_cmp_ps_mask(x[0], x[1], _CMP_UNORD_Q) != 0) to.d = __builtin_nanf("");
  return to;
}

// q d.
void round_whole(const ActivationRow& a, float most, float* out) {
  for (Index c = 0; c < a.n_padded; c += 32) {
    const Quantised x = quantise(a, most, c);
    for (int i = 0; i < 2; ++i) {
      _mm512_storeu_ps(out + c + 16 * i, _mm512_mul_ps(x.q[i], _mm512_set1_ps(x.d)));
    }
  }
}

// q in the order of quads, or of 16 bits as columns come; d and Σq of each group.
void quantise_row(const ActivationRow& a, std::byte* out) {
  const bool bytes = a.form == Products::int8;
  const float most = whole_limit(a.rounding);
  const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  for (Index c = 0; c < a.n_padded; c += 32) {
    const Quantised x = quantise(a, most, c);
    float sum[2];
    for (int i = 0; i < 2; ++i) {
      const __m512i whole = _mm512_cvtps_epi32(x.q[i]);
      std::byte* to = out + (c + 16 * i) * (bytes ? 1 : 2);
      if (bytes) {
        const __m128i q = _mm_shuffle_epi8(_mm512_cvtsepi32_epi8(whole), order);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), q);
      } else {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtsepi32_epi16(whole));
      }
      sum[i] = _mm512_reduce_add_ps(x.q[i]);
    }
    float* to = a.sums + kWholeSums * (c / a.group);
    if (a.group == 32) sum[0] += sum[1];
    for (Index i = 0; i < 32 / a.group; ++i, to += kWholeSums) {
      to[0] = x.d, to[1] = x.d * sum[i], to[2] = sum[i];
    }
  }
}

void round_row(const ActivationRow& a) {
  float* out = static_cast<float*>(a.out);
  std::uint16_t* out16 = static_cast<std::uint16_t*>(a.out);
  if (whole_limit(a.rounding) > 0) {
    if (a.form == Products::f32) return round_whole(a, whole_limit(a.rounding), out);
    return quantise_row(a, static_cast<std::byte*>(a.out));
  }
  for (Index c = 0; c < a.n_padded; c += 16) {
    __m512 x = load_some(a.x + c, a.n - c);
    if (a.rounding == Rounding::bf16) x = round_bf16(x);
    if (a.form == Products::bf16) {
      const __m256i words = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(x), 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out16 + c), words);
    } else {
      _mm512_storeu_ps(out + c, x);
    }
    if (a.sums != nullptr) {
      const float sum = _mm512_reduce_add_ps(x);
      float& to = a.sums[c / a.group];
      to = c % a.group == 0 ? sum : to + sum;
    }
  }
}

}  // namespace

constinit const LinearKernels kLinearKernels = {
    .pair_products = true, .whole_sums = kWholeSums, .round_row = round_row, .tile = tile};

}  // namespace kogia::avx512
