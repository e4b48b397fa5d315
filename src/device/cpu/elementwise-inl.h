// The operations that touch each number once or twice. Roofline: bytes moved ÷ copy speed; the
// arithmetic hides behind memory, except exp where the rows come from the cache.
#pragma once

#include "device/cpu/exp-inl.h"
#include "device/cpu/kernel_table.h"
#include "device/cpu/softmax_sum-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

// y = silu(gate) ⊙ up, silu(g) = g σ(g)                                            arXiv:2002.05202
void silu_mul(const SiluMulArgs& a) {
  for (Index t = 0; t < a.rows; ++t) {
    const float *gate = a.gate + t * a.gate_stride, *up = a.up + t * a.up_stride;
    float* y = a.y + t * a.y_stride;
    for (Index i = 0; i < a.n; i += kLanes) {
      const auto g = load_n(gate + i, a.n - i), u = load_n(up + i, a.n - i);
      store_n(hn::Mul(hn::Mul(g, sigmoid(g)), u), y + i, a.n - i);
    }
  }
}

// y[t] += Σ_k weights[t,k] expert_rows[row_of[t,k]], in slot order
void combine(const CombineSlice& a) {
  for (Index t = 0; t < a.rows; ++t) {
    float* y = a.y + t * a.y_stride;
    for (Index i = 0; i < a.n; i += kLanes) {
      auto sum = load_n(y + i, a.n - i);
      for (Index k = 0; k < a.top_k; ++k) {
        const float* row = a.expert_rows + a.row_of[t * a.top_k + k] * a.expert_stride;
        const auto weight = hn::Set(kF32, a.weights[t * a.top_k + k]);
        sum = hn::MulAdd(weight, load_n(row + i, a.n - i), sum);
      }
      store_n(sum, y + i, a.n - i);
    }
  }
}

// (a, b) -> (a cos − b sin, a sin + b cos)                                        arXiv:2104.09864
void rotate_halves(float* x, const float* cos, const float* sin, Index half, float sign) {
  const auto s_sign = hn::Set(kF32, sign);
  for (Index i = 0; i < half; i += kLanes) {
    const Index left = half - i;
    const auto a = load_n(x + i, left), b = load_n(x + half + i, left);
    const auto c = load_n(cos + i, left), s = hn::Mul(load_n(sin + i, left), s_sign);
    store_n(hn::NegMulAdd(b, s, hn::Mul(a, c)), x + i, left);
    store_n(hn::MulAdd(b, c, hn::Mul(a, s)), x + half + i, left);
  }
}

void rotate_pairs(float* x, const float* cos, const float* sin, Index half, float sign) {
  const auto s_sign = hn::Set(kF32, sign);
  Index i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    VecF32 a, b;
    hn::LoadInterleaved2(kF32, x + 2 * i, a, b);
    const auto c = hn::LoadU(kF32, cos + i), s = hn::Mul(hn::LoadU(kF32, sin + i), s_sign);
    const auto turned_a = hn::NegMulAdd(b, s, hn::Mul(a, c));
    const auto turned_b = hn::MulAdd(b, c, hn::Mul(a, s));
    hn::StoreInterleaved2(turned_a, turned_b, kF32, x + 2 * i);
  }
  for (; i < half; ++i) {  // the same operations, fused where those are
    const float a = x[2 * i], b = x[2 * i + 1], c = cos[i], s = sin[i] * sign;
    x[2 * i] = __builtin_fmaf(-b, s, a * c);
    x[2 * i + 1] = __builtin_fmaf(b, c, a * s);
  }
}

void rope(const RopeArgs& a) {
  const Index half = a.n_rot / 2;
  const float sign = a.inverse ? -1.0F : 1.0F;
  const bool pairs = a.layout == RopeLayout::kInterleaved;
  for (Index r = 0; r < a.rows; ++r) {
    const float *cos = a.cos + r * half, *sin = a.sin + r * half;
    for (Index h = 0; h < a.n_heads; ++h) {
      float* x = a.x + r * a.row_stride + h * a.head_stride;
      if (pairs) {
        rotate_pairs(x, cos, sin, half, sign);
      } else {
        rotate_halves(x, cos, sin, half, sign);
      }
    }
  }
}

// z[id] − max − log Σ exp(z − max)
float log_prob(const float* z, Index n, Index id) { return softmax_sum(z, n).log_prob(z[id]); }

}  // namespace
}  // namespace kogia::KOGIA_ISA
