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
//   q5_k   5.5    the same                       d, dmin, 12, 32 high-bit bytes, 128 pairs
//   q6_k   6.56   d s (q - 32), s int8 per 16    128 low nibbles, 64 high quads, 16 s, d
//   iq4_nl 4.5    d v[q]                         d f16, 16 nibble pairs
//   iq4_xs 4.25   d (s - 32) v[q], s per 32      d f16, 2 high bits and 4 low of 8 s, 128 pairs
//   mxfp4  4.25   2^(e - 128) v[q]               e, 16 nibble pairs
//
// A nibble pair of the 32-value blocks and of iq4_xs holds values i and i + 16 of 32; of the
// k-blocks, i and i + 32. v: nibble_values().

#include <cstdint>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

/// The 16 whole numbers that the nibbles of iq4_nl, iq4_xs and mxfp4 stand for (of mxfp4, twice
/// what E2M1 means); null for other formats, whose codes are numbers themselves.
const std::int8_t* nibble_values(DType dtype);

/// The scale of a mxfp4 block: 2^(e - 128), half of what E8M0 means.
float mxfp4_scale(std::uint8_t e);

/// The eight scales of an iq4_xs block, from -32 to 31.
void unpack_iq4_xs_scales(const std::uint8_t* block, std::int8_t* scales);

/// n values are whole blocks. Bit for bit what the PyPI package `gguf` gives.
void dequantize_blocks(DType dtype, const void* src, float* dst, Index n);

/// Round to nearest with the block's own scale: q4_0, q4_1, q5_0, q5_1, q8_0, mxfp4 as `gguf` does,
/// q4_k and q6_k with a small search for the scale, q5_k, iq4_nl and iq4_xs without. Throws
/// Error(kUnsupported) for the others.
void quantize_blocks(DType dtype, const float* src, void* dst, Index n);

/// The eight 6-bit scales and minima of a q4_k or q5_k block from their 12 bytes.
struct ScaleMin {
  std::uint8_t scale[8], min[8];
};
ScaleMin unpack_scale_min(const std::uint8_t* packed);
void pack_scale_min(const ScaleMin& from, std::uint8_t* packed);

}  // namespace kogia
