#pragma once
// y = x / rms(x) ⊙ weight,  rms(x) = sqrt(mean(x²) + eps)                          arXiv:1910.07467

#include <cmath>

#include "device/device.h"

namespace kogia::reference {

template <class S>
void rms_norm(const S* x, const S* weight, S* y, Index n, double eps) {
  S sum_sq = 0;
  for (Index i = 0; i < n; ++i) sum_sq += x[i] * x[i];
  using std::sqrt;
  const S rms = sqrt(sum_sq / S(static_cast<double>(n)) + S(eps));
  for (Index i = 0; i < n; ++i) y[i] = x[i] / rms * weight[i];
}

inline void rms_norm(const RmsNormArgs& a) {
  for (Index t = 0; t < a.rows; ++t) {
    const float* x = a.x + t * a.x_stride;
    float* y = a.y + t * a.y_stride;
    double sum_sq = 0;
    for (Index i = 0; i < a.n; ++i) sum_sq += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const double eps = static_cast<double>(a.eps);
    const double inv_rms = 1 / std::sqrt(sum_sq / static_cast<double>(a.n) + eps);
    for (Index i = 0; i < a.n; ++i) {
      y[i] = static_cast<float>(static_cast<double>(x[i]) * inv_rms *
                                static_cast<double>(a.weight[i]));
    }
  }
}

}  // namespace kogia::reference
