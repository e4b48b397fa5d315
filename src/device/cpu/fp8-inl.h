// Values as E4M3 holds them, a scale a tile: DeepSeek-V3's activations and their gradients.
// Roofline: 4 bytes in and 4 (or 1) out a value, read twice from the cache where a tile is; about
// 12 operations a value.
#pragma once

#include <algorithm>

#include "device/cpu/gradient_table.h"
#include "device/cpu/simd-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

using Codes = hn::Repartition<std::uint32_t, F32>;
constexpr Codes kCodes;
using Bytes = hn::Rebind<std::uint8_t, Codes>;
constexpr Bytes kBytes;

HWY_INLINE float fp8_scale(float largest) { return std::max(largest, 1e-4f) / 448; }

// |x| <= 448 to the nearest E4M3, ties to even: 3 bits behind the first down to 2⁻⁶, steps of 2⁻⁹
// below.
HWY_INLINE VecF32 round_e4m3(VecF32 x) {
  const auto size = hn::Min(hn::Abs(x), hn::Set(kF32, 448.0f));
  const auto bits = hn::BitCast(kCodes, size);
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(kCodes, 1));
  const auto up = hn::Add(bits, hn::Add(odd, hn::Set(kCodes, 0x7FFFF)));
  const auto normal = hn::BitCast(kF32, hn::And(up, hn::Set(kCodes, 0xFFF00000)));
  const auto magic = hn::Set(kF32, 24576.0f);  // 1.5 · 2¹⁴: its last place is 2⁻⁹
  const auto small = hn::Sub(hn::Add(size, magic), magic);
  const auto rounded = hn::IfThenElse(hn::Lt(size, hn::Set(kF32, 0.015625f)), small, normal);
  // What is no number stays none.
  return hn::IfThenElse(hn::Eq(x, x), hn::CopySign(rounded, x), x);
}

// The code of a value that E4M3 has.
HWY_INLINE hn::Vec<Codes> code_of(VecF32 x) {
  const auto small = hn::Mul(hn::Abs(x), hn::Set(kF32, 0x1p-120f));
  const auto size = hn::ShiftRight<20>(hn::BitCast(kCodes, small));
  return hn::Or(size, hn::ShiftLeft<7>(hn::ShiftRight<31>(hn::BitCast(kCodes, x))));
}

HWY_INLINE void store_codes(hn::Vec<Codes> codes, std::uint8_t* to, Index left) {
  const auto bytes = hn::U8FromU32(codes);
  if (left >= kLanes) {
    hn::StoreU(bytes, kBytes, to);
  } else {
    hn::StoreN(bytes, kBytes, to, static_cast<size_t>(left));
  }
}

HWY_INLINE VecF32 load_codes(const std::uint8_t* from, Index left) {
  const auto bytes =
      left >= kLanes ? hn::LoadU(kBytes, from) : hn::LoadN(kBytes, from, static_cast<size_t>(left));
  const auto codes = hn::PromoteTo(kCodes, bytes);
  const auto size = hn::ShiftLeft<20>(hn::And(codes, hn::Set(kCodes, 0x7F)));
  const auto sign = hn::ShiftLeft<24>(hn::And(codes, hn::Set(kCodes, 0x80)));
  const auto value = hn::Mul(hn::BitCast(kF32, size), hn::Set(kF32, 0x1p120f));
  return hn::BitCast(kF32, hn::Or(hn::BitCast(kCodes, value), sign));
}

// Tiles along rows.
void fp8_rows(const Fp8Args& a) {
  const Index n_tiles = ceil_div(a.cols, kFp8Tile);
  for (Index r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.x_stride;
    for (Index begin = 0; begin < a.cols; begin += kFp8Tile) {
      const Index end = std::min(begin + kFp8Tile, a.cols);
      auto largest = hn::Zero(kF32);
      for (Index i = begin; i < end; i += kLanes) {
        largest = hn::Max(largest, hn::Abs(load_n(x + i, end - i)));
      }
      const float scale = fp8_scale(hn::ReduceMax(kF32, largest));
      if (a.scales != nullptr) a.scales[r * n_tiles + begin / kFp8Tile] = scale;
      const auto s = hn::Set(kF32, scale);
      for (Index i = begin; i < end; i += kLanes) {
        const auto rounded = round_e4m3(hn::Div(load_n(x + i, end - i), s));
        if (a.codes != nullptr) store_codes(code_of(rounded), a.codes + r * a.cols + i, end - i);
        if (a.y != nullptr) store_n(hn::Mul(rounded, s), a.y + r * a.y_stride + i, end - i);
      }
    }
  }
}

// Tiles of one column: all rows of the slice are one block.
void fp8_columns(const Fp8Args& a) {
  for (Index i = 0; i < a.cols; i += kLanes) {
    const Index left = a.cols - i;
    auto largest = hn::Zero(kF32);
    for (Index r = 0; r < a.rows; ++r) {
      largest = hn::Max(largest, hn::Abs(load_n(a.x + r * a.x_stride + i, left)));
    }
    const auto s = hn::Div(hn::Max(largest, hn::Set(kF32, 1e-4f)), hn::Set(kF32, 448.0f));
    for (Index r = 0; r < a.rows; ++r) {
      const auto rounded = round_e4m3(hn::Div(load_n(a.x + r * a.x_stride + i, left), s));
      store_n(hn::Mul(rounded, s), a.y + r * a.y_stride + i, left);
    }
  }
}

void fp8_decode(const Fp8DecodeArgs& a) {
  const Index n_tiles = ceil_div(a.cols, kFp8Tile);
  for (Index r = 0; r < a.rows; ++r) {
    for (Index begin = 0; begin < a.cols; begin += kFp8Tile) {
      const Index end = std::min(begin + kFp8Tile, a.cols);
      const auto s = hn::Set(kF32, a.scales[r * n_tiles + begin / kFp8Tile]);
      for (Index i = begin; i < end; i += kLanes) {
        const auto x = load_codes(a.codes + r * a.cols + i, end - i);
        store_n(hn::Mul(x, s), a.y + r * a.y_stride + i, end - i);
      }
    }
  }
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
