// Every vector-Jacobian product against the complex step of its forward: the imaginary part of
// f(x + ih) over h is the derivative without cancellation, so they agree to 1e-12.

#include "device/reference/gradients.h"

#include <cmath>
#include <complex>
#include <functional>

#include <gtest/gtest.h>

#include "base/random.h"
#include "device/reference/rms_norm.h"
#include "device/reference/silu_mul.h"

namespace kogia::reference {
namespace {

using Complex = std::complex<double>;
using Reals = std::vector<double>;
using Complexes = std::vector<Complex>;

Reals random_reals(std::uint64_t key, Index n) {
  const Philox random(17, key);
  Reals x;
  for (Index i = 0; i < n; ++i) {
    x.push_back(static_cast<double>(random.normal(static_cast<std::uint64_t>(i))));
  }
  return x;
}

Complexes complex_of(const Reals& x) { return {x.begin(), x.end()}; }

/// Holds `gradient` to that of x ↦ Σ dy ⊙ f(x), one coordinate after another.
void expect_gradient(const Reals& x, const std::function<Complexes(const Complexes&)>& f,
                     const Reals& dy, const Reals& gradient, const char* what) {
  constexpr double kStep = 1e-30;
  ASSERT_EQ(x.size(), gradient.size());
  double largest = 1;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));
  for (std::size_t i = 0; i < x.size(); ++i) {
    Complexes shifted = complex_of(x);
    shifted[i] += Complex(0, kStep);
    const Complexes y = f(shifted);
    ASSERT_EQ(y.size(), dy.size());
    double expected = 0;
    for (std::size_t j = 0; j < y.size(); ++j) expected += dy[j] * y[j].imag() / kStep;
    EXPECT_NEAR(gradient[i], expected, 1e-12 * largest) << what << ", number " << i;
  }
}

template <class T>
std::vector<T> zeros(const std::vector<T>& like) {
  return std::vector<T>(like.size(), T(0));
}

TEST(Gradients, Linear) {
  for (const auto& [rows, n, cols] :
       {std::tuple<Index, Index, Index>{3, 5, 4}, {1, 1, 7}, {0, 2, 3}}) {
    const Reals x = random_reals(1, rows * cols), w = random_reals(2, n * cols),
                b = random_reals(3, n), dy = random_reals(4, rows * n);
    Reals dx = zeros(x), dw = zeros(w), db = zeros(b);
    linear_vjp(x.data(), w.data(), dy.data(), rows, n, cols, dx.data(), dw.data(), db.data());
    const auto forward = [&](const Complexes& cx, const Complexes& cw, const Complexes& cb) {
      Complexes y;
      for (Index r = 0; r < rows; ++r) {
        for (Index o = 0; o < n; ++o) {
          y.push_back(cb[static_cast<std::size_t>(o)] +
                      dot(cx.data() + r * cols, cw.data() + o * cols, cols));
        }
      }
      return y;
    };
    const Complexes cx = complex_of(x), cw = complex_of(w), cb = complex_of(b);
    expect_gradient(x, [&](const auto& v) { return forward(v, cw, cb); }, dy, dx, "dx");
    expect_gradient(w, [&](const auto& v) { return forward(cx, v, cb); }, dy, dw, "dw");
    expect_gradient(b, [&](const auto& v) { return forward(cx, cw, v); }, dy, db, "db");
  }
}

TEST(Gradients, AnEmbeddingUsedTwiceAddsUp) {
  const std::vector<std::int32_t> ids{2, 0, 2};
  const Reals dy{1, 2, 10, 20, 100, 200};
  Reals dtable(6, 0);
  embed_vjp(std::span<const std::int32_t>(ids), dy.data(), 2, dtable.data());
  EXPECT_EQ(dtable, (Reals{10, 20, 0, 0, 101, 202}));
}

TEST(Gradients, RmsNorm) {
  for (const Index n : {1, 7, 64}) {
    const Reals x = random_reals(1, n), w = random_reals(2, n), dy = random_reals(3, n);
    Reals dx = zeros(x), dw = zeros(w);
    rms_norm_vjp(x.data(), w.data(), dy.data(), n, 1e-6, dx.data(), dw.data());
    const auto forward = [&](const Complexes& cx, const Complexes& cw) {
      Complexes y(cx.size());
      rms_norm(cx.data(), cw.data(), y.data(), n, 1e-6);
      return y;
    };
    const Complexes cx = complex_of(x), cw = complex_of(w);
    expect_gradient(x, [&](const auto& v) { return forward(v, cw); }, dy, dx, "dx");
    expect_gradient(w, [&](const auto& v) { return forward(cx, v); }, dy, dw, "dw");
  }
}

TEST(Gradients, Rope) {
  for (const RopeLayout layout : {RopeLayout::kInterleaved, RopeLayout::kHalves}) {
    for (const bool inverse : {false, true}) {
      const Reals x = random_reals(1, 8), dy = random_reals(2, 8), angles = random_reals(3, 4);
      Reals cosines, sines;
      for (const double angle : angles) {
        cosines.push_back(std::cos(angle));
        sines.push_back(std::sin(angle));
      }
      Reals dx = dy;
      rope_vjp(dx.data(), cosines.data(), sines.data(), 8, layout, inverse);
      const Complexes cc = complex_of(cosines), cs = complex_of(sines);
      expect_gradient(
          x,
          [&](Complexes v) {
            rope(v.data(), cc.data(), cs.data(), 8, layout, inverse);
            return v;
          },
          dy, dx, "dx");
    }
  }
}

TEST(Gradients, SiluMul) {
  const Index n = 33;
  Reals gate = random_reals(1, n);
  gate[0] = 0;
  gate[1] = -30;
  gate[2] = 30;
  const Reals up = random_reals(2, n), dh = random_reals(3, n);
  Reals dgate = zeros(gate), dup = zeros(up);
  silu_mul_vjp(gate.data(), up.data(), dh.data(), n, dgate.data(), dup.data());
  const auto forward = [&](const Complexes& g, const Complexes& u) {
    Complexes h;
    for (std::size_t i = 0; i < g.size(); ++i) h.push_back(silu(g[i]) * u[i]);
    return h;
  };
  const Complexes cg = complex_of(gate), cu = complex_of(up);
  expect_gradient(gate, [&](const auto& v) { return forward(v, cu); }, dh, dgate, "dgate");
  expect_gradient(up, [&](const auto& v) { return forward(cg, v); }, dh, dup, "dup");
}

TEST(Gradients, Combine) {
  const Index rows = 3, top_k = 2, n = 5;
  const std::vector<std::int32_t> row_of{4, 0, 1, 5, 3, 2};
  const Reals e = random_reals(1, rows * top_k * n), w = random_reals(2, rows * top_k),
              dy = random_reals(3, rows * n);
  Reals de = zeros(e);
  combine_vjp(std::span<const std::int32_t>(row_of), w.data(), dy.data(), top_k, n, de.data());
  const auto forward = [&](const Complexes& ce) {
    Complexes y(static_cast<std::size_t>(rows * n), 0);
    for (std::size_t slot = 0; slot < row_of.size(); ++slot) {
      for (Index i = 0; i < n; ++i) {
        y[static_cast<std::size_t>(static_cast<Index>(slot) / top_k * n + i)] +=
            w[slot] * ce[static_cast<std::size_t>(row_of[slot] * n + i)];
      }
    }
    return y;
  };
  expect_gradient(e, forward, dy, de, "de");
}

TEST(Gradients, RouterWeights) {
  const Index n_experts = 9;
  const std::vector<std::int32_t> experts{7, 2, 4};
  const std::span<const std::int32_t> chosen(experts);
  for (const RouterScore score : {RouterScore::kSigmoid, RouterScore::kSoftmax}) {
    for (const bool normalise : {false, true}) {
      const RouterForm form{.score = score, .normalise = normalise, .scale = 2.5};
      const Reals z = random_reals(1, n_experts), dw = random_reals(2, 3);
      Reals dz = zeros(z);
      route_weights_vjp(z.data(), n_experts, chosen, form, dw.data(), dz.data());
      expect_gradient(
          z,
          [&](const Complexes& v) {
            Complexes w(3);
            route_weights(v.data(), n_experts, chosen, form, w.data());
            return w;
          },
          dw, dz, "dlogits");
    }
  }
}

TEST(Gradients, TheBalanceLossOfASequence) {
  const Index n_experts = 6, top_k = 2, n = 5;
  const std::vector<std::int32_t> experts{0, 1, 0, 2, 0, 5, 1, 3, 0, 4};
  const std::span<const std::int32_t> chosen(experts);
  for (const RouterScore score : {RouterScore::kSigmoid, RouterScore::kSoftmax}) {
    const Reals z = random_reals(1, n * n_experts);
    Reals dz = zeros(z);
    balance_loss_vjp(z.data(), chosen, n_experts, top_k, score, 0.1, 3.0, dz.data());
    expect_gradient(
        z,
        [&](const Complexes& v) {
          return Complexes{balance_loss(v.data(), chosen, n_experts, top_k, score, 0.1)};
        },
        {3.0}, dz, "dlogits");
  }
}

// With equal scores and equal loads the loss is α, its least.
TEST(Gradients, ABalancedSequenceHasTheLeastLoss) {
  const std::vector<std::int32_t> experts{0, 1, 2, 3};
  const Reals z(8, 0.5);
  EXPECT_NEAR(balance_loss(z.data(), std::span<const std::int32_t>(experts), 4, 2,
                           RouterScore::kSigmoid, 0.1),
              0.1, 1e-12);
}

TEST(Gradients, Attention) {
  for (const DenseAttention& a :
       {DenseAttention{
            .n_tokens = 6, .n_heads = 4, .n_kv_heads = 2, .k_dim = 5, .v_dim = 3, .scale = 0.4},
        DenseAttention{
            .n_tokens = 4, .n_heads = 3, .n_kv_heads = 1, .k_dim = 4, .v_dim = 7, .scale = 1},
        DenseAttention{
            .n_tokens = 1, .n_heads = 1, .n_kv_heads = 1, .k_dim = 2, .v_dim = 2, .scale = 1}}) {
    const Reals q = random_reals(1, a.n_tokens * a.n_heads * a.k_dim),
                k = random_reals(2, a.n_tokens * a.n_kv_heads * a.k_dim),
                v = random_reals(3, a.n_tokens * a.n_kv_heads * a.v_dim),
                dout = random_reals(4, a.n_tokens * a.n_heads * a.v_dim);
    Reals dq = zeros(q), dk = zeros(k), dv = zeros(v);
    dense_attention_vjp(a, q.data(), k.data(), v.data(), dout.data(), dq.data(), dk.data(),
                        dv.data());
    const auto forward = [&](const Complexes& cq, const Complexes& ck, const Complexes& cv) {
      Complexes out(dout.size());
      dense_attention(a, cq.data(), ck.data(), cv.data(), out.data());
      return out;
    };
    const Complexes cq = complex_of(q), ck = complex_of(k), cv = complex_of(v);
    expect_gradient(q, [&](const auto& x) { return forward(x, ck, cv); }, dout, dq, "dq");
    expect_gradient(k, [&](const auto& x) { return forward(cq, x, cv); }, dout, dk, "dk");
    expect_gradient(v, [&](const auto& x) { return forward(cq, ck, x); }, dout, dv, "dv");
  }
}

TEST(Gradients, CrossEntropy) {
  for (const Index target : {0, 6}) {
    Reals z = random_reals(1, 7);
    z[3] = 40;  // far above: nothing overflows
    Reals dz = zeros(z);
    cross_entropy_vjp(z.data(), 7, target, 0.25, dz.data());
    expect_gradient(
        z, [&](const Complexes& v) { return Complexes{cross_entropy(v.data(), 7, target)}; },
        {0.25}, dz, "dlogits");
  }
}

}  // namespace
}  // namespace kogia::reference
