// Matrix products with AVX2: whole numbers as bytes; every other arithmetic as f32 fused
// multiply-adds of decoded weights, x rounded as the arithmetic says and kept in f32.
//
// Compiled twice: as `avx2`, where bytes are multiplied by vpmaddubsw and vpmaddwd, and as
// `avx2_vnni` for processors with vpdpbusd on these registers (AVX-VNNI). Sums of whole numbers are
// exact, so both give the same bits.
//
// Roofline: one row is bound by reading the weights where they are multiplied as bytes (q4: some 80
// instructions for a group of 256 bytes, by count) and by decoding where not: eight weights cost
// two to five instructions. Many rows: 16 flops an FMA, 64 a vpdpbusd, 64 for two or four
// instructions without it; a group is decoded into L1 once for all rows of the tile, and 6 × 16
// (f32) or 4 × 16 sums stay in registers.
//
// Order of an output's sum: within a group the columns in order from zero (int8: exactly), then
// group after group. It does not depend on the number of rows that share the registers.

#include "device/cpu/decode_avx2-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

/// The layout of the weights, known when a kernel is compiled.
template <Codes kCodesOf, ScaleType kScaleOf, bool kMinOf>
struct Layout {
  static constexpr Codes kCodes = kCodesOf;
  static constexpr ScaleType kScale = kScaleOf;
  static constexpr bool kScaled = kScale != ScaleType::none, kMin = kMinOf;
  static constexpr int kColumns = static_cast<int>(group_columns(kCodes)), kQuads = kColumns / 4;
};

// --- products of f32 ---------------------------------------------------------------------------

/// What scales the values of a group.
template <class L>
struct ValueScale {
  ScaleMin by;
  KOGIA_INLINE inline __m256 operator()(__m256 v) const {
    if constexpr (L::kScaled) v = _mm256_mul_ps(v, by.scale);
    if constexpr (L::kMin) v = _mm256_add_ps(v, by.min);
    return v;
  }
};

/// acc[kRows][16] += x · group, its values in [columns][16].
template <int kRows>
KOGIA_INLINE inline void add_values(const float* values, Index columns, const float* x,
                                    Index x_stride, float* acc) {
  __m256 sum[kRows][2];
  for (auto& s : sum) s[0] = s[1] = _mm256_setzero_ps();
  for (Index c = 0; c < columns; ++c) {
    const __m256 w[2] = {_mm256_loadu_ps(values + c * 16), _mm256_loadu_ps(values + c * 16 + 8)};
    for (int r = 0; r < kRows; ++r) {
      const __m256 xr = _mm256_broadcast_ss(x + r * x_stride + c);
      for (int half = 0; half < 2; ++half)
        sum[r][half] = _mm256_fmadd_ps(w[half], xr, sum[r][half]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int half = 0; half < 2; ++half) {
      float* at = acc + r * 16 + 8 * half;
      _mm256_store_ps(at, _mm256_add_ps(_mm256_load_ps(at), sum[r][half]));
    }
  }
}

/// f32: a step is a column.
template <class L>
struct Values {
  static constexpr Index kOfStep = 1, kSums = 0;
  static constexpr int kBlock = 6;  // rows: 12 registers of sums
  const PackedView& w;
  Numbers<L::kCodes, L::kMin> numbers;
  alignas(32) float buffer[L::kColumns * 16];
  const float* values = nullptr;

  explicit Values(const PackedView& view) : w(view), numbers(view) {}

  void decode(const GroupAt& at) {
    if constexpr (L::kCodes == Codes::f32) {
      values = reinterpret_cast<const float*>(at.low);
      return;
    }
    values = buffer;
    for (int half = 0; half < 2; ++half) {
      const ValueScale<L> scaled = {load_scales<L::kScale, L::kMin>(w, at, half)};
      walk_values(numbers, at, half, [&](int c, __m256 v) KOGIA_INLINE {
        _mm256_store_ps(buffer + c * 16 + 8 * half, scaled(v));
      });
    }
  }
  template <int kRows>
  KOGIA_INLINE inline void add(const float* x, Index x_stride, const float*, Index,
                               float* acc) const {
    add_values<kRows>(values, L::kColumns, x, x_stride, acc);
  }
  /// The same from the registers that weights are decoded in.
  template <int kRows>
  KOGIA_INLINE inline void add_row(const GroupAt& at, const float* x, Index x_stride, const float*,
                                   Index, __m256 (*acc)[2]) const {
    for (int half = 0; half < 2; ++half) {
      const ValueScale<L> scaled = {load_scales<L::kScale, L::kMin>(w, at, half)};
      __m256 sum[kRows];
      for (auto& s : sum) s = _mm256_setzero_ps();
      walk_values(numbers, at, half, [&](int c, __m256 v) KOGIA_INLINE {
        v = scaled(v);
        KOGIA_UNROLL
        for (int r = 0; r < kRows; ++r) {
          sum[r] = _mm256_fmadd_ps(v, _mm256_broadcast_ss(x + r * x_stride + c), sum[r]);
        }
      });
      for (int r = 0; r < kRows; ++r) acc[r][half] = _mm256_add_ps(acc[r][half], sum[r]);
    }
  }
};

// --- products of bytes -------------------------------------------------------------------------

#ifdef __AVXVNNI__

template <class L>
struct QuadSum {
  // Bytes with sign are made larger by 128: the instruction wants them without.
  static constexpr int kMore = L::kCodes == Codes::q8 ? 128 : 0;
  __m256i sum;
  KOGIA_INLINE inline void begin(int from) { sum = _mm256_set1_epi32(from); }
  static KOGIA_INLINE inline __m256i weights(__m256i quad) {
    return kMore == 0 ? quad : _mm256_xor_si256(quad, _mm256_set1_epi8(-128));
  }
  template <int>
  KOGIA_INLINE inline void add(__m256i w, __m256i x) {
    sum = _mm256_dpbusd_avx_epi32(sum, w, x);
  }
};

#else

/// Products of a few quads are added in 16 bits: 2 · 127 · code · kBatch < 2¹⁵. Eight bits with
/// sign: |w| and x with w's sign, 2 · 128 · 127 < 2¹⁵.
template <class L>
struct QuadSum {
  static constexpr int kMore = 0;
  static constexpr int kBatch = L::kCodes == Codes::q8   ? 1
                                : L::kCodes == Codes::q6 ? 2
                                : L::kCodes == Codes::q4 ? 8
                                                         : 4;
  __m256i sum, sixteen;
  KOGIA_INLINE inline void begin(int from) { sum = _mm256_set1_epi32(from); }
  static KOGIA_INLINE inline __m256i weights(__m256i quad) { return quad; }
  template <int kStep>
  KOGIA_INLINE inline void add(__m256i w, __m256i x) {
    __m256i products;
    if constexpr (L::kCodes == Codes::q8) {
      products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    } else {
      products = _mm256_maddubs_epi16(w, x);
    }
    sixteen = kStep % kBatch == 0 ? products : _mm256_add_epi16(sixteen, products);
    if constexpr (kStep % kBatch == kBatch - 1) {
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(sixteen, _mm256_set1_epi16(1)));
    }
  }
};

#endif

/// acc + scale d · sum (+ min · d Σq), of x = d q.
template <class L>
KOGIA_INLINE inline __m256 add_scaled(const ScaleMin& by, __m256i sum, const float* x_sum,
                                      __m256 acc) {
  const __m256 scale = _mm256_mul_ps(by.scale, _mm256_broadcast_ss(x_sum));
  acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, acc);
  if constexpr (!L::kMin) return acc;
  return _mm256_fmadd_ps(by.min, _mm256_set1_ps(x_sum[0] * x_sum[1]), acc);
}

/// sum[kRows][2] = x · quads, of which quad_of(step, half) are the weights.
template <class L, int kRows, class QuadOf>
KOGIA_INLINE inline void sum_quads(const PackedView& w, const float* x, Index x_stride,
                                   const float* sums, Index sums_stride, const QuadOf& quad_of,
                                   QuadSum<L> (*sum)[2]) {
  using Sum = QuadSum<L>;
  const int lowest = L::kMin ? 0 : w.lowest - Sum::kMore;
  KOGIA_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const int from = L::kMin ? 0 : lowest * static_cast<int>(sums[r * sums_stride + 1]);
    sum[r][0].begin(from), sum[r][1].begin(from);
  }
  const auto step = [&]<int kStep>() KOGIA_INLINE {
    const __m256i a = Sum::weights(quad_of(kStep, 0)), b = Sum::weights(quad_of(kStep, 1));
    KOGIA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const __m256i xr = _mm256_castps_si256(_mm256_broadcast_ss(x + r * x_stride + kStep));
      sum[r][0].template add<kStep>(a, xr);
      sum[r][1].template add<kStep>(b, xr);
    }
  };
  step.template operator()<0>(), step.template operator()<1>();
  step.template operator()<2>(), step.template operator()<3>();
  if constexpr (L::kQuads == 8) {
    step.template operator()<4>(), step.template operator()<5>();
    step.template operator()<6>(), step.template operator()<7>();
  }
}

/// int8: a step is four columns.
template <class L>
struct Quads {
  static constexpr Index kOfStep = 4, kSums = 2;
  static constexpr int kBlock = 4;  // rows: 8 registers of sums
  const PackedView& w;
  alignas(32) std::byte buffer[L::kQuads * 64];
  const std::byte* quads = nullptr;
  ScaleMin by[2];

  explicit Quads(const PackedView& view) : w(view) {}

  void decode(const GroupAt& at) {
    quads = decode_quads<L::kCodes>(at, buffer);
    for (int half = 0; half < 2; ++half) by[half] = load_scales<L::kScale, L::kMin>(w, at, half);
  }
  template <int kRows>
  KOGIA_INLINE inline void add(const float* x, Index x_stride, const float* sums, Index sums_stride,
                               float* acc) const {
    QuadSum<L> sum[kRows][2];
    const auto of = [this](int s, int half)
                        KOGIA_INLINE { return load(quads + s * 64 + 32 * half); };
    sum_quads<L, kRows>(w, x, x_stride, sums, sums_stride, of, sum);
    for (int r = 0; r < kRows; ++r) {
      for (int half = 0; half < 2; ++half) {
        float* at = acc + r * 16 + 8 * half;
        _mm256_store_ps(at, add_scaled<L>(by[half], sum[r][half].sum, sums + r * sums_stride,
                                          _mm256_load_ps(at)));
      }
    }
  }
  /// The same from the registers that weights are decoded in.
  template <int kRows>
  KOGIA_INLINE inline void add_row(const GroupAt& at, const float* x, Index x_stride,
                                   const float* sums, Index sums_stride, __m256 (*acc)[2]) const {
    QuadSum<L> sum[kRows][2];
    const auto of = [&at](int s, int half) KOGIA_INLINE { return quad<L::kCodes>(at, s, half); };
    sum_quads<L, kRows>(w, x, x_stride, sums, sums_stride, of, sum);
    for (int half = 0; half < 2; ++half) {
      const ScaleMin scales = load_scales<L::kScale, L::kMin>(w, at, half);
      for (int r = 0; r < kRows; ++r) {
        acc[r][half] =
            add_scaled<L>(scales, sum[r][half].sum, sums + r * sums_stride, acc[r][half]);
      }
    }
  }
};

// --- tiles -------------------------------------------------------------------------------------

void finish(const LinearTile& t, Index panel, const float* acc) {
  const Index begin = panel * kPanelRows, left = t.w->rows - begin;
  const Index n = left < kPanelRows ? left : kPanelRows;
  for (Index r = 0; r < t.rows; ++r) {
    const Index to = r * t.y_stride + begin;
    if (n == kPanelRows) {
      for (Index i = 0; i < kPanelRows; i += 8) {
        __m256 y = _mm256_load_ps(acc + r * 16 + i);
        if (t.bias != nullptr) y = _mm256_add_ps(y, _mm256_loadu_ps(t.bias + begin + i));
        if (t.residual != nullptr) y = _mm256_add_ps(y, _mm256_loadu_ps(t.residual + to + i));
        _mm256_storeu_ps(t.y + to + i, y);
      }
      continue;
    }
    for (Index i = 0; i < n; ++i) {
      float y = acc[r * 16 + i];
      if (t.bias != nullptr) y += t.bias[begin + i];
      if (t.residual != nullptr) y += t.residual[to + i];
      t.y[to + i] = y;
    }
  }
}

/// One row, as a decoded token has, or a few, through one panel: weights go from the registers they
/// are decoded in into the products. The same sums as by way of a buffer.
template <class Group, int kRows>
void run_rows(const LinearTile& t, const Group& group, Index panel, Stream& stream) {
  const PackedView& w = *t.w;
  const Index steps = w.group / Group::kOfStep;
  __m256 acc[kRows][2];
  for (auto& a : acc) a[0] = a[1] = _mm256_setzero_ps();
  const float *x = t.x, *sums = t.sums;
  Walk walk = {w, w.panel(panel)};
  for (Index g = 0; g < w.n_groups; ++g) {
    const GroupAt at = walk.next();
    stream.reach(at.low);
    group.template add_row<kRows>(at, x, t.x_stride, sums, t.sums_stride, acc);
    x += steps, sums += Group::kSums;
  }
  alignas(32) float rows[kRows * 16];
  for (int r = 0; r < kRows; ++r) {
    _mm256_store_ps(rows + r * 16, acc[r][0]);
    _mm256_store_ps(rows + r * 16 + 8, acc[r][1]);
  }
  finish(t, panel, rows);
}

/// Many rows: a group is decoded once for all.
template <class Group>
void run_panel(const LinearTile& t, Group& group, Index panel, Stream& stream) {
  const PackedView& w = *t.w;
  const Index steps = w.group / Group::kOfStep;
  alignas(32) float acc[kTileRows * 16];
  for (Index i = 0; i < t.rows * 16; i += 8) _mm256_store_ps(acc + i, _mm256_setzero_ps());
  Walk walk = {w, w.panel(panel)};
  for (Index g = 0; g < w.n_groups; ++g) {
    const GroupAt at = walk.next();
    stream.reach(at.low);
    group.decode(at);
    Index r = 0;
    const auto add = [&]<int kRows>() KOGIA_INLINE {
      for (; r + kRows <= t.rows; r += kRows) {
        group.template add<kRows>(t.x + g * steps + r * t.x_stride, t.x_stride,
                                  t.sums + g * Group::kSums + r * t.sums_stride, t.sums_stride,
                                  acc + r * 16);
      }
    };
    add.template operator()<Group::kBlock>();
    if constexpr (Group::kBlock > 4) add.template operator()<4>();
    add.template operator()<2>();
    add.template operator()<1>();
  }
  finish(t, panel, acc);
}

template <class Group>
void run_tile(const LinearTile& t) {
  Group group(*t.w);
  Stream stream(t);
  const auto rows = [&]<int kRows>() {
    for (Index panel = t.panel_begin; panel < t.panel_end; ++panel) {
      run_rows<Group, kRows>(t, group, panel, stream);
    }
  };
  if (t.rows == 1) return rows.template operator()<1>();
  if (t.rows == 2) return rows.template operator()<2>();
  if (t.rows == 3) return rows.template operator()<3>();
  if (t.rows == 4) return rows.template operator()<4>();
  for (Index panel = t.panel_begin; panel < t.panel_end; ++panel) {
    run_panel(t, group, panel, stream);
  }
}

void tile(const LinearTile& t) {
  const bool bytes = t.w->products == Products::int8;
  for_layout(*t.w, [&t, bytes]<Codes kCodes, ScaleType kScale, bool kMin>() {
    using L = Layout<kCodes, kScale, kMin>;
    if constexpr (kCodes <= Codes::q8) {
      if (bytes) return run_tile<Quads<L>>(t);
    }
    run_tile<Values<L>>(t);
  });
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
KOGIA_INLINE inline float greatest(__m256 v) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
KOGIA_INLINE inline Quantised quantise(const float* x) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  __m256 top8 = _mm256_setzero_ps(), strange = _mm256_setzero_ps();
  for (int i = 0; i < 4; ++i) {
    const __m256 v = _mm256_loadu_ps(x + 8 * i);
    top8 = _mm256_max_ps(_mm256_and_ps(v, magnitude), top8);  // the second where one is no number
    strange = _mm256_or_ps(strange, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }
  const float top = greatest(top8);
  const bool numbers = _mm256_movemask_ps(strange) == 0;
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

/// Of whole numbers: exact in any order.
KOGIA_INLINE inline float total(__m256 v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

// q in the order of quads; d and Σq of each group.
void quantise_row(const ActivationRow& a) {
  std::byte* out = static_cast<std::byte*>(a.out);
  for (Index c = 0; c < a.n_padded; c += 32) {
    float some[32];  // the last columns
    const bool whole = c + 32 <= a.n;
    for (Index i = 0; !whole && i < 32; ++i) some[i] = c + i < a.n ? a.x[c + i] : 0;
    const Quantised by = quantise(whole ? a.x + c : some);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + c), quad_bytes(by.q));
    const float sum[2] = {total(_mm256_add_ps(by.q[0], by.q[1])),
                          total(_mm256_add_ps(by.q[2], by.q[3]))};
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
    .pair_products = false, .whole_sums = 2, .round_row = round_row, .tile = tile};

}  // namespace kogia::KOGIA_ISA
