#pragma once
// What a weight has beside itself while it is trained.

#include <memory>
#include <vector>

#include "device/device.h"

namespace kogia {

/// Where the gradient of a matrix goes, and the matrix with which gradients go back through it.
/// Ownership  gradients are the TrainedWeights' (model/trained_weights.h)
struct TrainedMatrix {
  std::unique_ptr<Matrix> transposed;  // dx = dy W is a product with Wᵀ
  float* grad = nullptr;               // of the rows that the tensor holds, `stride` floats apart
  Index stride = 0;
  bool packed_transposed = false;  // the product multiplies by the transpose of what is stored
  float* bias_grad = nullptr;
  /// The weight is used again (the head, by multi-token prediction): use u adds to
  /// grad + u * use_stride.
  Index use_stride = 0;
};

}  // namespace kogia
