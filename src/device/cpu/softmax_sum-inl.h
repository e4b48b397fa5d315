// Σ exp(z − max) over a row of logits, and the logarithm of the softmax. Reads each logit twice,
// the second time from a cache; exp, some 20 instructions a vector, is the bound.
#pragma once

#include "device/cpu/exp-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

// ln x for a positive normal double: x = 2^k m, ln m = 2 atanh((m − 1) / (m + 1)).
double log_f64(double x) {
  unsigned long long bits;
  __builtin_memcpy(&bits, &x, 8);
  long long k = static_cast<long long>(bits >> 52) - 1022;
  bits = (bits & 0xFFFFFFFFFFFFFULL) | 0x3FE0000000000000ULL;
  double m;
  __builtin_memcpy(&m, &bits, 8);
  if (m < 0x1.6a09e667f3bcdp-1) m *= 2, k -= 1;
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int i = 23; i > 0; i -= 2) sum = sum * s2 + 1.0 / i;
  return static_cast<double>(k) * 0x1.62e42fefa39efp-1 + 2 * s * sum;
}

struct SoftmaxSum {
  float max;
  double sum;  // Σ exp(z − max)
  float log_prob(float z) const {
    return static_cast<float>(static_cast<double>(z) - static_cast<double>(max) - log_f64(sum));
  }
};

// The sum in f64: lane l of two adds l, l + 2 lanes, …
SoftmaxSum softmax_sum(const float* z, Index n) {
  const hn::Repartition<double, F32> f64;
  const auto minus_inf = hn::Neg(hn::Inf(kF32));
  auto top = minus_inf;
  const auto first = [&](Index left)
                         HWY_ATTR { return hn::FirstN(kF32, static_cast<size_t>(left)); };
  for (Index i = 0; i < n; i += kLanes) {
    const Index left = n - i < kLanes ? n - i : kLanes;
    top = hn::Max(top, hn::IfThenElse(first(left), load_n(z + i, left), minus_inf));
  }
  const float max = hn::ReduceMax(kF32, top);
  const auto v_max = hn::Set(kF32, max);

  auto low = hn::Zero(f64), high = hn::Zero(f64);
  for (Index i = 0; i < n; i += kLanes) {
    const Index left = n - i < kLanes ? n - i : kLanes;
    const auto zi = hn::IfThenElse(first(left), load_n(z + i, left), minus_inf);
    const auto e = exp(hn::Sub(zi, v_max));
    low = hn::Add(low, hn::PromoteLowerTo(f64, e));
    high = hn::Add(high, hn::PromoteUpperTo(f64, e));
  }
  return {max, hn::ReduceSum(f64, hn::Add(low, high))};
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
