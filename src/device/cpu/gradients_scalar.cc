// `--isa scalar`: the definitions in f64, rounded where they are added.

#include <cmath>
#include <cstring>
#include <vector>

#include "device/cpu/tables.h"
#include "device/reference/gradients.h"
#include "device/reference/log_prob.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

double f64(float x) { return static_cast<double>(x); }
void add_to(float& sum, double x) { sum += static_cast<float>(x); }

void linear_wgrad(const WgradTile& a, float*) {
  for (Index b = 0; b < a.n_blocks; ++b) {
    const Index begin = a.blocks[b].begin, end = begin + a.blocks[b].n;
    for (Index o = 0; o < a.n; ++o) {
      double bias = 0;
      for (Index r = begin; r < end; ++r) bias += f64(a.dy[r * a.dy_stride + o]);
      if (a.db != nullptr) add_to(a.db[o], bias);
      for (Index i = 0; i < a.cols; ++i) {
        double sum = 0;
        for (Index r = begin; r < end; ++r) {
          sum += f64(a.dy[r * a.dy_stride + o]) * f64(a.x[r * a.x_stride + i]);
        }
        add_to(a.dw[o * a.dw_stride + i], sum);
      }
    }
  }
}

void rms_norm_vjp(const RmsNormVjpArgs& a, Index begin, Index end, float* sums) {
  const double n = static_cast<double>(a.n);
  for (Index r = begin; r < end; ++r) {
    const float *x = a.x + r * a.x_stride, *dy = a.dy + r * a.dy_stride;
    float* dx = a.dx + r * a.dx_stride;
    double sum_sq = 0, dot = 0;
    for (Index i = 0; i < a.n; ++i) {
      sum_sq += f64(x[i]) * f64(x[i]);
      dot += f64(dy[i]) * f64(a.weight[i]) * f64(x[i]);
    }
    const double inv_rms = 1 / std::sqrt(sum_sq / n + f64(a.eps));
    const double mean = dot * inv_rms / n;
    for (Index i = 0; i < a.n; ++i) {
      const double normed = f64(x[i]) * inv_rms, g = f64(dy[i]);
      if (sums != nullptr) add_to(sums[i], g * normed);
      if (!a.accumulate) dx[i] = 0;
      add_to(dx[i], (g * f64(a.weight[i]) - normed * mean) * inv_rms);
    }
  }
}

void silu_mul_vjp(const SiluMulVjpArgs& a) {
  for (Index r = 0; r < a.rows; ++r) {
    for (Index i = 0; i < a.n; ++i) {
      const double gate = f64(a.gate[r * a.gate_stride + i]), up = f64(a.up[r * a.up_stride + i]);
      const double dh = f64(a.dh[r * a.dh_stride + i]);
      double dgate = 0, dup = 0;
      reference::silu_mul_vjp(&gate, &up, &dh, 1, &dgate, &dup);
      a.dgate[r * a.dgate_stride + i] = static_cast<float>(dgate);
      add_to(a.dup[r * a.dup_stride + i], dup);
    }
  }
}

// [rows, width] as f64 without the stride.
std::vector<double> dense(const float* x, Index stride, Index rows, Index width) {
  std::vector<double> out;
  for (Index r = 0; r < rows; ++r) {
    out.insert(out.end(), x + r * stride, x + r * stride + width);
  }
  return out;
}

void add_dense(const std::vector<double>& from, float* to, Index stride, Index rows, Index width) {
  for (Index r = 0; r < rows; ++r) {
    for (Index i = 0; i < width; ++i) {
      add_to(to[r * stride + i], from[static_cast<std::size_t>(r * width + i)]);
    }
  }
}

void attention_vjp(const AttentionVjpHead& a, float*) {
  const reference::DenseAttention shape = {.n_tokens = a.n_rows,
                                           .n_heads = a.n_heads,
                                           .n_kv_heads = 1,
                                           .k_dim = a.k_dim,
                                           .v_dim = a.v_dim,
                                           .scale = f64(a.scale)};
  const Index q_width = a.n_heads * a.k_dim;
  const auto q = dense(a.q, a.q_stride, a.n_rows, q_width);
  const auto k = dense(a.k, a.k_stride, a.n_rows, a.k_dim);
  const auto v = dense(a.v, a.v_stride, a.n_rows, a.v_dim);
  const auto dout = dense(a.dout, a.dout_stride, a.n_rows, a.n_heads * a.v_dim);
  std::vector<double> dq(q.size(), 0), dk(k.size(), 0), dv(v.size(), 0);
  reference::dense_attention_vjp(shape, q.data(), k.data(), v.data(), dout.data(), dq.data(),
                                 dk.data(), dv.data());
  add_dense(dq, a.dq, a.q_stride, a.n_rows, q_width);
  add_dense(dk, a.dk, a.k_stride, a.n_rows, a.k_dim);
  add_dense(dv, a.dv, a.v_stride, a.n_rows, a.v_dim);
}

void combine_vjp(const CombineVjpSlice& a) {
  for (Index slot = 0; slot < a.rows * a.top_k; ++slot) {
    const float* dy = a.dy + slot / a.top_k * a.dy_stride;
    const Index row = a.row_of[slot] * a.expert_stride;
    for (Index i = 0; i < a.n; ++i) {
      add_to(a.dexpert_rows[row + i], f64(a.weights[slot]) * f64(dy[i]));
    }
  }
}

float cross_entropy(float* logits, Index n, Index target, float dloss) {
  const float log_prob = reference::log_prob(logits, n, target);
  std::vector<double> p(logits, logits + n);
  reference::softmax(p);
  p[static_cast<std::size_t>(target)] -= 1;
  for (Index i = 0; i < n; ++i) {
    logits[i] = static_cast<float>(f64(dloss) * p[static_cast<std::size_t>(i)]);
  }
  return log_prob;
}

float load_moment(const std::byte* moments, bool bf16, Index i) {
  if (!bf16) {
    float x;
    std::memcpy(&x, moments + 4 * i, 4);
    return x;
  }
  std::uint16_t x;
  std::memcpy(&x, moments + 2 * i, 2);
  return bf16_to_f32(x);
}

void store_moment(float x, std::byte* moments, bool bf16, Index i) {
  if (!bf16) {
    std::memcpy(moments + 4 * i, &x, 4);
    return;
  }
  const std::uint16_t rounded = f32_to_bf16(x);
  std::memcpy(moments + 2 * i, &rounded, 2);
}

void adamw(const AdamWSlice& a) {
  for (Index i = 0; i < a.n; ++i) {
    const double g = f64(a.grad_scale) * f64(a.grad[i]);
    double m = f64(load_moment(a.m, a.bf16, i)), v = f64(load_moment(a.v, a.bf16, i));
    m += f64(a.rate1) * (g - m);
    v = f64(a.beta2) * v + f64(a.rate2) * g * g;
    store_moment(static_cast<float>(m), a.m, a.bf16, i);
    store_moment(static_cast<float>(v), a.v, a.bf16, i);
    const double step = f64(a.lr) * m / (std::sqrt(v) * f64(a.root2) + f64(a.eps));
    a.w[i] = static_cast<float>(f64(a.keep) * f64(a.w[i]) - step);
  }
}

double sum_squares(const float* x, Index n) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += f64(x[i]) * f64(x[i]);
  return sum;
}

/// x[0], x[step], ... as E4M3 holds them together; returns the scale.
float fp8_tile(const float* x, Index step, Index n, const auto& put) {
  float largest = 0;
  for (Index i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i * step]));
  const float scale = std::max(largest, 1e-4f) / 448;
  for (Index i = 0; i < n; ++i) put(i, f32_to_e4m3(x[i * step] / scale), scale);
  return scale;
}

void fp8_rows(const Fp8Args& a) {
  const Index n_tiles = ceil_div(a.cols, kFp8Tile);
  for (Index r = 0; r < a.rows; ++r) {
    for (Index t = 0; t < n_tiles; ++t) {
      const Index begin = t * kFp8Tile, n = std::min(kFp8Tile, a.cols - begin);
      const auto put = [&](Index i, std::uint8_t code, float scale) {
        if (a.codes != nullptr) a.codes[r * a.cols + begin + i] = code;
        if (a.y != nullptr) a.y[r * a.y_stride + begin + i] = e4m3_to_f32(code) * scale;
      };
      const float scale = fp8_tile(a.x + r * a.x_stride + begin, 1, n, put);
      if (a.scales != nullptr) a.scales[r * n_tiles + t] = scale;
    }
  }
}

void fp8_columns(const Fp8Args& a) {
  for (Index c = 0; c < a.cols; ++c) {
    fp8_tile(a.x + c, a.x_stride, a.rows, [&](Index r, std::uint8_t code, float scale) {
      a.y[r * a.y_stride + c] = e4m3_to_f32(code) * scale;
    });
  }
}

void fp8_decode(const Fp8DecodeArgs& a) {
  const Index n_tiles = ceil_div(a.cols, kFp8Tile);
  for (Index r = 0; r < a.rows; ++r) {
    for (Index i = 0; i < a.cols; ++i) {
      a.y[r * a.y_stride + i] =
          e4m3_to_f32(a.codes[r * a.cols + i]) * a.scales[r * n_tiles + i / kFp8Tile];
    }
  }
}

void add(const AddArgs& a) {
  for (Index r = 0; r < a.rows; ++r) {
    for (Index i = 0; i < a.n; ++i) a.y[r * a.y_stride + i] += a.x[r * a.x_stride + i];
  }
}

}  // namespace

constinit const GradientKernels kScalarGradients = {
    .linear_wgrad = linear_wgrad,
    .rms_norm_vjp = rms_norm_vjp,
    .silu_mul_vjp = silu_mul_vjp,
    .attention_vjp_floats = [](const AttentionVjpHead&) { return Index{0}; },
    .attention_vjp = attention_vjp,
    .combine_vjp = combine_vjp,
    .cross_entropy = cross_entropy,
    .adamw = adamw,
    .sum_squares = sum_squares,
    .add = add,
    .fp8_rows = fp8_rows,
    .fp8_columns = fp8_columns,
    .fp8_decode = fp8_decode,
};

}  // namespace kogia
