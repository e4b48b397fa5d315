// y = x / rms(x) ⊙ weight,  rms(x) = sqrt(mean(x²) + eps)                          arXiv:1910.07467
// Roofline: 8 bytes and 4 flops an element, so the bound is copy speed.
#pragma once

#include "device/cpu/simd-inl.h"
#include "device/device.h"

namespace kogia::KOGIA_ISA {
namespace {

void rms_norm(const RmsNormArgs& a) {
  const Index n = a.n;
  for (Index t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.x_stride;
    float* y = a.y + t * a.y_stride;

    // Lane l of sum j adds i = (4k + j) kLanes + l: an order fixed by n alone.
    VecF32 sum[4] = {hn::Zero(kF32), hn::Zero(kF32), hn::Zero(kF32), hn::Zero(kF32)};
    Index i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
      for (int j = 0; j < 4; ++j) {
        const auto xi = hn::LoadU(kF32, x + i + j * kLanes);
        sum[j] = hn::MulAdd(xi, xi, sum[j]);
      }
    }
    for (; i < n; i += kLanes) {
      const auto xi = load_n(x + i, n - i);
      sum[0] = hn::MulAdd(xi, xi, sum[0]);
    }
    const auto total = hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3]));
    const float mean_sq = hn::ReduceSum(kF32, total) / static_cast<float>(n);
    const auto inv_rms = hn::Set(kF32, 1 / __builtin_sqrtf(mean_sq + a.eps));

    for (i = 0; i < n; i += kLanes) {
      const auto xi = load_n(x + i, n - i), w = load_n(a.weight + i, n - i);
      store_n(hn::Mul(hn::Mul(xi, inv_rms), w), y + i, n - i);
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
