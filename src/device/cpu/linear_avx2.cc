// Matrix products with AVX2: whole numbers as bytes (vpmaddubsw, vpmaddwd); every other arithmetic
// as f32 fused multiply-adds of decoded weights, x rounded as the arithmetic says and kept in f32.
//
// A group of codes is decoded into L1 once for all rows of the tile. Order of an output's sum:
// within a group the columns in order from zero (int8: exactly), then group after group.

#include <immintrin.h>

#include "device/cpu/packed.h"

namespace kogia::avx2 {
namespace {

#define KOGIA_INLINE __attribute__((always_inline))

constexpr Index kGroupFloats = 32 * kPanelRows;

KOGIA_INLINE inline __m256i load(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
KOGIA_INLINE inline __m256 load_halves(const std::byte* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}
KOGIA_INLINE inline __m128i load_bytes(const std::byte* at) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
}

/// Lanes 8 half … 8 half + 7.
struct ScaleMin {
  __m256 scale, min;
};
KOGIA_INLINE inline ScaleMin load_scales(const PackedView& w, const GroupAt& at, int half) {
  const std::byte* head = at.record + 16 * half;  // of f16 numbers
  const Index n = w.groups_per_record;
  const __m256 none = _mm256_setzero_ps();
  switch (w.scale) {
    case ScaleType::none:
      break;
    case ScaleType::f16:
      return {load_halves(head + at.i * 32),
              w.has_min ? load_halves(head + (n + at.i) * 32) : none};
    case ScaleType::f32:
      return {_mm256_loadu_ps(reinterpret_cast<const float*>(at.record) + 8 * half), none};
    case ScaleType::parts: {
      const std::byte* parts = at.record + (w.has_min ? 64 : 32) + at.i * 16 + 8 * half;
      const __m256i s = _mm256_cvtepi8_epi32(load_bytes(parts));
      const __m256 scale = _mm256_mul_ps(load_halves(head), _mm256_cvtepi32_ps(s));
      if (!w.has_min) return {scale, none};
      const __m256i m = _mm256_cvtepu8_epi32(load_bytes(parts + n * 16));
      return {scale, _mm256_mul_ps(load_halves(head + 32), _mm256_cvtepi32_ps(m))};
    }
    case ScaleType::nibbles: {
      const __m256i both = _mm256_cvtepu8_epi32(load_bytes(at.record + 64 + at.i * 16 + 8 * half));
      const __m256i s = _mm256_and_si256(both, _mm256_set1_epi32(15));
      const __m256i m = _mm256_srli_epi32(both, 4);
      return {_mm256_mul_ps(load_halves(head), _mm256_cvtepi32_ps(s)),
              _mm256_mul_ps(load_halves(head + 32), _mm256_cvtepi32_ps(m))};
    }
  }
  return {none, none};
}

// --- decoding to f32 ---------------------------------------------------------------------------

/// Column c of a plane of `bits` bits, in the low bits of each lane; what is above it is cleared.
KOGIA_INLINE inline __m256i plane_column(const std::byte* plane, int bits, Index c, int half) {
  const Index slot = c / 8 * 2 + c % 4 / 2;
  const Index shift = c % 2 * 16 + c % 8 / 4 * 8 + slot * bits % 8;
  const __m256i v = load(plane + slot * bits / 8 * 64 + 32 * half);
  return _mm256_and_si256(_mm256_srl_epi32(v, _mm_cvtsi32_si128(static_cast<int>(shift))),
                          _mm256_set1_epi32((1 << bits) - 1));
}

KOGIA_INLINE inline __m256 fp8_values(const PackedView& w, __m256i code) {
  const __m256i magnitude = _mm256_i32gather_epi32(
      reinterpret_cast<const int*>(w.table), _mm256_and_si256(code, _mm256_set1_epi32(127)), 2);
  const __m256i sign = _mm256_and_si256(code, _mm256_set1_epi32(128));
  return _mm256_castsi256_ps(
      _mm256_or_si256(_mm256_slli_epi32(magnitude, 16), _mm256_slli_epi32(sign, 24)));
}

/// Eight lanes of column c of a group, not scaled.
KOGIA_INLINE inline __m256 decode_column(const PackedView& w, const GroupAt& at, Index c,
                                         int half) {
  switch (w.codes) {
    case Codes::f32:
      return _mm256_castsi256_ps(load(at.low + c * 64 + 32 * half));
    case Codes::f16:
      return load_halves(at.low + c * 32 + 16 * half);
    case Codes::bf16: {
      const __m256i pair = load(at.low + c / 2 * 64 + 32 * half);
      const __m256i odd = _mm256_and_si256(pair, _mm256_set1_epi32(static_cast<int>(0xFFFF0000)));
      return _mm256_castsi256_ps(c % 2 == 0 ? _mm256_slli_epi32(pair, 16) : odd);
    }
    case Codes::fp8:
      return fp8_values(w, plane_column(at.low, 8, c, half));
    case Codes::q8: {
      const __m256i code = _mm256_slli_epi32(plane_column(at.low, 8, c, half), 24);
      return _mm256_cvtepi32_ps(_mm256_srai_epi32(code, 24));
    }
    default:
      break;
  }
  const PlaneBits bits = plane_bits(w.codes);
  __m256i code = plane_column(at.low, bits.low, c, half);
  if (bits.high != 0) {
    const Index column = w.groups_per_plane == 1 ? c : at.i % w.groups_per_plane * w.group + c;
    const __m256i high = plane_column(at.high, bits.high, column, half);
    code = _mm256_or_si256(code, _mm256_sll_epi32(high, _mm_cvtsi32_si128(bits.low)));
  }
  return _mm256_cvtepi32_ps(_mm256_add_epi32(code, _mm256_set1_epi32(w.lowest)));
}

/// Values of a group, [columns][16], in `buffer` or where the matrix keeps them.
const float* decode_values(const PackedView& w, const GroupAt& at, float* buffer) {
  if (w.codes == Codes::f32) return reinterpret_cast<const float*>(at.low);
  const bool scaled = w.scale != ScaleType::none;
  for (int half = 0; half < 2; ++half) {
    const ScaleMin by = load_scales(w, at, half);
    for (Index c = 0; c < w.group; ++c) {
      __m256 v = decode_column(w, at, c, half);
      if (scaled) v = _mm256_mul_ps(v, by.scale);
      if (w.has_min) v = _mm256_add_ps(v, by.min);
      _mm256_storeu_ps(buffer + c * kPanelRows + 8 * half, v);
    }
  }
  return buffer;
}

// --- products of f32 ---------------------------------------------------------------------------

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
struct ValueGroup {
  alignas(32) float buffer[kPanels][kGroupFloats];
  const float* weights[kPanels];

  void decode(const PackedView& w, const GroupAt& at, int p) {
    weights[p] = decode_values(w, at, buffer[p]);
  }
  template <int kRows>
  KOGIA_INLINE inline void multiply(const LinearTile& t, Index g, Index r, float* acc) const {
    const Index columns = t.w->group;
    micro<kRows, kPanels>(weights, columns, t.x + g * columns + r * t.x_stride, t.x_stride, acc);
  }
};

// --- products of bytes -------------------------------------------------------------------------

/// Quads of codes of a group: without sign, code - lowest; of 8 bits as they are.
template <int kLow, int kHigh>
void decode_planes(const PackedView& w, const GroupAt& at, std::byte* quads) {
  const __m256i low_mask = _mm256_set1_epi8((1 << kLow) - 1);
  const __m256i high_mask = _mm256_set1_epi8(((1 << kHigh) - 1) << kLow);
  const Index first = w.groups_per_plane == 1 ? 0 : at.i % w.groups_per_plane * w.group / 4;
  for (Index s = 0; s < w.group / 4; ++s) {  // slots
    const __m128i low_shift = _mm_cvtsi32_si128(static_cast<int>(s * kLow % 8));
    const Index high_at = (first + s) * kHigh;
    const __m128i high_shift = _mm_cvtsi32_si128(static_cast<int>(high_at % 8));
    for (Index half = 0; half < 2; ++half) {
      const __m256i v = load(at.low + s * kLow / 8 * 64 + 32 * half);
      __m256i code = _mm256_and_si256(_mm256_srl_epi16(v, low_shift), low_mask);
      if constexpr (kHigh != 0) {
        const __m256i above = _mm256_srl_epi16(load(at.high + 32 * half), high_shift);
        code = _mm256_or_si256(code, _mm256_and_si256(_mm256_slli_epi16(above, kLow), high_mask));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(quads + s * 64 + 32 * half), code);
    }
  }
}

const std::byte* decode_quads(const PackedView& w, const GroupAt& at, std::byte* buffer) {
  switch (w.codes) {
    case Codes::q2:
      decode_planes<2, 0>(w, at, buffer);
      break;
    case Codes::q3:
      decode_planes<2, 1>(w, at, buffer);
      break;
    case Codes::q4:
      decode_planes<4, 0>(w, at, buffer);
      break;
    case Codes::q5:
      decode_planes<4, 1>(w, at, buffer);
      break;
    case Codes::q6:
      decode_planes<4, 2>(w, at, buffer);
      break;
    default:
      return at.low;
  }
  return buffer;
}

/// A group of kCodes, of which kBatch quads are added in 16 bits: 2 · 127 · code · kBatch < 2¹⁵.
/// Eight bits with sign: |w| and x with w's sign, 2 · 128 · 127 < 2¹⁵.
template <Codes kCodes, int kBatch, int kPanels>
struct QuadGroup {
  alignas(32) std::byte buffer[kPanels][32 * kPanelRows];
  const std::byte* weights[kPanels];
  alignas(32) float scale[kPanels][16], min[kPanels][16];

  void decode(const PackedView& w, const GroupAt& at, int p) {
    weights[p] = decode_quads(w, at, buffer[p]);
    for (int half = 0; half < 2; ++half) {
      const ScaleMin by = load_scales(w, at, half);
      _mm256_store_ps(scale[p] + 8 * half, by.scale);
      _mm256_store_ps(min[p] + 8 * half, by.min);
    }
  }

  static KOGIA_INLINE inline __m256i products(__m256i w, float x) {
    const __m256i xs = _mm256_castps_si256(_mm256_set1_ps(x));
    if constexpr (kCodes != Codes::q8) return _mm256_maddubs_epi16(w, xs);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(xs, w));
  }

  template <int kRows>
  KOGIA_INLINE inline void multiply(const LinearTile& t, Index g, Index first, float* acc) const {
    const Index steps = t.w->group / 4;
    const float* x = t.x + g * steps + first * t.x_stride;
    const float* x_sum = t.sums + 2 * g + first * t.sums_stride;  // d, Σq
    for (int p = 0; p < 2 * kPanels; ++p) {
      const std::byte* codes = weights[p / 2] + p % 2 * 32;
      __m256i sum[kRows];
      for (int r = 0; r < kRows; ++r) {
        sum[r] = _mm256_set1_epi32(t.w->lowest * static_cast<int>(x_sum[r * t.sums_stride + 1]));
      }
      for (Index s = 0; s < steps; s += kBatch) {
        __m256i w[kBatch];
        for (int b = 0; b < kBatch; ++b) w[b] = load(codes + (s + b) * 64);
        for (int r = 0; r < kRows; ++r) {
          const float* xr = x + r * t.x_stride + s;
          __m256i sixteen = products(w[0], xr[0]);
          for (int b = 1; b < kBatch; ++b) {
            sixteen = _mm256_add_epi16(sixteen, products(w[b], xr[b]));
          }
          const __m256i ones = _mm256_set1_epi16(1);
          sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(sixteen, ones));
        }
      }
      for (int r = 0; r < kRows; ++r) {
        float* at = acc + r * kPanels * kPanelRows + p * 8;
        const float d = x_sum[r * t.sums_stride], total = d * x_sum[r * t.sums_stride + 1];
        const __m256 by = _mm256_load_ps(scale[p / 2] + p % 2 * 8);
        __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), _mm256_mul_ps(by, _mm256_set1_ps(d)),
                                   _mm256_loadu_ps(at));
        if (t.w->has_min) {
          const __m256 least = _mm256_load_ps(min[p / 2] + p % 2 * 8);
          y = _mm256_fmadd_ps(least, _mm256_set1_ps(total), y);
        }
        _mm256_storeu_ps(at, y);
      }
    }
  }
};

// --- tiles -------------------------------------------------------------------------------------

template <template <int> class Group, int kPanels>
void run_panels(const LinearTile& t, Index panel) {
  const PackedView& w = *t.w;
  alignas(32) float acc[kTileRows * kPanels * kPanelRows];
  for (Index i = 0; i < t.rows * kPanels * kPanelRows; ++i) acc[i] = 0;
  Group<kPanels> group;
  Index record = 0;  // where it begins in a panel
  for (Index g = 0, i = 0; g < w.n_groups; ++g, ++i) {
    if (i == w.groups_per_record) i = 0, record += w.record_bytes;
    for (int p = 0; p < kPanels; ++p) {
      group.decode(w, group_at(w, w.panel(panel + p) + record, i), p);
    }
    Index r = 0;
    const auto acc_of = [&] { return acc + r * kPanels * kPanelRows; };
    if constexpr (kPanels == 1) {
      for (; r + 4 <= t.rows; r += 4) group.template multiply<4>(t, g, r, acc_of());
    }
    for (; r + 2 <= t.rows; r += 2) group.template multiply<2>(t, g, r, acc_of());
    for (; r < t.rows; ++r) group.template multiply<1>(t, g, r, acc_of());
  }
  finish<kPanels>(t, panel, acc);
}

template <template <int> class Group>
void run_tile(const LinearTile& t) {
  Index panel = t.panel_begin;
  if (t.rows < 4) {  // two panels at once: more sums to hide the latency of an addition
    for (; panel + 2 <= t.panel_end; panel += 2) run_panels<Group, 2>(t, panel);
  }
  for (; panel < t.panel_end; ++panel) run_panels<Group, 1>(t, panel);
}

template <int kPanels>
using Small = QuadGroup<Codes::q3, 4, kPanels>;  // and q2: groups have four quads
template <int kPanels>
using Four = QuadGroup<Codes::q4, 8, kPanels>;
template <int kPanels>
using Five = QuadGroup<Codes::q5, 4, kPanels>;
template <int kPanels>
using Six = QuadGroup<Codes::q6, 2, kPanels>;
template <int kPanels>
using Eight = QuadGroup<Codes::q8, 1, kPanels>;

void tile(const LinearTile& t) {
  if (t.w->products != Products::int8) return run_tile<ValueGroup>(t);
  switch (t.w->codes) {
    case Codes::q4:
      return run_tile<Four>(t);
    case Codes::q5:
      return run_tile<Five>(t);
    case Codes::q6:
      return run_tile<Six>(t);
    case Codes::q8:
      return run_tile<Eight>(t);
    default:
      return run_tile<Small>(t);
  }
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

// 32 columns: d = max|x| / 127, q = x / d to nearest even.
struct Quantised {
  __m256 q[4];
  float d;
};
KOGIA_INLINE inline Quantised quantise(const float* x) {
  float top = 0;
  bool numbers = true;
  for (int i = 0; i < 32; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    top = top < magnitude ? magnitude : top;
    numbers = numbers && x[i] == x[i];
  }
  // What is no number must not come out as one: whole numbers cannot say it, the scale can.
  Quantised to = {.q = {}, .d = numbers ? top / 127 : __builtin_nanf("")};
  const __m256 inverse = _mm256_set1_ps(top > 0 ? 127 / top : 0);
  for (int i = 0; i < 4; ++i) {
    to.q[i] = _mm256_round_ps(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse),
                              _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  return to;
}

// In place: q d.
void round_int8(float* x) {
  const Quantised by = quantise(x);
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(x + 8 * i, _mm256_mul_ps(by.q[i], _mm256_set1_ps(by.d)));
  }
}

/// Bytes of 32 whole numbers in the order of quads.
KOGIA_INLINE inline __m256i quad_bytes(const __m256* q) {
  const __m256i a = _mm256_packs_epi32(_mm256_cvtps_epi32(q[0]), _mm256_cvtps_epi32(q[1]));
  const __m256i b = _mm256_packs_epi32(_mm256_cvtps_epi32(q[2]), _mm256_cvtps_epi32(q[3]));
  // Packing works in each half of a vector: fours of columns 0, 8, 16, 24, 4, 12, 20, 28.
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
  return _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
}

// q in the order of quads; d and Σq of each group.
void quantise_row(const ActivationRow& a) {
  std::byte* out = static_cast<std::byte*>(a.out);
  for (Index c = 0; c < a.n_padded; c += 32) {
    float x[32], q[32];
    for (Index i = 0; i < 32; ++i) x[i] = c + i < a.n ? a.x[c + i] : 0;
    const Quantised by = quantise(x);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), quad_bytes(by.q));
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(q + 8 * i, by.q[i]);
    float sum[2] = {0, 0};  // of whole numbers: exact in any order
    for (int i = 0; i < 32; ++i) sum[i / 16] += q[i];
    float* to = a.sums + 2 * (c / a.group);
    to[0] = by.d, to[1] = a.group == 32 ? sum[0] + sum[1] : sum[0];
    if (a.group == 16) to[2] = by.d, to[3] = sum[1];
  }
}

void round_row(const ActivationRow& a) {
  if (a.form == Products::int8) return quantise_row(a);
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
