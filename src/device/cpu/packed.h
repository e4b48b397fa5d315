#pragma once
// Weights as the matrix kernels read them, and one piece of a product. Plain data: kernels see
// nothing else.
//
// 16 output rows make a panel and lie in the lanes of a vector. A panel is a sequence of records,
// each a head of scales and then the codes of `groups_per_record` groups, where a group is 16 or 32
// columns, the stretch over which products are summed by themselves. Heads, for n groups:
//   f16      scales f16 [n][16], minima f16 [n][16]
//   f32      scale f32 [16], of all columns of the record
//   parts    d f16 [16], -dmin f16 [16], s int8 [n][16], m uint8 [n][16]: scale d s, minimum -dmin
//   m nibbles  the same, s | m << 4 in a byte
// The minima are there if has_min. The value of a weight is  code · scale + minimum, each operation
// rounded to f32, as dequantize_row() has it.
//
// Codes of a group:
//   f32   [columns][16] values           f16   the same
//   bf16  [columns / 2][16][2]: the pairs that bf16 dot products take
//   else  planes of 1, 2, 4 or 8 bits. Eight columns c = 8k + 4t + 2v + h fill two slots v of each
//         byte t of the 16-bit word 2r + h of row r; slots 2k + v are counted from the lowest bits
//         of a vector of 64 bytes to its highest, then in the next. So a shift brings a pair of
//         columns to the bottom of each word, and every shift two such pairs: bytes that integer
//         dot products take four by four, in the order of quad_column().
//   q2 and q4 are one plane; q3, q5 and q6 have the upper one or two bits in a second plane after
//   it (one for two groups where a group does not fill it); q8, s8 and fp8 are planes of 8 bits,
//   with two's complement, a sign and a magnitude, or FP8 in them.
// Columns and rows are padded with zeros.

#include <cstddef>
#include <cstdint>

#include "base/index.h"

namespace kogia {

/// Part of what files of packed weights are known by: raise it with every change of the layout.
/// (Panels.TheirLayoutIsThatOfItsVersion fails where that was forgotten.)
inline constexpr int kPanelsVersion = 1;

inline constexpr Index kPanelRows = 16;

enum class Codes { q2, q3, q4, q5, q6, q8, s8, fp8, bf16, f16, f32 };
enum class ScaleType { none, f16, f32, parts, nibbles };

/// Bits of a code in its first plane, and in its second.
struct PlaneBits {
  int low, high;
};
constexpr PlaneBits plane_bits(Codes codes) {
  switch (codes) {
    case Codes::q2:
      return {2, 0};
    case Codes::q3:
      return {2, 1};
    case Codes::q4:
      return {4, 0};
    case Codes::q5:
      return {4, 1};
    case Codes::q6:
      return {4, 2};
    case Codes::q8:
    case Codes::s8:
    case Codes::fp8:
      return {8, 0};
    case Codes::bf16:
    case Codes::f16:
      return {16, 0};
    case Codes::f32:
      break;
  }
  return {32, 0};
}

/// Whether codes lie in planes of bits.
constexpr bool in_planes(Codes codes) { return codes <= Codes::fp8; }

/// Columns of a group.
constexpr Index group_columns(Codes codes) {
  return codes == Codes::q2 || codes == Codes::q3 || codes == Codes::q6 ? 16 : 32;
}

/// Which of eight columns stands at place i where x is read in quads.
constexpr Index quad_column(Index i) {
  constexpr Index kColumn[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  return kColumn[i];
}

/// How x is rounded before it is multiplied: device.h, Compute.
enum class Rounding { none, bf16, int8, int16, e4m3 };

/// The largest whole number of a row quantised so; 0: it is not.
constexpr float whole_limit(Rounding rounding) {
  return rounding == Rounding::int8 ? 127 : rounding == Rounding::int16 ? 32767 : 0;
}

/// What is multiplied: decoded weights, pairs of bf16 or 16-bit codes, or quads of 8-bit codes.
enum class Products { f32, bf16, int16, int8 };

struct PackedView {
  const std::byte* data = nullptr;
  Index rows = 0, cols = 0;
  Codes codes = Codes::f32;
  ScaleType scale = ScaleType::none;
  bool has_min = false;
  Index group = 32;  // columns
  Index n_groups = 0, groups_per_record = 1;
  Index groups_per_plane = 1;            // that share a second plane
  Index low_bytes = 0, group_bytes = 0;  // of the first plane, of all planes
  Index codes_offset = 0, record_bytes = 0, panel_bytes = 0;
  int lowest = 0;  // value of code 0 in planes
  /// bf16: 64 values of codes (of q4 not always code + lowest), or the 128 of bytes without sign.
  const std::uint16_t* table = nullptr;
  Products products = Products::f32;
  Rounding rounding = Rounding::none;

  Index n_panels() const { return ceil_div(rows, kPanelRows); }
  const std::byte* panel(Index i) const { return data + i * panel_bytes; }
};

/// A group of a panel: its record, which of the record's groups it is, and where its codes are.
struct GroupAt {
  const std::byte* record;
  Index i;
  const std::byte* low;
  const std::byte* high;
};
inline GroupAt group_at(const PackedView& w, const std::byte* record, Index i) {
  const Index share = w.groups_per_plane == 1 ? 0 : i % w.groups_per_plane;
  const std::byte* first = record + w.codes_offset + (i - share) * w.group_bytes;
  return {record, i, first + share * w.low_bytes, first + w.groups_per_plane * w.low_bytes};
}

/// A row of x as the products see it.
struct ActivationRow {
  const float* x = nullptr;
  Index n = 0, n_padded = 0, group = 32;
  Rounding rounding = Rounding::none;
  Products form = Products::f32;
  void* out = nullptr;  // n_padded f32, bf16, int16 or int8 values, zeros after n
  /// Of each group of the rounded x its sum; whole numbers: the scale d, d Σq (only if
  /// LinearKernels::whole_sums is 3) and Σq, one after the other. Null: not needed.
  float* sums = nullptr;
};

inline constexpr Index kTileRows = 64;

/// Rows × panels of y = x Wᵀ (+ bias) (+ residual).
struct LinearTile {
  const PackedView* w = nullptr;
  Index panel_begin = 0, panel_end = 0;
  const float* x = nullptr;  // f32, pairs of bf16 or int16, or quads of int8
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
  bool pair_products;  // whether Products::bf16 and int16 are understood
  Index whole_sums;    // numbers in ActivationRow::sums for a group of whole numbers
  void (*round_row)(const ActivationRow& row);
  void (*tile)(const LinearTile& tile);
};

#ifdef KOGIA_X86_KERNELS
namespace avx2 {
extern const LinearKernels kLinearKernels;
}
namespace avx2_vnni {  // the same with byte dot products
extern const LinearKernels kLinearKernels;
}
namespace avx512 {
extern const LinearKernels kLinearKernels;
}
#endif
#ifdef KOGIA_ARM_KERNELS
namespace neon {
extern const LinearKernels kLinearKernels;
}
namespace neon_dot {  // the same with byte dot products
extern const LinearKernels kLinearKernels;
}
#endif

}  // namespace kogia
