#pragma once
// y[t,:] += Σ_k weights[t,k] · expert_rows[row_of[t, k],:], in slot order.

#include "device/cpu/kernel_table.h"
#include "device/device.h"

namespace kogia::reference {

inline void combine(const CombineSlice& a) {
  for (Index t = 0; t < a.rows; ++t) {
    float* y = a.y + t * a.y_stride;
    for (Index i = 0; i < a.n; ++i) {
      double sum = static_cast<double>(y[i]);
      for (Index k = 0; k < a.top_k; ++k) {
        const Index row = a.row_of[t * a.top_k + k];
        const double weight = static_cast<double>(a.weights[t * a.top_k + k]);
        sum += weight * static_cast<double>(a.expert_rows[row * a.expert_stride + i]);
      }
      y[i] = static_cast<float>(sum);
    }
  }
}

}  // namespace kogia::reference
