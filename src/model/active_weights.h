#pragma once
// Which weights a token passes, and what they weigh: the denominators of bandwidth and peak.

#include <map>

#include "model/ops.h"

namespace kogia {

/// Sums over matrices.
struct WeightTally {
  double parameters = 0, bytes = 0;      // bytes as they are read: packed, or borrowed as stored
  std::map<Compute, double> by_compute;  // parameters

  void add(const Linear& linear, double share = 1);
  void add(const WeightTally& other, double share = 1);
};

/// Bytes that a product reads of this matrix.
Index read_bytes(const Matrix& matrix);

/// What the matrices of a forward pass amount to, for one token. Embedding look-ups, norms, biases
/// and multi-token prediction are not counted; the router is.
struct ActiveWeights {
  WeightTally always;  // of the layers: what every token passes
  WeightTally routed;  // of the layers: the routed experts, top_k of n_routed_experts
  WeightTally head;

  /// Of the layers, as prefill needs them: one row of a whole prompt meets the head.
  double layer_parameters() const { return always.parameters + routed.parameters; }
  double parameters() const { return layer_parameters() + head.parameters; }
  double bytes() const { return always.bytes + routed.bytes + head.bytes; }
  /// The arithmetic of most of them.
  Compute compute() const;
};

}  // namespace kogia
