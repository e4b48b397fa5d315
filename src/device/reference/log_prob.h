#pragma once
// log softmax(z)[id] = z[id] − max − log Σ exp(z − max)

#include <algorithm>

#include "device/device.h"
#include "device/reference/elementary.h"

namespace kogia::reference {

inline float log_prob(const float* logits, Index n, Index id) {
  const double top = static_cast<double>(*std::max_element(logits, logits + n));
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += exp(static_cast<double>(logits[i]) - top);
  return static_cast<float>(static_cast<double>(logits[id]) - top - log(sum));
}

}  // namespace kogia::reference
