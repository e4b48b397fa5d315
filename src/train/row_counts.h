#pragma once
// What a step's rows amount to: bytes of text, and arithmetic.

#include <span>

#include "base/index.h"
#include "model/config.h"
#include "train/packed_row.h"

namespace kogia {

/// Bytes of text of the tokens that the main model predicts: all but the first of each text.
/// `token_bytes` has the bytes of each id; ids beyond it count nothing.
Index predicted_bytes(std::span<const PackedRow> rows, std::span<const Index> token_bytes);

/// Floating-point operations of a step over these rows, multiplications and additions, as papers
/// count them: for each token that goes in 6 for each parameter of a matrix that it meets (2 in the
/// forward pass, 4 in the backward pass), and 6 · heads · (width of a key + width of a value) for
/// each pair of tokens that attention compares. Embedding look-ups, norms, softmax, the optimizer
/// and whatever is computed a second time do not count. Depths of multi-token prediction do.
double train_flops(const ModelConfig& config, std::span<const PackedRow> rows);

}  // namespace kogia
