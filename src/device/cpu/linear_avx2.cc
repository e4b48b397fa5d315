// Matrix products with AVX2: every arithmetic as f32 fused multiply-adds of decoded weights, x
// rounded as the arithmetic says and kept in f32.
//
// A group of codes is decoded into L1 once for all rows of the tile. Order of an output's sum:
// within a group the columns in order from zero, then group after group.

#include <immintrin.h>

#include "device/cpu/packed.h"

namespace kogia::avx2 {
namespace {

#define KOGIA_INLINE __attribute__((always_inline))

constexpr Index kGroupFloats = 32 * kPanelRows;

KOGIA_INLINE inline __m256 load_scale(const std::byte* at, ScaleType type, int half) {
  if (type == ScaleType::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(at) + 8 * half);
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at) + half));
}

/// Eight lanes of one column; c in [0, 8), `chunk` the codes of those columns.
KOGIA_INLINE inline __m256 decode_column(const PackedView& w, const std::byte* chunk, int c,
                                         int half) {
  const auto load = [chunk, half](int vector) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(chunk) + 2 * vector + half);
  };
  const auto shift = [](int bits) { return _mm_cvtsi32_si128(bits); };
  switch (w.codes) {
    case Codes::nibble: {
      const __m256i code = _mm256_and_si256(
          _mm256_srl_epi32(load(0), shift(c % 2 * 16 + c / 2 * 4)), _mm256_set1_epi32(15));
      const int bits = w.table[0] << 16;  // the value of code 0
      const __m256 lowest = _mm256_castsi256_ps(_mm256_set1_epi32(bits));
      return _mm256_add_ps(_mm256_cvtepi32_ps(code), lowest);
    }
    case Codes::int8: {
      const __m256i top = _mm256_sll_epi32(load(c / 4), shift(24 - c % 4 * 8));
      return _mm256_cvtepi32_ps(_mm256_srai_epi32(top, 24));
    }
    case Codes::fp8: {
      const __m256i code = _mm256_srl_epi32(load(c / 4), shift(c % 4 * 8));
      const __m256i magnitude = _mm256_i32gather_epi32(
          reinterpret_cast<const int*>(w.table), _mm256_and_si256(code, _mm256_set1_epi32(127)), 2);
      const __m256i sign = _mm256_and_si256(code, _mm256_set1_epi32(128));
      return _mm256_castsi256_ps(
          _mm256_or_si256(_mm256_slli_epi32(magnitude, 16), _mm256_slli_epi32(sign, 24)));
    }
    case Codes::bf16: {
      const __m256i pair = load(c / 2);
      const __m256i odd = _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xFFFF0000)));
      return _mm256_castsi256_ps(c % 2 == 0 ? _mm256_slli_epi32(pair, 16) : odd);
    }
    case Codes::f32:
      break;
  }
  return _mm256_castsi256_ps(load(c));
}

/// Values of a group, [columns][16], in `buffer` or where the matrix keeps them.
const float* decode_values(const PackedView& w, Index panel, Index g, float* buffer) {
  const std::byte* record = w.record(panel, g);
  const std::byte* codes = w.group_codes(panel, g);
  if (w.codes == Codes::f32) return reinterpret_cast<const float*>(codes);
  const bool scaled = w.scale != ScaleType::none;
  for (int half = 0; half < 2; ++half) {
    const __m256 scale = scaled ? load_scale(record, w.scale, half) : _mm256_setzero_ps();
    const __m256 min =
        w.has_min ? load_scale(record + w.scale_bytes(), w.scale, half) : _mm256_setzero_ps();
    for (Index first = 0; first < w.group; first += 8) {
      const std::byte* chunk = codes + first / 8 * (w.group_bytes / (w.group / 8));
      for (int c = 0; c < 8; ++c) {
        __m256 v = decode_column(w, chunk, c, half);
        if (scaled) v = _mm256_mul_ps(v, scale);
        if (w.has_min) v = _mm256_add_ps(v, min);
        _mm256_storeu_ps(buffer + (first + c) * kPanelRows + 8 * half, v);
      }
    }
  }
  return buffer;
}

/// acc[kRows][kPanels][16] += x · group.
template <int kRows, int kPanels>
KOGIA_INLINE inline void micro(const float* const* weights, Index columns, const float* x,
                               Index x_stride, float* acc) {
  __m256 sum[kRows][2 * kPanels];
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < 2 * kPanels; ++p) sum[r][p] = _mm256_setzero_ps();
  }
  for (Index c = 0; c < columns; ++c) {
    __m256 w[2 * kPanels];
    for (int p = 0; p < 2 * kPanels; ++p) {
      w[p] = _mm256_loadu_ps(weights[p / 2] + c * kPanelRows + p % 2 * 8);
    }
    for (int r = 0; r < kRows; ++r) {
      const __m256 xr = _mm256_broadcast_ss(x + r * x_stride + c);
      for (int p = 0; p < 2 * kPanels; ++p) sum[r][p] = _mm256_fmadd_ps(w[p], xr, sum[r][p]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < 2 * kPanels; ++p) {
      float* at = acc + r * kPanels * kPanelRows + p * 8;
      _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sum[r][p]));
    }
  }
}

template <int kPanels>
void finish(const LinearTile& t, Index panel, const float* acc) {
  for (Index r = 0; r < t.rows; ++r) {
    const Index begin = panel * kPanelRows, end = begin + kPanels * kPanelRows;
    for (Index out = begin; out < (end < t.w->rows ? end : t.w->rows); ++out) {
      float y = acc[r * kPanels * kPanelRows + out - begin];
      const Index at = r * t.y_stride + out;
      if (t.bias != nullptr) y += t.bias[out];
      if (t.residual != nullptr) y += t.residual[at];
      t.y[at] = y;
    }
  }
}

template <int kPanels>
void run_panels(const LinearTile& t, Index panel) {
  const PackedView& w = *t.w;
  alignas(32) float acc[kTileRows * kPanels * kPanelRows];
  alignas(32) float buffer[kPanels][kGroupFloats];
  for (Index i = 0; i < t.rows * kPanels * kPanelRows; ++i) acc[i] = 0;
  for (Index g = 0; g < w.n_groups; ++g) {
    const float* weights[kPanels];
    for (int p = 0; p < kPanels; ++p) weights[p] = decode_values(w, panel + p, g, buffer[p]);
    const float* x = t.x + g * w.group;
    Index r = 0;
    const auto x_of = [&] { return x + r * t.x_stride; };
    const auto acc_of = [&] { return acc + r * kPanels * kPanelRows; };
    if constexpr (kPanels == 1) {
      for (; r + 4 <= t.rows; r += 4) micro<4, 1>(weights, w.group, x_of(), t.x_stride, acc_of());
    }
    for (; r + 2 <= t.rows; r += 2) {
      micro<2, kPanels>(weights, w.group, x_of(), t.x_stride, acc_of());
    }
    for (; r < t.rows; ++r) micro<1, kPanels>(weights, w.group, x_of(), t.x_stride, acc_of());
  }
  finish<kPanels>(t, panel, acc);
}

void tile(const LinearTile& t) {
  Index panel = t.panel_begin;
  if (t.rows < 4) {  // two panels at once: more sums to hide the latency of an addition
    for (; panel + 2 <= t.panel_end; panel += 2) run_panels<2>(t, panel);
  }
  for (; panel < t.panel_end; ++panel) run_panels<1>(t, panel);
}

// --- rounding x --------------------------------------------------------------------------------

// To nearest even, as f32_to_bf16() rounds.
KOGIA_INLINE inline __m256 round_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7FFF)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256 kept =
      _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
  return _mm256_and_ps(kept, _mm256_castsi256_ps(mask));
}

// 32 columns in place: d = max|x| / 127, q = x / d to nearest even; q d.
void round_int8(float* x) {
  float top = 0;
  for (int i = 0; i < 32; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    top = top < magnitude ? magnitude : top;
  }
  const __m256 d = _mm256_set1_ps(top / 127), inverse = _mm256_set1_ps(top > 0 ? 127 / top : 0);
  for (int i = 0; i < 32; i += 8) {
    const __m256 q = _mm256_round_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_ps(x + i, _mm256_mul_ps(q, d));
  }
}

void round_row(const ActivationRow& a) {
  float* out = static_cast<float*>(a.out);
  for (Index i = 0; i < a.n_padded; ++i) out[i] = i < a.n ? a.x[i] : 0;
  for (Index c = 0; c < a.n_padded; c += 32) {
    if (a.rounding == Rounding::int8) round_int8(out + c);
    if (a.rounding != Rounding::bf16) continue;
    for (Index i = c; i < c + 32; i += 8) {
      _mm256_storeu_ps(out + i, round_bf16(_mm256_loadu_ps(out + i)));
    }
  }
}

}  // namespace

constinit const LinearKernels kLinearKernels = {
    .bf16_products = false, .round_row = round_row, .tile = tile};

}  // namespace kogia::avx2
