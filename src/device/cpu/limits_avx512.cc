// The probe's loops with AVX-512: f32 multiply-adds, bf16 dot products, VNNI (limits.h).

#include <immintrin.h>

#include "device/cpu/limits.h"

namespace kogia::avx512 {
namespace {

#define KOGIA_INLINE __attribute__((always_inline))

// Two of each instruction a cycle, four to five cycles until the next of a chain: 16 is plenty.
constexpr int kChains = 16;

/// The same value, of which the compiler knows no more: so no two chains are one to it, and no
/// product leaves the loop.
template <class V>
KOGIA_INLINE inline V opaque(V v) {
  asm volatile("" : "+v"(v));
  return v;
}

double f32(Index rounds) {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512 one = opaque(_mm512_set1_ps(1));
  for (Index r = 0; r < rounds; ++r) {
    for (__m512& sum : sums) sum = opaque(_mm512_fmadd_ps(one, one, sum));
  }
  double total = 0;
  for (const __m512 sum : sums) {
    alignas(64) float lanes[16];
    _mm512_store_ps(lanes, sum);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

double bf16(Index rounds) {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const auto ones = (__m512bh)opaque(_mm512_set1_epi16(0x3F80));
  for (Index r = 0; r < rounds; ++r) {
    for (__m512& sum : sums) sum = opaque(_mm512_dpbf16_ps(sum, ones, ones));
  }
  double total = 0;
  for (const __m512 sum : sums) {
    alignas(64) float lanes[16];
    _mm512_store_ps(lanes, sum);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

/// Of whole numbers; add(sum, ones) is the instruction.
template <class Add>
KOGIA_INLINE inline double whole(Index rounds, __m512i ones, const Add& add) {
  __m512i sums[kChains];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  ones = opaque(ones);
  for (Index r = 0; r < rounds; ++r) {
    for (__m512i& sum : sums) sum = opaque(add(sum, ones));
  }
  double total = 0;
  for (const __m512i sum : sums) {
    alignas(64) std::int32_t lanes[16];
    _mm512_store_si512(lanes, sum);
    for (const std::int32_t lane : lanes) total += lane;
  }
  return total;
}

double int16(Index rounds) {
  return whole(rounds, _mm512_set1_epi16(1), [](__m512i sum, __m512i ones) KOGIA_INLINE {
    return _mm512_dpwssd_epi32(sum, ones, ones);
  });
}

double int8(Index rounds) {
  return whole(rounds, _mm512_set1_epi8(1), [](__m512i sum, __m512i ones) KOGIA_INLINE {
    return _mm512_dpbusd_epi32(sum, ones, ones);
  });
}

template <Index kStreams, bool kAhead>
std::uint64_t read(const std::byte* p, Index n) {
  __m512i seen[kReadStep / 64];
  for (__m512i& words : seen) words = _mm512_setzero_si512();
  const Index stream = n / kStreams;
  for (Index at = 0; at < stream; at += kReadStep) {
    for (Index s = 0; s < kStreams; ++s) {
      const std::byte* from = p + s * stream + at;
      for (int line = 0; line < kReadStep / 64; ++line) {
        if (kAhead) _mm_prefetch(from + kPrefetchBytes + 64 * line, _MM_HINT_T0);
        seen[line] = _mm512_xor_si512(seen[line], _mm512_loadu_si512(from + 64 * line));
      }
    }
  }
  std::uint64_t all = 0;
  for (const __m512i words : seen) {
    alignas(64) std::uint64_t lanes[8];
    _mm512_store_si512(lanes, words);
    for (const std::uint64_t lane : lanes) all ^= lane;
  }
  return all;
}

std::uint64_t read_by(const std::byte* p, Index n, ReadPattern pattern) {
  switch (pattern) {
    case ReadPattern::kPlain:
      break;
    case ReadPattern::kStreams:
      return read<kReadStreams, false>(p, n);
    case ReadPattern::kPrefetch:
      return read<1, true>(p, n);
    case ReadPattern::kStreamsPrefetch:
      return read<kReadStreams, true>(p, n);
  }
  return read<1, false>(p, n);
}

}  // namespace

constinit const LimitLoops kLimitLoops = {.f32 = {.products = 16 * kChains, .run = f32},
                                          .bf16 = {.products = 32 * kChains, .run = bf16},
                                          .int16 = {.products = 32 * kChains, .run = int16},
                                          .int8 = {.products = 64 * kChains, .run = int8},
                                          .read = read_by};

}  // namespace kogia::avx512
