// Matrix products with AVX-512 and its bf16 dot products.
//
// Roofline: one row is bound by reading the weights; many rows by the dot products (64 flops each,
// or 32 of an FMA). Either way a group of codes is decoded into L1 once for all rows of the tile,
// and a block of rows × panels of sums stays in registers while the group's columns are walked.
//
// Order of an output's sum: group after group; within a group the columns in order (pairs of them
// for bf16) from zero; then acc = acc + scale · sum, and acc = acc + min · Σx. It does not depend
// on the number of rows or panels that share the registers.

#include <immintrin.h>

#include "device/cpu/packed.h"

namespace kogia::avx512 {
namespace {

#define KOGIA_INLINE __attribute__((always_inline))

// How a group's sums are scaled; [panels][16].
struct GroupScales {
  alignas(64) float scale[4][16];
  alignas(64) float min[4][16];
};

KOGIA_INLINE inline __m512 load_scale(const std::byte* at, ScaleType type) {
  if (type == ScaleType::f32) return _mm512_loadu_ps(reinterpret_cast<const float*>(at));
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// The upper halves of two vectors of f32, as pairs of bf16.
KOGIA_INLINE inline __m512i join(__m512 even, __m512 odd) {
  return _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(_mm512_castps_si512(even), 16),
                                 _mm512_castps_si512(odd));
}

void decode_nibbles(const std::byte* codes, Index columns, const std::uint16_t* values,
                    __m512i* pairs) {
  const __m512i table = _mm512_loadu_si512(values);
  for (Index c = 0; c < columns; c += 8, pairs += 4) {
    const __m512i v = _mm512_loadu_si512(codes + c * 8);
    pairs[0] = _mm512_permutexvar_epi16(v, table);
    pairs[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), table);
    pairs[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), table);
    pairs[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), table);
  }
}

void decode_int8(const std::byte* codes, Index columns, __m512i* pairs) {
  for (Index c = 0; c < columns; c += 4, pairs += 2) {
    const __m512i v = _mm512_loadu_si512(codes + c * 16);
    const __m512 c0 = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 24), 24));
    const __m512 c1 = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 16), 24));
    const __m512 c2 = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, 8), 24));
    const __m512 c3 = _mm512_cvtepi32_ps(_mm512_srai_epi32(v, 24));
    pairs[0] = join(c0, c1);
    pairs[1] = join(c2, c3);
  }
}

/// 16-bit words that hold FP8 codes -> bf16; tables of 4 × 32 magnitudes.
KOGIA_INLINE inline __m512i fp8_to_bf16(__m512i words, const __m512i* tables) {
  const __m512i low = _mm512_permutex2var_epi16(tables[0], words, tables[1]);
  const __m512i high = _mm512_permutex2var_epi16(tables[2], words, tables[3]);
  const __mmask32 upper = _mm512_test_epi16_mask(words, _mm512_set1_epi16(0x40));
  const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(words, _mm512_set1_epi16(0x80)), 8);
  return _mm512_or_si512(sign, _mm512_mask_blend_epi16(upper, low, high));
}

void decode_fp8(const std::byte* codes, Index columns, const std::uint16_t* values,
                __m512i* pairs) {
  __m512i tables[4];
  for (int i = 0; i < 4; ++i) tables[i] = _mm512_loadu_si512(values + 32 * i);
  // Bytes 0 and 1 (2 and 3) of each 32 bits as 16-bit words.
  const __m512i first = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
  const __m512i second = _mm512_broadcast_i32x4(
      _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
  for (Index c = 0; c < columns; c += 4, pairs += 2) {
    const __m512i v = _mm512_loadu_si512(codes + c * 16);
    pairs[0] = fp8_to_bf16(_mm512_shuffle_epi8(v, first), tables);
    pairs[1] = fp8_to_bf16(_mm512_shuffle_epi8(v, second), tables);
  }
}

/// Pairs of bf16 codes of a group, in `buffer` or where the matrix keeps them.
const __m512i* decode_pairs(const PackedView& w, const std::byte* codes, __m512i* buffer) {
  switch (w.codes) {
    case Codes::nibble:
      decode_nibbles(codes, w.group, w.table, buffer);
      break;
    case Codes::int8:
      decode_int8(codes, w.group, buffer);
      break;
    case Codes::fp8:
      decode_fp8(codes, w.group, w.table, buffer);
      break;
    case Codes::bf16:
    case Codes::f32:
      return reinterpret_cast<const __m512i*>(codes);
  }
  return buffer;
}

/// Values of a group, a vector for each column.
const __m512i* decode_values(const PackedView& w, const std::byte* record, const std::byte* codes,
                             __m512i* buffer) {
  if (w.codes == Codes::f32) return reinterpret_cast<const __m512i*>(codes);
  __m512i pair_buffer[16];
  const __m512i* pairs = decode_pairs(w, codes, pair_buffer);
  const bool scaled = w.scale != ScaleType::none;
  const __m512 scale = scaled ? load_scale(record, w.scale) : _mm512_setzero_ps();
  const __m512 min = w.has_min ? load_scale(record + w.scale_bytes(), w.scale) : scale;
  for (Index i = 0; i < w.group / 2; ++i) {
    const __m512i pair = _mm512_loadu_si512(pairs + i);
    const __m512i odd_mask = _mm512_set1_epi32(static_cast<int>(0xFFFF0000));
    __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(pair, odd_mask));
    if (scaled) even = _mm512_mul_ps(even, scale), odd = _mm512_mul_ps(odd, scale);
    if (w.has_min) even = _mm512_add_ps(even, min), odd = _mm512_add_ps(odd, min);
    buffer[2 * i] = _mm512_castps_si512(even);
    buffer[2 * i + 1] = _mm512_castps_si512(odd);
  }
  return buffer;
}

/// What the micro-kernel adds: one group, its panels decoded.
struct Group {
  const __m512i* weights[4];
  Index steps;  // pairs or columns
  const GroupScales* scales;
  bool scaled, has_min;
};

template <bool kBf16>
KOGIA_INLINE inline __m512 multiply_add(__m512 sum, __m512i w, __m512 x) {
  if constexpr (kBf16) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_castps_si512(x));
  } else {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(w), x, sum);
  }
}

/// acc[kRows][kPanels][16] += x · group.
template <bool kBf16, int kRows, int kPanels>
KOGIA_INLINE inline void micro(const Group& group, const float* x, Index x_stride,
                               const float* sums, Index sums_stride, float* acc) {
  __m512 sum[kRows][kPanels];
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sum[r][p] = _mm512_setzero_ps();
  }
  for (Index s = 0; s < group.steps; ++s) {
    __m512i w[kPanels];
    for (int p = 0; p < kPanels; ++p) w[p] = _mm512_loadu_si512(group.weights[p] + s);
    for (int r = 0; r < kRows; ++r) {
      const __m512 xr = _mm512_set1_ps(x[r * x_stride + s]);
      for (int p = 0; p < kPanels; ++p) sum[r][p] = multiply_add<kBf16>(sum[r][p], w[p], xr);
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    const __m512 scale = group.scaled ? _mm512_load_ps(group.scales->scale[p]) : _mm512_set1_ps(1);
    for (int r = 0; r < kRows; ++r) {
      float* at = acc + (r * kPanels + p) * 16;
      __m512 total = _mm512_fmadd_ps(sum[r][p], scale, _mm512_load_ps(at));
      if (group.has_min) {
        total = _mm512_fmadd_ps(_mm512_load_ps(group.scales->min[p]),
                                _mm512_set1_ps(sums[r * sums_stride]), total);
      }
      _mm512_store_ps(at, total);
    }
  }
}

/// All rows of a tile: blocks of 8, then 4, 2 and 1.
template <bool kBf16, int kPanels>
void add_group(const Group& group, const LinearTile& t, const float* x, const float* sums,
               float* acc) {
  Index r = 0;
  const auto x_of = [&] { return x + r * t.x_stride; };
  const auto sums_of = [&] { return sums + r * t.sums_stride; };
  const auto acc_of = [&] { return acc + r * kPanels * 16; };
  if constexpr (kPanels < 4) {  // 24 registers of sums
    for (; r + 8 <= t.rows; r += 8) {
      micro<kBf16, 8, kPanels>(group, x_of(), t.x_stride, sums_of(), t.sums_stride, acc_of());
    }
  }
  for (; r + 4 <= t.rows; r += 4) {
    micro<kBf16, 4, kPanels>(group, x_of(), t.x_stride, sums_of(), t.sums_stride, acc_of());
  }
  for (; r + 2 <= t.rows; r += 2) {
    micro<kBf16, 2, kPanels>(group, x_of(), t.x_stride, sums_of(), t.sums_stride, acc_of());
  }
  for (; r < t.rows; ++r) {
    micro<kBf16, 1, kPanels>(group, x_of(), t.x_stride, sums_of(), t.sums_stride, acc_of());
  }
}

/// What is read kAheadBytes later in each of the panels, or in those that come after them. The
/// processor's own prefetching starts anew with each panel, and panels are short.
template <int kPanels>
KOGIA_INLINE inline void prefetch(const PackedView& w, Index panel, Index g) {
  constexpr Index kAheadBytes = 2048;
  const Index bytes = w.record_bytes / w.groups_per_record;
  g += 1 + kAheadBytes / bytes;
  if (g >= w.n_groups) {
    g -= w.n_groups, panel += kPanels;
    if (g >= w.n_groups || panel + kPanels > w.n_panels()) return;
  }
  for (int p = 0; p < kPanels; ++p) {
    const std::byte* at =
        w.groups_per_record == 1 ? w.record(panel + p, g) : w.group_codes(panel + p, g);
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

template <bool kBf16, int kPanels>
void run_panels(const LinearTile& t, Index panel) {
  const PackedView& w = *t.w;
  alignas(64) float acc[kTileRows * kPanels * 16];
  const __m512 zero = _mm512_setzero_ps();
  for (Index i = 0; i < t.rows * kPanels; ++i) _mm512_store_ps(acc + i * 16, zero);

  __m512i buffer[kPanels][kBf16 ? 16 : 32];
  GroupScales scales;
  Group group = {.weights = {},
                 .steps = kBf16 ? w.group / 2 : w.group,
                 .scales = &scales,
                 .scaled = kBf16 && w.scale != ScaleType::none,
                 .has_min = kBf16 && w.has_min};
  for (Index g = 0; g < w.n_groups; ++g) {
    if (t.rows < 8) prefetch<kPanels>(w, panel, g);
    for (int p = 0; p < kPanels; ++p) {
      const std::byte* record = w.record(panel + p, g);
      const std::byte* codes = w.group_codes(panel + p, g);
      if constexpr (kBf16) {
        group.weights[p] = decode_pairs(w, codes, buffer[p]);
        if (group.scaled) _mm512_store_ps(scales.scale[p], load_scale(record, w.scale));
        if (group.has_min) {
          _mm512_store_ps(scales.min[p], load_scale(record + w.scale_bytes(), w.scale));
        }
      } else {
        group.weights[p] = decode_values(w, record, codes, buffer[p]);
      }
    }
    add_group<kBf16, kPanels>(group, t, t.x + g * group.steps,
                              t.sums == nullptr ? nullptr : t.sums + g, acc);
  }
  finish<kPanels>(t, panel, acc);
}

template <bool kBf16>
void run_tile(const LinearTile& t) {
  const Index wide = t.rows >= 8 ? 3 : 4;
  for (Index panel = t.panel_begin; panel < t.panel_end;) {
    const Index n = t.panel_end - panel < wide ? t.panel_end - panel : wide;
    switch (n) {
      case 4:
        run_panels<kBf16, 4>(t, panel);
        break;
      case 3:
        run_panels<kBf16, 3>(t, panel);
        break;
      case 2:
        run_panels<kBf16, 2>(t, panel);
        break;
      default:
        run_panels<kBf16, 1>(t, panel);
    }
    panel += n;
  }
}

void tile(const LinearTile& t) { t.w->bf16_products ? run_tile<true>(t) : run_tile<false>(t); }

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

// Per 32 columns: d = max|x| / 127, q = x / d to nearest even; q d.
void round_int8(const ActivationRow& a, float* out) {
  for (Index c = 0; c < a.n_padded; c += 32) {
    const __m512 x[2] = {load_some(a.x + c, a.n - c), load_some(a.x + c + 16, a.n - c - 16)};
    const float top = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1])));
    const __m512 d = _mm512_set1_ps(top / 127), inverse = _mm512_set1_ps(top > 0 ? 127 / top : 0);
    for (int i = 0; i < 2; ++i) {
      const __m512 q = _mm512_roundscale_ps(_mm512_mul_ps(x[i], inverse),
                                            _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm512_storeu_ps(out + c + 16 * i, _mm512_mul_ps(q, d));
    }
  }
}

void round_row(const ActivationRow& a) {
  float* out = static_cast<float*>(a.out);
  std::uint16_t* out16 = static_cast<std::uint16_t*>(a.out);
  if (a.rounding == Rounding::int8) return round_int8(a, out);
  for (Index c = 0; c < a.n_padded; c += 16) {
    __m512 x = load_some(a.x + c, a.n - c);
    if (a.rounding == Rounding::bf16) x = round_bf16(x);
    if (a.as_bf16) {
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
    .bf16_products = true, .round_row = round_row, .tile = tile};

}  // namespace kogia::avx512
