#pragma once
// Weights as the matrix kernels read them, and one piece of a product. Plain data: kernels see
// nothing else.
//
// 16 output rows make a panel and lie in the lanes of a vector. A panel is a sequence of records,
// each
//   scales [16] (f16 or f32), minima [16] (the same type), codes of `groups_per_record` groups
// where a group is 16 or 32 columns, the stretch over which products are summed by themselves.
// The value of a weight is  code · scale + minimum, each operation rounded to f32, as
// dequantize_row() has it. Codes of eight columns c = 0 … 7 and lanes r = 0 … 15:
//   nibble  64 bytes   16-bit word 2r + h, bits 4j … 4j + 3: column 2j + h; values from a table
//   int8    128 bytes  two vectors of four columns, byte 4r + c
//   fp8     the same, magnitudes from a table
//   bf16    256 bytes  four vectors of two columns, 16-bit word 2r + c
//   f32     512 bytes  eight vectors of one column
// Columns and rows are padded with zeros.

#include <cstddef>
#include <cstdint>

#include "base/index.h"

namespace kogia {

inline constexpr Index kPanelRows = 16;

enum class Codes { nibble, int8, fp8, bf16, f32 };
enum class ScaleType { none, f16, f32 };

/// How x is rounded before it is multiplied: device.h, Compute.
enum class Rounding { none, bf16, int8, e4m3 };

struct PackedView {
  const std::byte* data = nullptr;
  Index rows = 0, cols = 0;
  Codes codes = Codes::f32;
  ScaleType scale = ScaleType::none;
  bool has_min = false;
  Index group = 32;  // columns
  Index n_groups = 0, groups_per_record = 1;
  Index codes_offset = 0, group_bytes = 0, record_bytes = 0, panel_bytes = 0;
  const std::uint16_t* table = nullptr;  // bf16: 32 values of nibbles, or 128 magnitudes of FP8
  bool bf16_products = false;            // else f32, values decoded
  Rounding rounding = Rounding::none;

  Index padded_cols() const { return n_groups * group; }
  Index n_panels() const { return ceil_div(rows, kPanelRows); }
  /// Bytes of 16 scales, and of 16 minima.
  Index scale_bytes() const {
    return scale == ScaleType::none ? 0 : scale == ScaleType::f16 ? 32 : 64;
  }
  const std::byte* record(Index panel, Index group_id) const {
    return data + panel * panel_bytes + group_id / groups_per_record * record_bytes;
  }
  const std::byte* group_codes(Index panel, Index group_id) const {
    return record(panel, group_id) + codes_offset + group_id % groups_per_record * group_bytes;
  }
};

/// A row of x as the products see it.
struct ActivationRow {
  const float* x = nullptr;
  Index n = 0, n_padded = 0, group = 32;
  Rounding rounding = Rounding::none;
  bool as_bf16 = false;
  void* out = nullptr;    // n_padded bf16 or f32 values, zeros after n
  float* sums = nullptr;  // of each group of the rounded x; null: not needed
};

inline constexpr Index kTileRows = 64;

/// Rows × panels of y = x Wᵀ (+ bias) (+ residual).
struct LinearTile {
  const PackedView* w = nullptr;
  Index panel_begin = 0, panel_end = 0;
  const float* x = nullptr;  // f32, or pairs of bf16
  Index x_stride = 0;        // in units of 4 bytes
  const float* sums = nullptr;
  Index sums_stride = 0;
  Index rows = 0;  // at most kTileRows
  float* y = nullptr;
  const float* residual = nullptr;
  const float* bias = nullptr;
  Index y_stride = 0;
};

struct LinearKernels {
  bool bf16_products;  // whether PackedView::bf16_products is understood
  void (*round_row)(const ActivationRow& row);
  void (*tile)(const LinearTile& tile);
};

#ifdef KOGIA_X86_KERNELS
namespace avx2 {
extern const LinearKernels kLinearKernels;
}
namespace avx512 {
extern const LinearKernels kLinearKernels;
}
#endif

}  // namespace kogia
