// AdamW and the norm of gradients. Roofline: a weight's step moves 28 bytes (20 with bf16 moments)
// and makes about 15 flops, a root and a division; a square reads 4 bytes. Memory is the bound.
#pragma once

#include "device/cpu/gradient_table.h"
#include "device/cpu/simd-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

constexpr hn::RebindToUnsigned<F32> kU32;
constexpr hn::Rebind<std::uint16_t, F32> kU16;

HWY_INLINE VecF32 load_bf16(const std::uint16_t* p, Index left) {
  const auto bits =
      left >= kLanes ? hn::LoadU(kU16, p) : hn::LoadN(kU16, p, static_cast<size_t>(left));
  return hn::BitCast(kF32, hn::ShiftLeft<16>(hn::PromoteTo(kU32, bits)));
}

// Rounds to nearest even; NaN becomes a quiet NaN.
HWY_INLINE void store_bf16(VecF32 x, std::uint16_t* p, Index left) {
  const auto bits = hn::BitCast(kU32, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(kU32, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(kU32, 0x7FFF)));
  const auto quiet = hn::Or(bits, hn::Set(kU32, 0x400000));
  const auto nan = hn::RebindMask(kU32, hn::IsNaN(x));
  const auto high = hn::ShiftRight<16>(hn::IfThenElse(nan, quiet, rounded));
  const auto out = hn::TruncateTo(kU16, high);
  if (left >= kLanes) {
    hn::StoreU(out, kU16, p);
  } else {
    hn::StoreN(out, kU16, p, static_cast<size_t>(left));
  }
}

template <bool kBf16>
HWY_INLINE VecF32 load_moment(const std::byte* moments, Index i, Index left) {
  if constexpr (kBf16) return load_bf16(reinterpret_cast<const std::uint16_t*>(moments) + i, left);
  return load_n(reinterpret_cast<const float*>(moments) + i, left);
}
template <bool kBf16>
HWY_INLINE void store_moment(VecF32 x, std::byte* moments, Index i, Index left) {
  if constexpr (kBf16) return store_bf16(x, reinterpret_cast<std::uint16_t*>(moments) + i, left);
  store_n(x, reinterpret_cast<float*>(moments) + i, left);
}

// gradient_table.h has the formula.                                                arXiv:1711.05101
template <bool kBf16>
void adamw_as(const AdamWSlice& a) {
  const auto scale = hn::Set(kF32, a.grad_scale), rate1 = hn::Set(kF32, a.rate1);
  const auto beta2 = hn::Set(kF32, a.beta2), rate2 = hn::Set(kF32, a.rate2);
  const auto keep = hn::Set(kF32, a.keep), lr = hn::Set(kF32, a.lr);
  const auto root2 = hn::Set(kF32, a.root2), eps = hn::Set(kF32, a.eps);
  for (Index i = 0; i < a.n; i += kLanes) {
    const Index left = a.n - i;
    const auto g = hn::Mul(scale, load_n(a.grad + i, left));
    auto m = load_moment<kBf16>(a.m, i, left), v = load_moment<kBf16>(a.v, i, left);
    m = hn::MulAdd(rate1, hn::Sub(g, m), m);
    v = hn::MulAdd(beta2, v, hn::Mul(rate2, hn::Mul(g, g)));
    store_moment<kBf16>(m, a.m, i, left);
    store_moment<kBf16>(v, a.v, i, left);
    const auto below = hn::MulAdd(hn::Sqrt(v), root2, eps);
    const auto step = hn::Div(hn::Mul(lr, m), below);
    store_n(hn::MulSub(keep, load_n(a.w + i, left), step), a.w + i, left);
  }
}

void adamw(const AdamWSlice& a) { a.bf16 ? adamw_as<true>(a) : adamw_as<false>(a); }

// In f64: lane l of two adds l, l + 2 lanes, …
double sum_squares(const float* x, Index n) {
  const hn::Repartition<double, F32> f64;
  auto low = hn::Zero(f64), high = hn::Zero(f64);
  for (Index i = 0; i < n; i += kLanes) {
    const auto xi = load_n(x + i, n - i);
    const auto a = hn::PromoteLowerTo(f64, xi), b = hn::PromoteUpperTo(f64, xi);
    low = hn::MulAdd(a, a, low);
    high = hn::MulAdd(b, b, high);
  }
  return hn::ReduceSum(f64, hn::Add(low, high));
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
