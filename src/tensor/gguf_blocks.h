#pragma once
// Weight blocks of GGUF files: 32 or 256 values that share scales. Used through tensor/convert.h.
//
//   name   bits   value                                     bytes of a block, in order
//   q4_0   4.5    d (q - 8)                                 d f16, 16 nibble pairs
//   q4_1   5      d q + m                                   d f16, m f16, 16 nibble pairs
//   q5_0   5.5    d (q - 16)                                d f16, 32 high bits, 16 nibble pairs
//   q5_1   6      d q + m                                   d f16, m f16, 32 high bits, 16 pairs
//   q8_0   8.5    d q                                       d f16, 32 int8
//   q2_k   2.625  d s q - dmin m, s and m per 16            16 (s | m << 4), 64 quads, d, dmin
//   q3_k   3.44   d (s - 32) (q - 4), s per 16              32 high-bit bytes, 64 quads, 12 of s, d
//   q4_k   4.5    d s q - dmin m, s and m per 32, 6 bits    d, dmin, 12 of s and m, 128 pairs
//   q5_k   5.5    the same                                  d, dmin, 12, 32 high-bit bytes, 128
//   pairs q6_k   6.56   d s (q - 32), s int8 per 16               128 low nibbles, 64 high quads,
//   16 s, d
//
// A nibble pair of the 32-value blocks holds values i and i + 16; of the k-blocks, i and i + 32.

#include <cstdint>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

/// n values are whole blocks. Bit for bit what the PyPI package `gguf` gives.
void dequantize_blocks(DType dtype, const void* src, float* dst, Index n);

/// Round to nearest with the block's own scale: q4_0, q4_1, q5_0, q5_1, q8_0 as `gguf` does, q4_k
/// and q6_k with a small search for the scale. Throws Error(kUnsupported) for the others.
void quantize_blocks(DType dtype, const float* src, void* dst, Index n);

/// The eight 6-bit scales and minima of a q4_k or q5_k block from their 12 bytes.
struct ScaleMin {
  std::uint8_t scale[8], min[8];
};
ScaleMin unpack_scale_min(const std::uint8_t* packed);
void pack_scale_min(const ScaleMin& from, std::uint8_t* packed);

}  // namespace kogia
