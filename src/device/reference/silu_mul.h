#pragma once
// h = silu(g) ⊙ u,  silu(g) = g σ(g)                                               arXiv:2002.05202

#include "device/device.h"
#include "device/reference/elementary.h"

namespace kogia::reference {

template <class S>
S silu(S g) {
  return g * sigmoid(g);
}

inline void silu_mul(const SiluMulArgs& a) {
  for (Index t = 0; t < a.rows; ++t) {
    const float *gate = a.gate + t * a.gate_stride, *up = a.up + t * a.up_stride;
    float* y = a.y + t * a.y_stride;
    for (Index i = 0; i < a.n; ++i) {
      y[i] = static_cast<float>(silu(static_cast<double>(gate[i])) * static_cast<double>(up[i]));
    }
  }
}

}  // namespace kogia::reference
