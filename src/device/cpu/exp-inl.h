// e^x in f32 for vectors: 1 unit of the last place or so, the same operations on every instruction
// set. Results below the smallest normal number are 0; NaN stays NaN.
#pragma once

#include "device/cpu/simd-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

HWY_INLINE VecF32 exp(VecF32 x) {
  const hn::RebindToSigned<F32> i32;
  const auto low = hn::Set(kF32, -87.33654F), high = hn::Set(kF32, 88.72283F);
  const auto clamped = hn::Min(hn::Max(x, low), high);
  // x = k ln2 + r, |r| <= ln2 / 2; the high part of ln2 has few bits, so k times it is exact.
  const auto k = hn::Round(hn::Mul(clamped, hn::Set(kF32, 1.44269504F)));
  auto r = hn::NegMulAdd(k, hn::Set(kF32, 0.693359375F), clamped);
  r = hn::NegMulAdd(k, hn::Set(kF32, -2.12194440e-4F), r);
  // e^r = 1 + r + r² p(r): the Taylor series is within half a unit of 24 bits at degree 7.
  auto p = hn::Set(kF32, 1.0F / 5040);
  p = hn::MulAdd(p, r, hn::Set(kF32, 1.0F / 720));
  p = hn::MulAdd(p, r, hn::Set(kF32, 1.0F / 120));
  p = hn::MulAdd(p, r, hn::Set(kF32, 1.0F / 24));
  p = hn::MulAdd(p, r, hn::Set(kF32, 1.0F / 6));
  p = hn::MulAdd(p, r, hn::Set(kF32, 0.5F));
  p = hn::MulAdd(hn::Mul(p, r), r, r);
  p = hn::Add(p, hn::Set(kF32, 1.0F));
  // Times 2^k in two steps: k = 128 alone is no float.
  const auto ki = hn::ConvertTo(i32, k);
  const auto half = hn::ShiftRight<1>(ki);
  const auto power = [&](auto e) HWY_ATTR {
    return hn::BitCast(kF32, hn::ShiftLeft<23>(hn::Add(e, hn::Set(i32, 127))));
  };
  auto y = hn::Mul(hn::Mul(p, power(half)), power(hn::Sub(ki, half)));
  y = hn::IfThenZeroElse(hn::Lt(x, low), y);
  y = hn::IfThenElse(hn::Gt(x, high), hn::Inf(kF32), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

/// σ(x) = 1 / (1 + e^−x)
HWY_INLINE VecF32 sigmoid(VecF32 x) {
  const auto one = hn::Set(kF32, 1.0F);
  return hn::Div(one, hn::Add(one, exp(hn::Neg(x))));
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
