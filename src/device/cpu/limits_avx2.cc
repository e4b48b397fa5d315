// The probe's loops with AVX2: f32 multiply-adds; bytes as vpmaddubsw and vpmaddwd, which is how
// the kernels multiply them (limits.h).

#include <immintrin.h>

#include "device/cpu/limits.h"

namespace kogia::avx2 {
namespace {

#define KOGIA_INLINE __attribute__((always_inline))

// 16 registers: the chains and what they multiply.
constexpr int kFloatChains = 12, kByteChains = 8;

/// The same value, of which the compiler knows no more: so no two chains are one to it, and no
/// product leaves the loop.
template <class V>
KOGIA_INLINE inline V opaque(V v) {
  asm volatile("" : "+x"(v));
  return v;
}

double f32(Index rounds) {
  __m256 sums[kFloatChains];
  for (__m256& sum : sums) sum = _mm256_setzero_ps();
  const __m256 one = opaque(_mm256_set1_ps(1));
  for (Index r = 0; r < rounds; ++r) {
    for (__m256& sum : sums) sum = opaque(_mm256_fmadd_ps(one, one, sum));
  }
  double total = 0;
  for (const __m256 sum : sums) {
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, sum);
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

double int8(Index rounds) {
  __m256i sums[kByteChains];
  for (__m256i& sum : sums) sum = _mm256_setzero_si256();
  __m256i ones = opaque(_mm256_set1_epi8(1));
  const __m256i wide = opaque(_mm256_set1_epi16(1));
  for (Index r = 0; r < rounds; ++r) {
    for (__m256i& sum : sums) {
      ones = opaque(ones);  // or all would share one product
      const __m256i pairs = opaque(_mm256_maddubs_epi16(ones, ones));
      const __m256i quads = opaque(_mm256_madd_epi16(pairs, wide));
      sum = opaque(_mm256_add_epi32(sum, quads));
    }
  }
  double total = 0;
  for (const __m256i sum : sums) {
    alignas(32) std::int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sum);
    for (const std::int32_t lane : lanes) total += lane;
  }
  return total;
}

template <Index kStreams, bool kAhead>
std::uint64_t read(const std::byte* p, Index n) {
  __m256i seen[kReadStep / 32];
  for (__m256i& words : seen) words = _mm256_setzero_si256();
  const Index stream = n / kStreams;
  for (Index at = 0; at < stream; at += kReadStep) {
    for (Index s = 0; s < kStreams; ++s) {
      const std::byte* from = p + s * stream + at;
      for (int line = 0; kAhead && line < kReadStep / 64; ++line) {
        _mm_prefetch(reinterpret_cast<const char*>(from + kPrefetchBytes + 64 * line), _MM_HINT_T0);
      }
      for (int i = 0; i < kReadStep / 32; ++i) {
        const auto* vector = reinterpret_cast<const __m256i*>(from + 32 * i);
        seen[i] = _mm256_xor_si256(seen[i], _mm256_loadu_si256(vector));
      }
    }
  }
  std::uint64_t all = 0;
  for (const __m256i words : seen) {
    alignas(32) std::uint64_t lanes[4];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), words);
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

constinit const LimitLoops kLimitLoops = {.f32 = {.products = 8 * kFloatChains, .run = f32},
                                          .bf16 = {},
                                          .int16 = {},
                                          .int8 = {.products = 32 * kByteChains, .run = int8},
                                          .read = read_by};

}  // namespace kogia::avx2
