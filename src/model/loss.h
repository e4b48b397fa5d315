#pragma once
// Cross-entropy of the head, a stretch of rows at a time, so that the logits of all of them never
// exist.

#include <span>

#include "model/model.h"
#include "model/ops.h"

namespace kogia {

/// Σ −log softmax(hidden[r] W_headᵀ)[targets[r]] over the rows whose target is not −1. Where a tape
/// records, weight · ∂(that sum)/∂hidden goes to the gradient of hidden at once, and that of the
/// head's weights to its use `use`. `choices`, if not empty: of each row the first of the largest
/// logits.
TrainLoss cross_entropy(Ops& ops, ConstMat hidden, const Linear& head, Index use,
                        std::span<const std::int32_t> targets, float weight,
                        std::span<std::int32_t> choices = {});

}  // namespace kogia
