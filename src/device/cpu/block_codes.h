#pragma once
// GGUF blocks taken apart: whole-number codes, and a scale and minimum for each group of them.

#include <cstdint>

#include "tensor/dtype.h"

namespace kogia {

/// value = code · scale + min, each operation rounded to f32: what dequantize_blocks() computes.
struct BlockCodes {
  std::int8_t code[256];
  float scale[16], min[16];
};

/// How a format's blocks come apart.
struct BlockShape {
  Index group;  // columns of a scale
  bool has_min;
  bool f16;     // scales and minima are f16 numbers; else products of such
  bool nibble;  // codes are in [lowest, lowest + 15]
  int lowest;
};

BlockShape block_shape(DType dtype);
void take_apart(DType dtype, const void* block, BlockCodes& to);

}  // namespace kogia
