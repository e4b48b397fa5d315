// Gradients of the operations on rows. Roofline: bytes moved ÷ copy speed, where the arithmetic
// hides: rms_norm_vjp 16 bytes and about 12 flops a number (x and dy a second time from the cache),
// silu_mul_vjp 28 bytes and an exp, combine_vjp 16 bytes and 4 flops a number of an expert's row,
// add 12 bytes and a flop, cross_entropy 8 bytes (twice more from a cache) and two exp.
#pragma once

#include "device/cpu/exp-inl.h"
#include "device/cpu/gradient_table.h"
#include "device/cpu/softmax_sum-inl.h"

namespace kogia::KOGIA_ISA {
namespace {

// With n̂ = x / rms and g = dy ⊙ w:  dx (+)= (g − n̂ mean(g ⊙ n̂)) / rms,  sums += dy ⊙ n̂
void rms_norm_vjp(const RmsNormVjpArgs& a, Index begin, Index end, float* sums) {
  const Index n = a.n;
  const auto size = static_cast<float>(n);
  for (Index r = begin; r < end; ++r) {
    const float *x = a.x + r * a.x_stride, *dy = a.dy + r * a.dy_stride;
    float* dx = a.dx + r * a.dx_stride;

    // Lane l of the even (odd) sums adds the even (odd) vectors: an order fixed by n alone.
    VecF32 squares[2] = {hn::Zero(kF32), hn::Zero(kF32)};
    VecF32 dots[2] = {hn::Zero(kF32), hn::Zero(kF32)};
    const auto take = [&](int j, Index i) HWY_ATTR {
      const auto xi = load_n(x + i, n - i);
      const auto g = hn::Mul(load_n(dy + i, n - i), load_n(a.weight + i, n - i));
      squares[j] = hn::MulAdd(xi, xi, squares[j]);
      dots[j] = hn::MulAdd(g, xi, dots[j]);
    };
    Index i = 0;
    for (; i + kLanes < n; i += 2 * kLanes) take(0, i), take(1, i + kLanes);
    if (i < n) take(0, i);
    const float mean_sq = hn::ReduceSum(kF32, hn::Add(squares[0], squares[1])) / size;
    const float inv_rms = 1 / __builtin_sqrtf(mean_sq + a.eps);
    const float mean = hn::ReduceSum(kF32, hn::Add(dots[0], dots[1])) * inv_rms / size;

    const auto v_inv = hn::Set(kF32, inv_rms), v_mean = hn::Set(kF32, mean);
    for (i = 0; i < n; i += kLanes) {
      const auto dyi = load_n(dy + i, n - i);
      const auto normed = hn::Mul(load_n(x + i, n - i), v_inv);
      const auto g = hn::Mul(dyi, load_n(a.weight + i, n - i));
      auto d = hn::Mul(hn::NegMulAdd(normed, v_mean, g), v_inv);
      if (a.accumulate) d = hn::Add(load_n(dx + i, n - i), d);
      if (sums != nullptr) {
        store_n(hn::MulAdd(dyi, normed, load_n(sums + i, n - i)), sums + i, n - i);
      }
      store_n(d, dx + i, n - i);
    }
  }
}

// dgate = dh ⊙ up ⊙ s (1 + gate (1 − s)),  dup += dh ⊙ gate s,  s = σ(gate)
void silu_mul_vjp(const SiluMulVjpArgs& a) {
  const auto one = hn::Set(kF32, 1.0F);
  for (Index r = 0; r < a.rows; ++r) {
    const float *gate = a.gate + r * a.gate_stride, *up = a.up + r * a.up_stride;
    const float* dh = a.dh + r * a.dh_stride;
    float *dgate = a.dgate + r * a.dgate_stride, *dup = a.dup + r * a.dup_stride;
    for (Index i = 0; i < a.n; i += kLanes) {
      const Index left = a.n - i;
      const auto g = load_n(gate + i, left), h = load_n(dh + i, left);
      const auto s = sigmoid(g);
      const auto slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
      const auto hu = hn::Mul(h, load_n(up + i, left));
      store_n(hn::MulAdd(h, hn::Mul(g, s), load_n(dup + i, left)), dup + i, left);
      store_n(hn::Mul(hu, slope), dgate + i, left);
    }
  }
}

// For each slot:  de[row] += w dy
void combine_vjp(const CombineVjpSlice& a) {
  for (Index slot = 0; slot < a.rows * a.top_k; ++slot) {
    const float* dy = a.dy + slot / a.top_k * a.dy_stride;
    float* de = a.dexpert_rows + a.row_of[slot] * a.expert_stride;
    const auto weight = hn::Set(kF32, a.weights[slot]);
    for (Index i = 0; i < a.n; i += kLanes) {
      const Index left = a.n - i;
      store_n(hn::MulAdd(weight, load_n(dy + i, left), load_n(de + i, left)), de + i, left);
    }
  }
}

void add(const AddArgs& a) {
  for (Index r = 0; r < a.rows; ++r) {
    const float* x = a.x + r * a.x_stride;
    float* y = a.y + r * a.y_stride;
    for (Index i = 0; i < a.n; i += kLanes) {
      store_n(hn::Add(load_n(y + i, a.n - i), load_n(x + i, a.n - i)), y + i, a.n - i);
    }
  }
}

// z := dloss (softmax(z) − 1[target]); returns log softmax(z)[target]
float cross_entropy(float* z, Index n, Index target, float dloss) {
  const SoftmaxSum of = softmax_sum(z, n);
  const float log_prob = of.log_prob(z[target]);
  const auto v_max = hn::Set(kF32, of.max);
  const auto factor = hn::Set(kF32, static_cast<float>(static_cast<double>(dloss) / of.sum));
  for (Index i = 0; i < n; i += kLanes) {
    const auto e = exp(hn::Sub(load_n(z + i, n - i), v_max));
    store_n(hn::Mul(e, factor), z + i, n - i);
  }
  z[target] -= dloss;
  return log_prob;
}

}  // namespace
}  // namespace kogia::KOGIA_ISA
