#pragma once
// GGUF blocks taken apart: whole-number codes, and a scale and minimum for each group of them.

#include <cstdint>

#include "device/cpu/packed.h"
#include "tensor/dtype.h"

namespace kogia {

/// value = code · scale + min, each operation rounded to f32: what dequantize_blocks() computes.
/// Of formats with nibble_values() the codes are the nibbles, which stand for other numbers.
struct BlockCodes {
  std::int8_t code[256];
  float scale;            // of formats whose scale is no f16, instead of all below
  std::uint16_t d, dmin;  // f16, as the file has them
  // Of each group, where a format has such: scale = d · s, min = -(dmin · m); else d and dmin.
  std::int8_t s[16], m[16];
};

/// How a format's blocks come apart.
struct BlockShape {
  Codes codes;
  ScaleType scale;
  bool has_min;
  int lowest;  // value of code 0
};

/// `look_up`: whether the kernels look codes up in a table. If not, nibbles that stand for other
/// numbers are packed as those numbers, in as many bits as they need.
BlockShape block_shape(DType dtype, bool look_up);
void take_apart(DType dtype, const void* block, BlockCodes& to);

}  // namespace kogia
