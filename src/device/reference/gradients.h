#pragma once
// Vector-Jacobian products of the operations, as they are defined: what the backward pass of every
// device is held to. For y = f(x) and a loss L they take dy = ∂L/∂y and add ∂L/∂x to dx, so that
// several uses of one x add up. Templates, so that tests can check them in f64 and by complex step.
//
// Sums run in the order of their index; what a device promises beyond that (docs/design, the
// partition of sums over tokens) is its own.

#include <cmath>
#include <utility>
#include <vector>

#include "device/device.h"
#include "device/reference/elementary.h"
#include "device/reference/rope.h"
#include "device/reference/route.h"

namespace kogia::reference {

// ---------------------------------------------------------------------------------------------------
// y = x Wᵀ + b:  dx = dy W,  dW = dyᵀ x,  db = Σ_rows dy

/// x [rows, cols], w [n, cols], dy [rows, n]; any of dx, dw, db may be null.
template <class S>
void linear_vjp(const S* x, const S* w, const S* dy, Index rows, Index n, Index cols, S* dx, S* dw,
                S* db) {
  for (Index r = 0; r < rows; ++r) {
    for (Index o = 0; o < n; ++o) {
      const S g = dy[r * n + o];
      if (db != nullptr) db[o] += g;
      for (Index i = 0; i < cols; ++i) {
        if (dx != nullptr) dx[r * cols + i] += g * w[o * cols + i];
        if (dw != nullptr) dw[o * cols + i] += g * x[r * cols + i];
      }
    }
  }
}

/// y[i,:] = table[ids[i],:]:  dtable[ids[i],:] += dy[i,:]
template <class S>
void embed_vjp(std::span<const std::int32_t> ids, const S* dy, Index cols, S* dtable) {
  for (std::size_t r = 0; r < ids.size(); ++r) {
    for (Index i = 0; i < cols; ++i) {
      dtable[ids[r] * cols + i] += dy[static_cast<Index>(r) * cols + i];
    }
  }
}

// ---------------------------------------------------------------------------------------------------
// y = x ⊙ w / rms:  with n̂ = x / rms and g = dy ⊙ w,
//   dx = (g − n̂ mean(g ⊙ n̂)) / rms,  dw = dy ⊙ n̂                                arXiv:1910.07467

template <class S>
void rms_norm_vjp(const S* x, const S* weight, const S* dy, Index n, double eps, S* dx,
                  S* dweight) {
  using std::sqrt;
  const S size = S(static_cast<double>(n));
  S sum_sq = 0, dot = 0;
  for (Index i = 0; i < n; ++i) sum_sq += x[i] * x[i];
  const S rms = sqrt(sum_sq / size + S(eps));
  for (Index i = 0; i < n; ++i) dot += dy[i] * weight[i] * x[i] / rms;
  for (Index i = 0; i < n; ++i) {
    const S normed = x[i] / rms;
    dx[i] += (dy[i] * weight[i] - normed * dot / size) / rms;
    dweight[i] += dy[i] * normed;
  }
}

// ---------------------------------------------------------------------------------------------------
// A rotation's transpose turns back, so the product needs no operands: in place on dx.

template <class S>
void rope_vjp(S* dx, const S* cos, const S* sin, Index n_rot, RopeLayout layout, bool inverse) {
  rope(dx, cos, sin, n_rot, layout, !inverse);
}

// ---------------------------------------------------------------------------------------------------
// h = silu(g) ⊙ u:  dg = dh ⊙ u ⊙ σ(g) (1 + g (1 − σ(g))),  du = dh ⊙ silu(g)      arXiv:2002.05202

template <class S>
void silu_mul_vjp(const S* gate, const S* up, const S* dh, Index n, S* dgate, S* dup) {
  for (Index i = 0; i < n; ++i) {
    const S s = sigmoid(gate[i]);
    dgate[i] += dh[i] * up[i] * s * (S(1) + gate[i] * (S(1) - s));
    dup[i] += dh[i] * gate[i] * s;
  }
}

// ---------------------------------------------------------------------------------------------------
// y[t,:] += Σ_k w[t,k] e[row_of[t,k],:]:  de[row] = w dy

template <class S>
void combine_vjp(std::span<const std::int32_t> row_of, const S* weights, const S* dy, Index top_k,
                 Index n, S* dexpert_rows) {
  for (std::size_t slot = 0; slot < row_of.size(); ++slot) {
    const S* g = dy + static_cast<Index>(slot) / top_k * n;
    const Index row = row_of[slot] * n;
    for (Index i = 0; i < n; ++i) dexpert_rows[row + i] += weights[slot] * g[i];
  }
}

// ---------------------------------------------------------------------------------------------------
// Weights of chosen experts (arXiv:2412.19437 §2.1.2): w_k = scale s_k / N, N = Σ_chosen s + 1e-20
// or
// 1. The choice itself has no gradient, and the bias that it uses has none either.
//   ds_k = scale (dw_k − normalise Σ_j dw_j s_j / N) / N
//   sigmoid: dz_e = ds_e s_e (1 − s_e);  softmax: dz_e = s_e (ds_e − Σ_j ds_j s_j)

/// ∂L/∂logits from ∂L/∂scores.
template <class S>
void router_scores_vjp(const std::vector<S>& s, const std::vector<S>& ds, RouterScore kind,
                       S* dlogits) {
  S dot = 0;
  for (std::size_t e = 0; e < s.size(); ++e) dot += ds[e] * s[e];
  for (std::size_t e = 0; e < s.size(); ++e) {
    dlogits[e] +=
        kind == RouterScore::kSigmoid ? ds[e] * s[e] * (S(1) - s[e]) : s[e] * (ds[e] - dot);
  }
}

struct RouterForm {
  RouterScore score = RouterScore::kSigmoid;
  bool normalise = true;
  double scale = 1;
};

/// weights [top_k] of one row whose experts are chosen.
template <class S>
void route_weights(const S* logits, Index n_experts, std::span<const std::int32_t> experts,
                   const RouterForm& form, S* weights) {
  const std::vector<S> s = router_scores<S>(logits, n_experts, form.score);
  S sum = S(1e-20);
  for (const std::int32_t e : experts) sum += s[static_cast<std::size_t>(e)];
  for (std::size_t k = 0; k < experts.size(); ++k) {
    weights[k] =
        S(form.scale) * s[static_cast<std::size_t>(experts[k])] / (form.normalise ? sum : S(1));
  }
}

template <class S>
void route_weights_vjp(const S* logits, Index n_experts, std::span<const std::int32_t> experts,
                       const RouterForm& form, const S* dweights, S* dlogits) {
  const std::vector<S> s = router_scores<S>(logits, n_experts, form.score);
  S sum = S(1e-20), dot = 0;
  for (std::size_t k = 0; k < experts.size(); ++k) {
    const S score = s[static_cast<std::size_t>(experts[k])];
    sum += score;
    dot += dweights[k] * score;
  }
  std::vector<S> ds(s.size(), S(0));
  for (std::size_t k = 0; k < experts.size(); ++k) {
    ds[static_cast<std::size_t>(experts[k])] +=
        S(form.scale) * (form.normalise ? (dweights[k] - dot / sum) / sum : dweights[k]);
  }
  router_scores_vjp(s, ds, form.score, dlogits);
}

// ---------------------------------------------------------------------------------------------------
// The sequence-wise balance loss of V3 (arXiv:2412.19437 eq. 17-20), of one sequence of T tokens:
//   L = α Σ_e f_e P_e,  f_e = E/(K T) Σ_t [e chosen by t],  P_e = 1/T Σ_t s_te / Σ_j s_tj
// f counts, so only P has a gradient.

/// α/T E/(K T) · how often each expert is chosen: what its share of each row's scores weighs.
inline std::vector<double> balance_weights(std::span<const std::int32_t> experts, Index n_experts,
                                           Index top_k, double alpha) {
  const auto n = static_cast<double>(static_cast<Index>(experts.size()) / top_k);
  const double each = alpha / n * static_cast<double>(n_experts) / (static_cast<double>(top_k) * n);
  std::vector<double> weights(static_cast<std::size_t>(n_experts), 0);
  for (const std::int32_t e : experts) weights[static_cast<std::size_t>(e)] += each;
  return weights;
}

/// Σ_e weights_e s_e / Σ_j s_j of one row, and that row's Σ_j s_j.
template <class S>
std::pair<S, S> balance_of_row(const std::vector<S>& s, const std::vector<double>& weights) {
  S sum = 0, weighted = 0;
  for (std::size_t e = 0; e < s.size(); ++e) {
    sum += s[e];
    weighted += s[e] * S(weights[e]);
  }
  return {weighted / sum, sum};
}

template <class S>
S balance_loss(const S* logits, std::span<const std::int32_t> experts, Index n_experts, Index top_k,
               RouterScore kind, double alpha) {
  const std::vector<double> weights = balance_weights(experts, n_experts, top_k, alpha);
  S loss = 0;
  for (Index t = 0; t < static_cast<Index>(experts.size()) / top_k; ++t) {
    loss +=
        balance_of_row(router_scores<S>(logits + t * n_experts, n_experts, kind), weights).first;
  }
  return loss;
}

template <class S>
void balance_loss_vjp(const S* logits, std::span<const std::int32_t> experts, Index n_experts,
                      Index top_k, RouterScore kind, double alpha, S dloss, S* dlogits) {
  const std::vector<double> weights = balance_weights(experts, n_experts, top_k, alpha);
  for (Index t = 0; t < static_cast<Index>(experts.size()) / top_k; ++t) {
    const std::vector<S> s = router_scores<S>(logits + t * n_experts, n_experts, kind);
    const auto [balance, sum] = balance_of_row(s, weights);
    std::vector<S> ds(s.size());
    for (std::size_t e = 0; e < s.size(); ++e) ds[e] = dloss * (S(weights[e]) - balance) / sum;
    router_scores_vjp(s, ds, kind, dlogits + t * n_experts);
  }
}

// ---------------------------------------------------------------------------------------------------
// Causal attention of one sequence that is there as a whole (training has no cache):
//   p_rt = softmax_t(scale q_r · k_t), t <= r;  out_r = Σ_t p_rt v_t
//   dv_t += p_rt dout_r;  dp_rt = dout_r · v_t;  ds_rt = p_rt (dp_rt − Σ_j p_rj dp_rj)
//   dq_r += scale Σ_t ds_rt k_t;  dk_t += scale ds_rt q_r                          arXiv:2205.14135
//   B.2

struct DenseAttention {
  Index n_tokens = 0, n_heads = 0, n_kv_heads = 0;
  Index k_dim = 0, v_dim = 0;
  double scale = 1;
  // q [T, n_heads, k_dim], k [T, n_kv_heads, k_dim], v [T, n_kv_heads, v_dim], out [T, n_heads,
  // v_dim]
  Index q_at(Index t, Index h) const { return (t * n_heads + h) * k_dim; }
  Index k_at(Index t, Index h) const { return (t * n_kv_heads + kv_head(h)) * k_dim; }
  Index v_at(Index t, Index h) const { return (t * n_kv_heads + kv_head(h)) * v_dim; }
  Index out_at(Index t, Index h) const { return (t * n_heads + h) * v_dim; }
  Index kv_head(Index h) const { return h / (n_heads / n_kv_heads); }
};

template <class S>
S dot(const S* a, const S* b, Index n) {
  S sum = 0;
  for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// p [r + 1] of one row and head.
template <class S>
std::vector<S> attention_weights(const DenseAttention& a, const S* q, const S* k, Index r,
                                 Index h) {
  std::vector<S> p;
  for (Index t = 0; t <= r; ++t) {
    p.push_back(S(a.scale) * dot(q + a.q_at(r, h), k + a.k_at(t, h), a.k_dim));
  }
  softmax(p);
  return p;
}

template <class S>
void dense_attention(const DenseAttention& a, const S* q, const S* k, const S* v, S* out) {
  for (Index r = 0; r < a.n_tokens; ++r) {
    for (Index h = 0; h < a.n_heads; ++h) {
      const std::vector<S> p = attention_weights(a, q, k, r, h);
      for (Index i = 0; i < a.v_dim; ++i) {
        S sum = 0;
        for (Index t = 0; t <= r; ++t) sum += p[static_cast<std::size_t>(t)] * v[a.v_at(t, h) + i];
        out[a.out_at(r, h) + i] = sum;
      }
    }
  }
}

template <class S>
void dense_attention_vjp(const DenseAttention& a, const S* q, const S* k, const S* v, const S* dout,
                         S* dq, S* dk, S* dv) {
  for (Index r = 0; r < a.n_tokens; ++r) {
    for (Index h = 0; h < a.n_heads; ++h) {
      const std::vector<S> p = attention_weights(a, q, k, r, h);
      const S* g = dout + a.out_at(r, h);
      std::vector<S> dp;
      S mean = 0;
      for (Index t = 0; t <= r; ++t) {
        dp.push_back(dot(g, v + a.v_at(t, h), a.v_dim));
        mean += p[static_cast<std::size_t>(t)] * dp.back();
      }
      for (Index t = 0; t <= r; ++t) {
        const S weight = p[static_cast<std::size_t>(t)];
        const S ds = S(a.scale) * weight * (dp[static_cast<std::size_t>(t)] - mean);
        for (Index i = 0; i < a.v_dim; ++i) dv[a.v_at(t, h) + i] += weight * g[i];
        for (Index i = 0; i < a.k_dim; ++i) {
          dq[a.q_at(r, h) + i] += ds * k[a.k_at(t, h) + i];
          dk[a.k_at(t, h) + i] += ds * q[a.q_at(r, h) + i];
        }
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------
// Cross-entropy of one row: L = log Σ exp z − z[target];  dz = dL (softmax(z) − 1[target])

template <class S>
S cross_entropy(const S* logits, Index n, Index target) {
  using std::log;
  std::vector<S> p(logits, logits + n);
  const Softmax<S> of = softmax(p);
  return log(of.sum) + S(of.top) - logits[target];
}

template <class S>
void cross_entropy_vjp(const S* logits, Index n, Index target, S dloss, S* dlogits) {
  std::vector<S> p(logits, logits + n);
  softmax(p);
  for (Index i = 0; i < n; ++i) dlogits[i] += dloss * p[static_cast<std::size_t>(i)];
  dlogits[target] -= dloss;
}

}  // namespace kogia::reference
