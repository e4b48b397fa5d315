#pragma once
// Weights into GGUF blocks and FP8 blocks with as little error as the format allows: for files that
// people keep. (quantize_row of convert.h is the plain rule of each format.)
//
// Where the importance of a column is known (the mean square of what it multiplies, from an
// importance matrix), the error that is minimised is Σ importance · f(x) · error². Without it:
//
//   q4_0 q5_0        the plain rule, as llama.cpp      with: √(mean x² of the row + x²)
//   q4_1 q5_1        the plain rule, as llama.cpp      with: the same
//   q8_0             the plain rule                    with: the plain rule
//   q4_k q5_k        f = rms of the group + |x|        with: √(2 mean x² of the block + x²)
//   q6_k             f = 1                             with: 1
//
// Sources: the weightings are those of ggml (ggml-quants.c), but for q6_k without an
// importance, where 1 left less divergence than x²; the search is our own
// (quantize_search.h).

#include <cstdint>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

/// q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, or a plain dtype (rounded).
bool can_encode(DType dtype);

/// Encodes a row of n values (whole blocks); dst has row_bytes(dtype, n) bytes. `importance` is
/// null or n finite values >= 0. A function of its arguments alone. What no scale holds stays
/// harmless: NaN becomes 0, magnitudes above 65504 (f16's largest) become 65504.
void encode_row(DType dtype, const float* x, const float* importance, void* dst, Index n);

/// A block of at most 128 x 128 weights as DeepSeek's FP8 files hold it: E4M3 codes and the factor
/// that gives the weights back, largest magnitude / 448 (1 where all are 0).
/// x and codes have `stride` values from row to row.
float encode_fp8_block(const float* x, Index x_stride, Index rows, Index cols, std::uint8_t* codes,
                       Index codes_stride);

}  // namespace kogia
