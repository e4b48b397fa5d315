#pragma once
// out = Σ_t softmax_t(scale · q·k_t) v_t over the keys of one sequence up to the row's own
// position.

#include <algorithm>
#include <vector>

#include "device/device.h"
#include "device/reference/cache.h"
#include "device/reference/elementary.h"

namespace kogia::reference {

/// One row, one head: two passes, in f64.
inline void attention_row(const AttentionArgs& a, const SequenceRows& seq, Index row, Index head) {
  const CacheSpec& spec = a.cache.spec;
  const PageLayout layout(spec);
  const Index kv_head = head / (a.n_heads / spec.n_kv_heads);
  const Index v_dim = layout.latent ? spec.latent_v_dim : spec.v_dim;
  const Index n_keys = seq.first_pos + row + 1;
  const float* q = a.q + (seq.row_begin + row) * a.q_stride + head * spec.k_dim;
  const auto token_head = [&](Index t) {
    return page_head(a.cache, layout, seq.pages[t / kPageTokens], kv_head);
  };

  std::vector<double> p(static_cast<std::size_t>(n_keys));
  for (Index t = 0; t < n_keys; ++t) {
    double dot = 0;
    for (Index i = 0; i < spec.k_dim; ++i) {
      const float k = load_cached(token_head(t), layout.key(t % kPageTokens, i), spec.dtype);
      dot += static_cast<double>(q[i]) * static_cast<double>(k);
    }
    p[static_cast<std::size_t>(t)] = dot * static_cast<double>(a.scale);
  }
  const double top = *std::max_element(p.begin(), p.end());
  double sum = 0;
  for (double& x : p) sum += x = exp(x - top);

  std::vector<double> acc(static_cast<std::size_t>(v_dim));
  for (Index t = 0; t < n_keys; ++t) {
    const double weight = p[static_cast<std::size_t>(t)] / sum;
    const Index begin = layout.value(t % kPageTokens);
    for (Index i = 0; i < v_dim; ++i) {
      const float v = load_cached(token_head(t), begin + i, spec.dtype);
      acc[static_cast<std::size_t>(i)] += weight * static_cast<double>(v);
    }
  }
  float* out = a.out + (seq.row_begin + row) * a.out_stride + head * v_dim;
  for (std::size_t i = 0; i < acc.size(); ++i) out[i] = static_cast<float>(acc[i]);
}

}  // namespace kogia::reference
