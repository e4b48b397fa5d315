#pragma once
// The choice of experts (DeepSeek-V3, arXiv:2412.19437 §2.1.2; V2, arXiv:2405.04434 §2.2).
//   s = score(logits);  choice = s + bias;  keep the topk_group best groups;  experts = top-k of
//   choice weights = s[experts], normalised (÷ (Σ + 1e-20)) or not, times scale
// The bias picks, it never weighs. Equal scores: the lower id first.
// Every number of a row fits a few cache lines and the work is a percent of a layer's, so this
// plain code serves every instruction set.

#include <algorithm>
#include <limits>
#include <vector>

#include "device/device.h"
#include "device/reference/elementary.h"

namespace kogia::reference {

/// Scores of the logits of one row.
template <class S, class T>
std::vector<S> router_scores(const T* logits, Index n_experts, RouterScore kind) {
  std::vector<S> s(logits, logits + n_experts);
  if (kind == RouterScore::kSigmoid) {
    for (S& x : s) x = sigmoid(x);
  } else {
    softmax(s);
  }
  return s;
}

inline float group_score(const float* choice, Index n, GroupScore kind) {
  float best = -std::numeric_limits<float>::infinity(), second = best;
  for (Index i = 0; i < n; ++i) {
    if (choice[i] > best) {
      second = best;
      best = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return kind == GroupScore::kMax || n < 2 ? best : best + second;
}

/// The k largest by value, the lower index first among equals; taken ones never come twice.
inline void top_k(std::vector<float>& values, Index k, std::int32_t* chosen) {
  std::vector<bool> taken(values.size());
  for (Index j = 0; j < k; ++j) {
    std::size_t best = values.size();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!taken[i] && (best == values.size() || values[i] > values[best])) best = i;
    }
    taken[best] = true;
    chosen[j] = static_cast<std::int32_t>(best);
  }
}

inline void mask_groups(const RouteArgs& a, std::vector<float>& choice) {
  const Index size = a.n_experts / a.n_group;
  std::vector<float> scores;
  for (Index g = 0; g < a.n_group; ++g) {
    scores.push_back(group_score(choice.data() + g * size, size, a.group_score));
  }
  std::vector<std::int32_t> kept(static_cast<std::size_t>(a.topk_group));
  top_k(scores, a.topk_group, kept.data());
  for (Index g = 0; g < a.n_group; ++g) {
    if (std::find(kept.begin(), kept.end(), static_cast<std::int32_t>(g)) != kept.end()) continue;
    std::fill_n(choice.begin() + g * size, size, -std::numeric_limits<float>::infinity());
  }
}

inline void route_row(const RouteArgs& a, Index row) {
  const auto s = router_scores<double>(a.logits + row * a.n_experts, a.n_experts, a.score);
  std::vector<float> choice(s.size());
  for (std::size_t e = 0; e < s.size(); ++e) {
    choice[e] = static_cast<float>(s[e]) + (a.bias != nullptr ? a.bias[e] : 0.0F);
  }
  if (a.n_group > 1) mask_groups(a, choice);

  std::int32_t* experts = a.experts + row * a.top_k;
  float* weights = a.weights + row * a.top_k;
  top_k(choice, a.top_k, experts);
  double sum = 0;
  for (Index k = 0; k < a.top_k; ++k) sum += s[static_cast<std::size_t>(experts[k])];
  const double factor = static_cast<double>(a.scale) / (a.normalise ? sum + 1e-20 : 1.0);
  for (Index k = 0; k < a.top_k; ++k) {
    weights[k] = static_cast<float>(s[static_cast<std::size_t>(experts[k])] * factor);
  }
}

}  // namespace kogia::reference
