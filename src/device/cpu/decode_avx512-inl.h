#pragma once
// Scales and codes of a group (cpu/packed.h) into AVX-512 registers: part of linear_avx512.cc.

#include <immintrin.h>

#include "device/cpu/packed.h"
#include "device/cpu/weight_stream-inl.h"

namespace kogia::avx512 {
namespace {

KOGIA_INLINE inline __m512 load_halves(const std::byte* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}
KOGIA_INLINE inline __m128i load_bytes(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

struct ScaleMin {
  __m512 scale, min;
};
template <ScaleType kScale, bool kMin>
KOGIA_INLINE inline ScaleMin load_scales(const PackedView& w, GroupAt at) {
  const std::byte* head = at.record;
  const Index n = w.groups_per_record;
  const __m512 none = _mm512_setzero_ps();
  if constexpr (kScale == ScaleType::f16) {
    return {load_halves(head + at.i * 32), kMin ? load_halves(head + (n + at.i) * 32) : none};
  } else if constexpr (kScale == ScaleType::f32) {
    return {_mm512_loadu_ps(reinterpret_cast<const float*>(head)), none};
  } else if constexpr (kScale == ScaleType::parts) {
    const std::byte* parts = head + (kMin ? 64 : 32) + at.i * 16;
    const __m512i s = _mm512_cvtepi8_epi32(load_bytes(parts));
    const __m512 scale = _mm512_mul_ps(load_halves(head), _mm512_cvtepi32_ps(s));
    if constexpr (!kMin) return {scale, none};
    const __m512i m = _mm512_cvtepu8_epi32(load_bytes(parts + n * 16));
    return {scale, _mm512_mul_ps(load_halves(head + 32), _mm512_cvtepi32_ps(m))};
  } else if constexpr (kScale == ScaleType::nibbles) {
    const __m512i both = _mm512_cvtepu8_epi32(load_bytes(head + 64 + at.i * 16));
    const __m512i s = _mm512_and_si512(both, _mm512_set1_epi32(15));
    const __m512i m = _mm512_srli_epi32(both, 4);
    return {_mm512_mul_ps(load_halves(head), _mm512_cvtepi32_ps(s)),
            _mm512_mul_ps(load_halves(head + 32), _mm512_cvtepi32_ps(m))};
  } else {
    return {_mm512_set1_ps(1), none};
  }
}

// --- decoding ----------------------------------------------------------------------------------

/// 16-bit words to the right, or to the left by -kBits.
template <int kBits>
KOGIA_INLINE inline __m512i shift_words(__m512i v) {
  if constexpr (kBits > 0) {
    return _mm512_srli_epi16(v, kBits);
  } else if constexpr (kBits < 0) {
    return _mm512_slli_epi16(v, -kBits);
  }
  return v;
}

/// `low` where mask is set, else `high`.
KOGIA_INLINE inline __m512i select_bits(__m512i mask, __m512i low, __m512i high) {
  return _mm512_ternarylogic_epi32(mask, low, high, 0xCA);
}

/// Codes of two planes, the next eight columns at the bottom of both.
template <int kLow, int kHigh>
struct PlaneWords {
  __m512i low, high;

  /// Pair i of the four at the bottom of each word; what is above it does not matter.
  template <int i>
  KOGIA_INLINE inline __m512i pair() const {
    const __m512i at = shift_words<i % 2 * kLow + i / 2 * 8>(low);
    if constexpr (kHigh == 0) return at;
    const __m512i above = shift_words<i % 2 * kHigh + i / 2 * 8 - kLow>(high);
    return select_bits(_mm512_set1_epi16((1 << kLow) - 1), at, above);
  }
  /// Bytes of the two pairs 2t + i.
  template <int i>
  KOGIA_INLINE inline __m512i quad() const {
    __m512i at = shift_words<i * kLow>(low);
    if constexpr (kHigh != 0) {
      const __m512i above = shift_words<i * kHigh - kLow>(high);
      at = select_bits(_mm512_set1_epi8((1 << kLow) - 1), at, above);
    }
    return _mm512_and_si512(at, _mm512_set1_epi8((1 << (kLow + kHigh)) - 1));
  }
};

template <Codes kCodes>
using WordsOf = PlaneWords<plane_bits(kCodes).low, plane_bits(kCodes).high>;

/// From the words of chunk k - 1 of a group to those of chunk k, eight columns each.
template <Codes kCodes>
KOGIA_INLINE inline void next_words(GroupAt at, Index k, WordsOf<kCodes>& words) {
  constexpr int kLow = plane_bits(kCodes).low, kHigh = plane_bits(kCodes).high;
  constexpr Index kOfVector = 4 / kLow;  // chunks
  words.low = k % kOfVector == 0 ? _mm512_loadu_si512(at.low + k / kOfVector * 64)
                                 : shift_words<2 * kLow>(words.low);
  if constexpr (kHigh != 0) {
    words.high = k == 0 ? _mm512_loadu_si512(at.high) : shift_words<2 * kHigh>(words.high);
    if constexpr (kCodes == Codes::q3) {  // two groups share the plane
      if (k == 0 && at.i % 2 == 1) words.high = _mm512_srli_epi16(words.high, 4);
    }
  }
}

/// Calls use(words, k) for each chunk k of eight columns of a group.
template <Codes kCodes, class Use>
KOGIA_INLINE inline void walk_planes(GroupAt at, const Use& use) {
  WordsOf<kCodes> words;
  KOGIA_UNROLL
  for (Index k = 0; k < group_columns(kCodes) / 8; ++k) {
    next_words<kCodes>(at, k, words);
    use(words, k);
  }
}

/// What codes are looked up in, to be loaded once for many groups.
template <Codes kCodes>
struct Tables {
  __m512i low, high;
  explicit KOGIA_INLINE inline Tables(const PackedView& w)
      : low(_mm512_loadu_si512(w.table)), high(_mm512_loadu_si512(w.table + 32)) {}
  /// bf16 values of words.
  KOGIA_INLINE inline __m512i value(__m512i codes) const {
    if constexpr (kCodes != Codes::q6) return _mm512_permutexvar_epi16(codes, low);
    return _mm512_permutex2var_epi16(low, codes, high);
  }
};

/// Bytes with a sign: the two bytes of the 128 values.
struct ByteTables {
  __m512i low[2], high[2];
  explicit KOGIA_INLINE inline ByteTables(const PackedView& w) {
    for (int i = 0; i < 2; ++i) {
      const __m512i a = _mm512_loadu_si512(w.table + 64 * i);
      const __m512i b = _mm512_loadu_si512(w.table + 64 * i + 32);
      low[i] = join(_mm512_cvtepi16_epi8(a), _mm512_cvtepi16_epi8(b));
      high[i] = join(_mm512_cvtepi16_epi8(_mm512_srli_epi16(a, 8)),
                     _mm512_cvtepi16_epi8(_mm512_srli_epi16(b, 8)));
    }
  }
  /// Two vectors of bf16, of the lower and of the upper byte of each word.
  KOGIA_INLINE inline void values(__m512i bytes, __m512i& of_low, __m512i& of_high) const {
    const __m512i magnitude = _mm512_permutex2var_epi8(high[0], bytes, high[1]);
    const __m512i l = _mm512_permutex2var_epi8(low[0], bytes, low[1]);
    const __m512i h = _mm512_ternarylogic_epi32(magnitude, bytes, _mm512_set1_epi8(-128), 0xF8);
    const __m512i lower = _mm512_set1_epi16(0xFF);
    of_low = select_bits(lower, l, _mm512_slli_epi16(h, 8));
    of_high = select_bits(lower, _mm512_srli_epi16(l, 8), h);
  }

 private:
  KOGIA_INLINE static inline __m512i join(__m256i a, __m256i b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
  }
};
template <>
struct Tables<Codes::s8> : ByteTables {
  using ByteTables::ByteTables;
};
template <>
struct Tables<Codes::fp8> : ByteTables {
  using ByteTables::ByteTables;
};
template <>
struct Tables<Codes::q8> {
  explicit KOGIA_INLINE inline Tables(const PackedView&) {}
};
template <>
struct Tables<Codes::bf16> {
  explicit KOGIA_INLINE inline Tables(const PackedView&) {}
};
template <>
struct Tables<Codes::f32> {
  explicit KOGIA_INLINE inline Tables(const PackedView&) {}
};

template <Codes kCodes>
KOGIA_INLINE inline void decode_planes(const Tables<kCodes>& tables, GroupAt at, __m512i* pairs) {
  walk_planes<kCodes>(at, [&](const WordsOf<kCodes>& words, Index k) {
    pairs[4 * k] = tables.value(words.template pair<0>());
    pairs[4 * k + 1] = tables.value(words.template pair<1>());
    pairs[4 * k + 2] = tables.value(words.template pair<2>());
    pairs[4 * k + 3] = tables.value(words.template pair<3>());
  });
}

// The upper halves of two vectors of f32, as pairs of bf16.
KOGIA_INLINE inline __m512i join(__m512 even, __m512 odd) {
  return _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(_mm512_castps_si512(even), 16),
                                 _mm512_castps_si512(odd));
}

/// The byte that begins at bit `24 - kLeft` of each 32, as f32.
template <int kLeft>
KOGIA_INLINE inline __m512 byte_value(__m512i v) {
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(v, kLeft), 24));
}

KOGIA_INLINE inline void decode_q8(GroupAt at, __m512i* pairs) {
  for (Index v = 0; v < 8; ++v) {  // pairs 4k + i of i = v % 2 and 2 + v % 2
    const __m512i bytes = _mm512_loadu_si512(at.low + v * 64);
    __m512i* to = pairs + v / 2 * 4 + v % 2;
    to[0] = join(byte_value<24>(bytes), byte_value<8>(bytes));
    to[2] = join(byte_value<16>(bytes), byte_value<0>(bytes));
  }
}

KOGIA_INLINE inline void decode_bytes(const ByteTables& tables, GroupAt at, __m512i* pairs) {
  KOGIA_UNROLL
  for (Index v = 0; v < 8; ++v) {
    __m512i* to = pairs + v / 2 * 4 + v % 2;
    tables.values(_mm512_loadu_si512(at.low + v * 64), to[0], to[2]);
  }
}

/// Pairs of bf16 codes of a group, in `buffer` or where the matrix keeps them.
template <Codes kCodes>
KOGIA_INLINE inline const __m512i* decode_pairs(const Tables<kCodes>& tables, GroupAt at,
                                                __m512i* buffer) {
  if constexpr (kCodes == Codes::bf16) {
    return reinterpret_cast<const __m512i*>(at.low);
  } else if constexpr (kCodes == Codes::q8) {
    decode_q8(at, buffer);
  } else if constexpr (kCodes == Codes::s8 || kCodes == Codes::fp8) {
    decode_bytes(tables, at, buffer);
  } else {
    decode_planes<kCodes>(tables, at, buffer);
  }
  return buffer;
}

/// Pairs of the eight columns from 8k on, of codes that need no planes.
template <Codes kCodes>
KOGIA_INLINE inline void next_pairs(const Tables<kCodes>& tables, GroupAt at, Index k,
                                    __m512i* pairs) {
  if constexpr (kCodes == Codes::bf16) {
    KOGIA_UNROLL
    for (Index i = 0; i < 4; ++i) pairs[i] = _mm512_loadu_si512(at.low + (4 * k + i) * 64);
  } else {
    static_assert(kCodes == Codes::fp8);
    tables.values(_mm512_loadu_si512(at.low + 2 * k * 64), pairs[0], pairs[2]);
    tables.values(_mm512_loadu_si512(at.low + (2 * k + 1) * 64), pairs[1], pairs[3]);
  }
}

/// Two columns of f32 of a pair of bf16.
KOGIA_INLINE inline void split(__m512i pair, __m512i& even, __m512i& odd) {
  even = _mm512_slli_epi32(pair, 16);
  odd = _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xFFFF0000)));
}

/// Values of a group of codes that bf16 holds, without their scale, a vector for each column.
template <Codes kCodes>
KOGIA_INLINE inline const __m512i* decode_halves(const Tables<kCodes>& tables, GroupAt at,
                                                 __m512i* values) {
  constexpr int kPairs = group_columns(kCodes) / 2;
  __m512i buffer[kPairs];
  const __m512i* pairs = decode_pairs<kCodes>(tables, at, buffer);
  KOGIA_UNROLL
  for (Index i = 0; i < kPairs; ++i) {
    split(_mm512_loadu_si512(pairs + i), values[2 * i], values[2 * i + 1]);
  }
  return values;
}

/// A pair of planes' codes as it is, without what stands above it.
template <Codes kCodes>
KOGIA_INLINE inline __m512i code_words(__m512i pair) {
  constexpr int kBits = plane_bits(kCodes).low + plane_bits(kCodes).high;
  return _mm512_and_si512(pair, _mm512_set1_epi16((1 << kBits) - 1));
}

/// Pairs of 16-bit codes: code - lowest, or of 8 bits the code.
template <Codes kCodes>
KOGIA_INLINE inline void decode_words(GroupAt at, __m512i* pairs) {
  if constexpr (kCodes == Codes::q8) {
    KOGIA_UNROLL
    for (Index v = 0; v < 8; ++v) {
      const __m512i bytes = _mm512_loadu_si512(at.low + v * 64);
      __m512i* to = pairs + v / 2 * 4 + v % 2;
      to[0] = _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8);
      to[2] = _mm512_srai_epi16(bytes, 8);
    }
  } else {
    walk_planes<kCodes>(at, [&](const WordsOf<kCodes>& words, Index k) {
      pairs[4 * k] = code_words<kCodes>(words.template pair<0>());
      pairs[4 * k + 1] = code_words<kCodes>(words.template pair<1>());
      pairs[4 * k + 2] = code_words<kCodes>(words.template pair<2>());
      pairs[4 * k + 3] = code_words<kCodes>(words.template pair<3>());
    });
  }
}

/// Quads of codes without sign: code - lowest, or of 8 bits code + 128.
template <Codes kCodes>
KOGIA_INLINE inline void decode_quads(GroupAt at, __m512i* quads) {
  if constexpr (kCodes == Codes::q8) {
    const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
    KOGIA_UNROLL
    for (Index v = 0; v < 8; ++v) {
      quads[v] = _mm512_xor_si512(_mm512_loadu_si512(at.low + v * 64), flip);
    }
  } else {
    walk_planes<kCodes>(at, [&](const WordsOf<kCodes>& words, Index k) {
      quads[2 * k] = words.template quad<0>();
      quads[2 * k + 1] = words.template quad<1>();
    });
  }
}

/// Calls use.template operator()<codes, scale, has_min>() for codes that are no plain values.
template <class Use>
KOGIA_INLINE inline void for_layout(const PackedView& w, const Use& use) {
  using enum ScaleType;
  const auto q45 = [&]<Codes kCodes>() {
    if (w.scale == parts && w.has_min) return use.template operator()<kCodes, parts, true>();
    if (w.scale == f32) return use.template operator()<kCodes, f32, false>();  // mxfp4
    if (w.has_min) return use.template operator()<kCodes, f16, true>();
    use.template operator()<kCodes, f16, false>();
  };
  switch (w.codes) {
    case Codes::q2:
      return use.template operator()<Codes::q2, nibbles, true>();
    case Codes::q3:
      return use.template operator()<Codes::q3, parts, false>();
    case Codes::q4:
      if (w.scale == parts && !w.has_min) {  // iq4_xs
        return use.template operator()<Codes::q4, parts, false>();
      }
      return q45.template operator()<Codes::q4>();
    case Codes::q5:
      return q45.template operator()<Codes::q5>();
    case Codes::q6:
      return use.template operator()<Codes::q6, parts, false>();
    case Codes::q8:
      if (w.scale == parts) return use.template operator()<Codes::q8, parts, false>();  // iq4_xs
      return use.template operator()<Codes::q8, f16, false>();
    case Codes::s8:
      return use.template operator()<Codes::s8, f16, false>();
    case Codes::fp8:
      if (w.scale == none) return use.template operator()<Codes::fp8, none, false>();
      return use.template operator()<Codes::fp8, f32, false>();
    case Codes::bf16:
    case Codes::f16:
    case Codes::f32:
      break;
  }
  use.template operator()<Codes::bf16, none, false>();
}

/// Values of a group, a vector for each column.
const __m512i* decode_values(const PackedView& w, GroupAt at, __m512i* buffer) {
  if (w.codes == Codes::f32) return reinterpret_cast<const __m512i*>(at.low);
  if (w.codes == Codes::f16) {
    for (Index c = 0; c < w.group; ++c) {
      buffer[c] = _mm512_castps_si512(load_halves(at.low + c * 32));
    }
    return buffer;
  }
  __m512i pair_buffer[16];
  const __m512i* pairs = pair_buffer;
  ScaleMin by = {};
  for_layout(w, [&]<Codes kCodes, ScaleType kScale, bool kMin>() {
    pairs = decode_pairs<kCodes>(Tables<kCodes>(w), at, pair_buffer);
    by = load_scales<kScale, kMin>(w, at);
  });
  const bool scaled = w.scale != ScaleType::none;
  for (Index i = 0; i < w.group / 2; ++i) {
    split(_mm512_loadu_si512(pairs + i), buffer[2 * i], buffer[2 * i + 1]);
    __m512 even = _mm512_castsi512_ps(buffer[2 * i]), odd = _mm512_castsi512_ps(buffer[2 * i + 1]);
    if (scaled) even = _mm512_mul_ps(even, by.scale), odd = _mm512_mul_ps(odd, by.scale);
    if (w.has_min) even = _mm512_add_ps(even, by.min), odd = _mm512_add_ps(odd, by.min);
    buffer[2 * i] = _mm512_castps_si512(even);
    buffer[2 * i + 1] = _mm512_castps_si512(odd);
  }
  return buffer;
}

}  // namespace
}  // namespace kogia::avx512
