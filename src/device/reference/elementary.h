#pragma once
// exp and log in plain arithmetic, so that the same bits come out whatever libm is installed.

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

namespace kogia::reference {

/// e^x within about one unit of the last place: x = k ln2 + r, |r| <= ln2 / 2, Taylor in r.
inline double exp(double x) {
  if (x != x) return x;
  if (x > 709.78) return std::numeric_limits<double>::infinity();
  if (x < -708.39) return 0;  // the subnormal results are not worth their code
  constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
  const double k = std::nearbyint(x * 0x1.71547652b82fep0);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  constexpr double kInverseFactorials[] = {1.0 / 6227020800,
                                           1.0 / 479001600,
                                           1.0 / 39916800,
                                           1.0 / 3628800,
                                           1.0 / 362880,
                                           1.0 / 40320,
                                           1.0 / 5040,
                                           1.0 / 720,
                                           1.0 / 120,
                                           1.0 / 24,
                                           1.0 / 6,
                                           1.0 / 2,
                                           1.0,
                                           1.0};
  double sum = 0;
  for (const double c : kInverseFactorials) sum = sum * r + c;
  const auto exponent = static_cast<std::uint64_t>(static_cast<std::int64_t>(k) + 1022);
  return sum * std::bit_cast<double>(exponent << 52) * 2;
}
inline float exp(float x) { return static_cast<float>(exp(static_cast<double>(x))); }

/// The natural logarithm of a positive normal number: x = 2^k m, ln m = 2 atanh((m - 1) / (m + 1)).
inline double log(double x) {
  constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  auto k = static_cast<std::int64_t>(bits >> 52) - 1022;
  double m = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000);  // [1/2, 1)
  if (m < kSqrtHalf) m *= 2, k -= 1;
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int i = 23; i > 0; i -= 2) sum = sum * s2 + 1.0 / i;
  return static_cast<double>(k) * 0x1.62e42fefa39efp-1 + 2 * s * sum;
}

inline double real_part(double x) { return x; }
inline double real_part(const std::complex<double>& x) { return x.real(); }

template <class S>
S sigmoid(S x) {
  return S(1) / (S(1) + exp(-x));
}

/// Turns x into softmax(x). `sum` is Σ exp(x − top), top the largest.
template <class S>
struct Softmax {
  S sum = 0;
  double top = 0;
};
template <class S>
Softmax<S> softmax(std::vector<S>& x) {
  Softmax<S> of{.sum = 0, .top = real_part(x[0])};
  for (const S& v : x) of.top = std::max(of.top, real_part(v));
  for (S& v : x) of.sum += v = exp(v - S(of.top));
  for (S& v : x) v /= of.sum;
  return of;
}

}  // namespace kogia::reference
