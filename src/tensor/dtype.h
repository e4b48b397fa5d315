#pragma once
// The number formats of weights and activations: names, sizes, and which are blocks.

#include <cstddef>
#include <optional>
#include <string_view>

#include "base/index.h"

namespace kogia {

enum class DType {
  f64,
  f32,
  bf16,
  f16,
  f8_e4m3,  // "FN": no infinities, NaN only 0x7F and 0xFF, max 448
  f8_e5m2,
  f8_e8m0,  // 2^(b-127), 255 is NaN
  i64,
  i32,
  i16,
  i8,
  u8,
  boolean,
  q4_0,  // from here: GGUF blocks of 32
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,  // from here: GGUF super-blocks of 256
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,  // of 32
  iq4_xs,  // of 256
  mxfp4,   // of 32
};

struct DTypeInfo {
  std::string_view name;  // "bf16", "f8_e4m3", "q4_k": what we print
  Index block_values;     // values per block; 1 for plain types
  Index block_bytes;      // bytes per block
};

const DTypeInfo& info(DType dtype);
inline std::string_view name(DType dtype) { return info(dtype).name; }
inline bool is_block(DType dtype) { return info(dtype).block_values > 1; }
/// What a weight may be stored in, and made of another: f32, bf16, f16, FP8 and blocks.
bool is_floating(DType dtype);

/// Bytes of a row of `values`; values must be a multiple of the block (CHECKed).
Index row_bytes(DType dtype, Index values);

std::optional<DType> parse_dtype(std::string_view name);  // our names, any case

}  // namespace kogia
