#pragma once
// Q4_K for made-up weights.

#include <cstddef>

#include "base/index.h"

namespace kogia {

/// Encodes n values (whole super-blocks): in each group of 32 the 16 codes span from the least to
/// the largest value. quantize_row() searches for scales that leave less error, which random
/// numbers do not repay: it takes most of the time of a checkpoint.
void encode_q4_k_min_max(const float* x, std::byte* out, Index n);

}  // namespace kogia
