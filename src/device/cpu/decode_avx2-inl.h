#pragma once
// Scales and codes of a group (cpu/packed.h) into AVX2 registers, eight of a panel's sixteen
// outputs in a vector: part of linear_avx2.cc.

#include <immintrin.h>

#include "device/cpu/packed.h"
#include "device/cpu/weight_stream-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

KOGIA_INLINE inline __m256i load(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
KOGIA_INLINE inline __m256 load_halves(const std::byte* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}
KOGIA_INLINE inline __m128i load_bytes(const std::byte* at) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
}

/// Of outputs 8 half … 8 half + 7.
struct ScaleMin {
  __m256 scale, min;
};
template <ScaleType kScale, bool kMin>
KOGIA_INLINE inline ScaleMin load_scales(const PackedView& w, const GroupAt& at, int half) {
  const std::byte* head = at.record + 16 * half;  // of f16 numbers
  const Index n = w.groups_per_record;
  const __m256 none = _mm256_setzero_ps();
  if constexpr (kScale == ScaleType::f16) {
    return {load_halves(head + at.i * 32), kMin ? load_halves(head + (n + at.i) * 32) : none};
  } else if constexpr (kScale == ScaleType::f32) {
    return {_mm256_loadu_ps(reinterpret_cast<const float*>(at.record) + 8 * half), none};
  } else if constexpr (kScale == ScaleType::parts) {
    const std::byte* parts = at.record + (kMin ? 64 : 32) + at.i * 16 + 8 * half;
    const __m256i s = _mm256_cvtepi8_epi32(load_bytes(parts));
    const __m256 scale = _mm256_mul_ps(load_halves(head), _mm256_cvtepi32_ps(s));
    if constexpr (!kMin) return {scale, none};
    const __m256i m = _mm256_cvtepu8_epi32(load_bytes(parts + n * 16));
    return {scale, _mm256_mul_ps(load_halves(head + 32), _mm256_cvtepi32_ps(m))};
  } else if constexpr (kScale == ScaleType::nibbles) {
    const __m256i both = _mm256_cvtepu8_epi32(load_bytes(at.record + 64 + at.i * 16 + 8 * half));
    const __m256i s = _mm256_and_si256(both, _mm256_set1_epi32(15));
    const __m256i m = _mm256_srli_epi32(both, 4);
    return {_mm256_mul_ps(load_halves(head), _mm256_cvtepi32_ps(s)),
            _mm256_mul_ps(load_halves(head + 32), _mm256_cvtepi32_ps(m))};
  } else {
    return {none, none};
  }
}

// --- codes as bytes ----------------------------------------------------------------------------

/// 16-bit words to the right, or to the left by -n.
KOGIA_INLINE inline __m256i shift_words(__m256i v, int n) {
  return n > 0 ? _mm256_srli_epi16(v, n) : n < 0 ? _mm256_slli_epi16(v, -n) : v;
}

/// Slot s of a group: four columns of each output, as bytes in the order of quad_column(). Without
/// sign (code - lowest), or of 8 bits as they are.
template <Codes kCodes>
KOGIA_INLINE inline __m256i quad(const GroupAt& at, int s, int half) {
  constexpr int kLow = plane_bits(kCodes).low, kHigh = plane_bits(kCodes).high;
  const __m256i plane = load(at.low + s * kLow / 8 * 64 + 32 * half);
  if constexpr (kLow == 8) return plane;
  const __m256i low_mask = _mm256_set1_epi8(static_cast<char>((1 << kLow) - 1));
  const __m256i code = _mm256_and_si256(shift_words(plane, s * kLow % 8), low_mask);
  if constexpr (kHigh == 0) return code;
  __m256i high = load(at.high + 32 * half);
  if constexpr (kCodes == Codes::q3) {  // two groups share the plane
    high = _mm256_srl_epi16(high, _mm_cvtsi32_si128(static_cast<int>(at.i % 2 * 4)));
  }
  const __m256i above = shift_words(high, s * kHigh - kLow);
  const __m256i high_mask = _mm256_set1_epi8(static_cast<char>(((1 << kHigh) - 1) << kLow));
  return _mm256_or_si256(code, _mm256_and_si256(above, high_mask));
}

/// Quads of a group, [slots][16][4], in `buffer` or where the matrix keeps them.
template <Codes kCodes>
KOGIA_INLINE inline const std::byte* decode_quads(const GroupAt& at, std::byte* buffer) {
  if constexpr (kCodes == Codes::q8) return at.low;
  KOGIA_UNROLL
  for (int s = 0; s < group_columns(kCodes) / 4; ++s) {
    for (int half = 0; half < 2; ++half) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(buffer + s * 64 + 32 * half),
                          quad<kCodes>(at, s, half));
    }
  }
  return buffer;
}

// --- codes as f32 ------------------------------------------------------------------------------

/// Whole numbers: byte i of each lane. Where there is a minimum the lowest is 0.
template <Codes kCodes, bool kMin>
struct Numbers {
  __m256 lowest;
  explicit KOGIA_INLINE inline Numbers(const PackedView& w)
      : lowest(_mm256_set1_ps(static_cast<float>(w.lowest))) {}

  template <int i>
  KOGIA_INLINE inline __m256 value(__m256i quad) const {
    if constexpr (kCodes == Codes::q8) {
      return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(quad, 24 - 8 * i), 24));
    }
    constexpr int kNone = -128;  // a byte of zeros
    const __m128i lanes = _mm_setr_epi8(i, kNone, kNone, kNone, 4 + i, kNone, kNone, kNone, 8 + i,
                                        kNone, kNone, kNone, 12 + i, kNone, kNone, kNone);
    const __m256i code = i == 0   ? _mm256_and_si256(quad, _mm256_set1_epi32(255))
                         : i == 3 ? _mm256_srli_epi32(quad, 24)
                                  : _mm256_shuffle_epi8(quad, _mm256_broadcastsi128_si256(lanes));
    const __m256 v = _mm256_cvtepi32_ps(code);
    return kMin ? v : _mm256_add_ps(v, lowest);  // exact
  }
};

/// FP8 by arithmetic: a code whose magnitude is moved to where f32 has exponent and mantissa is the
/// value times a power of two, also of subnormals. Only infinities and NaN look like numbers there.
template <>
struct Numbers<Codes::fp8, false> {
  __m128i shift;
  __m256i mask, greatest;  // of 16 bits; of 8 bits, a number's code
  __m256 power;

  explicit KOGIA_INLINE inline Numbers(const PackedView& w) {
    const bool e4m3 = w.table[0x38] == 0x3F80;  // 1; in E5M2 it is a half
    shift = _mm_cvtsi32_si128(e4m3 ? 4 : 3);
    mask = _mm256_set1_epi16(static_cast<short>(e4m3 ? 0x87F0 : 0x8FE0));
    greatest = _mm256_set1_epi8(e4m3 ? 0x7E : 0x7B);
    power = _mm256_set1_ps(e4m3 ? 0x1p120F : 0x1p112F);
  }
  /// Whether all of a group are numbers.
  KOGIA_INLINE inline bool plain(const GroupAt& at, int half) const {
    __m256i top = _mm256_setzero_si256();
    KOGIA_UNROLL
    for (int s = 0; s < 8; ++s) {
      const __m256i magnitude =
          _mm256_and_si256(load(at.low + s * 64 + 32 * half), _mm256_set1_epi8(127));
      top = _mm256_max_epu8(top, magnitude);
    }
    return _mm256_movemask_epi8(_mm256_cmpgt_epi8(top, greatest)) == 0;
  }
  /// The upper halves of f32, of the bytes 0 and 2 of a quad, or 1 and 3.
  template <bool kPlain, int kFirst>
  KOGIA_INLINE inline __m256i words(__m256i quad) const {
    const __m256i top = kFirst == 0 ? _mm256_slli_epi16(quad, 8) : quad;
    const __m256i word = _mm256_and_si256(_mm256_sra_epi16(top, shift), mask);
    if constexpr (kPlain) return word;
    const __m256i magnitude = _mm256_and_si256(_mm256_srli_epi16(top, 8), _mm256_set1_epi16(127));
    const __m256i bound = _mm256_and_si256(greatest, _mm256_set1_epi16(127));
    const __m256i ones =
        _mm256_and_si256(_mm256_cmpgt_epi16(magnitude, bound), _mm256_set1_epi16(0x7F80));
    return _mm256_or_si256(word, ones);
  }
  KOGIA_INLINE inline __m256 low_value(__m256i words) const {
    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(words, 16)), power);
  }
  KOGIA_INLINE inline __m256 high_value(__m256i words) const {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_and_si256(words, upper)), power);
  }
};

template <bool kPlain, class Use>
KOGIA_INLINE inline void walk_fp8(const Numbers<Codes::fp8, false>& numbers, const GroupAt& at,
                                  int half, const Use& use) {
  KOGIA_UNROLL
  for (int k = 0; k < 4; ++k) {
    const __m256i a = load(at.low + 2 * k * 64 + 32 * half);
    const __m256i b = load(at.low + (2 * k + 1) * 64 + 32 * half);
    const int c = 8 * k;
    const __m256i a02 = numbers.words<kPlain, 0>(a), b02 = numbers.words<kPlain, 0>(b);
    use(c, numbers.low_value(a02));
    use(c + 1, numbers.high_value(a02));
    use(c + 2, numbers.low_value(b02));
    use(c + 3, numbers.high_value(b02));
    const __m256i a13 = numbers.words<kPlain, 1>(a), b13 = numbers.words<kPlain, 1>(b);
    use(c + 4, numbers.low_value(a13));
    use(c + 5, numbers.high_value(a13));
    use(c + 6, numbers.low_value(b13));
    use(c + 7, numbers.high_value(b13));
  }
}

/// Calls use(column, values) for the columns of a group in order, not scaled.
template <Codes kCodes, bool kMin, class Use>
KOGIA_INLINE inline void walk_values(const Numbers<kCodes, kMin>& numbers, const GroupAt& at,
                                     int half, const Use& use) {
  if constexpr (kCodes == Codes::fp8) {
    if (numbers.plain(at, half)) return walk_fp8<true>(numbers, at, half, use);
    return walk_fp8<false>(numbers, at, half, use);
  }
  KOGIA_UNROLL
  for (int k = 0; k < group_columns(kCodes) / 8; ++k) {
    if constexpr (kCodes == Codes::f32) {
      KOGIA_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int c = 8 * k + i;
        use(c, _mm256_castsi256_ps(load(at.low + c * 64 + 32 * half)));
      }
    } else if constexpr (kCodes == Codes::f16) {
      KOGIA_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int c = 8 * k + i;
        use(c, load_halves(at.low + c * 32 + 16 * half));
      }
    } else if constexpr (kCodes == Codes::bf16) {
      KOGIA_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int c = 8 * k + 2 * i;
        const __m256i pair = load(at.low + c * 32 + 32 * half);
        const __m256i odd = _mm256_set1_epi32(static_cast<int>(0xFFFF0000));
        use(c, _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)));
        use(c + 1, _mm256_castsi256_ps(_mm256_and_si256(pair, odd)));
      }
    } else if constexpr (kCodes != Codes::fp8) {
      const __m256i a = quad<kCodes>(at, 2 * k, half), b = quad<kCodes>(at, 2 * k + 1, half);
      const int c = 8 * k;
      use(c, numbers.template value<0>(a));
      use(c + 1, numbers.template value<2>(a));
      use(c + 2, numbers.template value<0>(b));
      use(c + 3, numbers.template value<2>(b));
      use(c + 4, numbers.template value<1>(a));
      use(c + 5, numbers.template value<3>(a));
      use(c + 6, numbers.template value<1>(b));
      use(c + 7, numbers.template value<3>(b));
    }
  }
}

/// Calls use.template operator()<codes, scale, has_min>().
template <class Use>
KOGIA_INLINE inline void for_layout(const PackedView& w, const Use& use) {
  using enum ScaleType;
  const auto blocks = [&]<Codes kCodes>() {
    if (w.scale == f32) return use.template operator()<kCodes, f32, false>();
    if (w.scale == parts && w.has_min) return use.template operator()<kCodes, parts, true>();
    if (w.scale == parts) return use.template operator()<kCodes, parts, false>();
    if (w.has_min) return use.template operator()<kCodes, f16, true>();
    use.template operator()<kCodes, f16, false>();
  };
  switch (w.codes) {
    case Codes::q2:
      return use.template operator()<Codes::q2, nibbles, true>();
    case Codes::q3:
      return use.template operator()<Codes::q3, parts, false>();
    case Codes::q4:
      return blocks.template operator()<Codes::q4>();
    case Codes::q5:
      return blocks.template operator()<Codes::q5>();
    case Codes::q6:
      return use.template operator()<Codes::q6, parts, false>();
    case Codes::q8:
    case Codes::s8:  // only where bf16 pairs are multiplied
      if (w.scale == parts) return use.template operator()<Codes::q8, parts, false>();
      return use.template operator()<Codes::q8, f16, false>();
    case Codes::fp8:
      if (w.scale == none) return use.template operator()<Codes::fp8, none, false>();
      return use.template operator()<Codes::fp8, f32, false>();
    case Codes::bf16:
      return use.template operator()<Codes::bf16, none, false>();
    case Codes::f16:
      return use.template operator()<Codes::f16, none, false>();
    case Codes::f32:
      break;
  }
  use.template operator()<Codes::f32, none, false>();
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
