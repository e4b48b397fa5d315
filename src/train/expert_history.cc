#include "train/expert_history.h"

#include <algorithm>

#include "train/expert_balance.h"

namespace kogia {
namespace {

bool same_shape(const ExpertTokens& a, const ExpertTokens& b) {
  return std::ranges::equal(a, b,
                            [](const auto& x, const auto& y) { return x.size() == y.size(); });
}

void add_to(ExpertTokens& sum, const ExpertTokens& tokens, Index sign) {
  for (std::size_t l = 0; l < sum.size(); ++l) {
    for (std::size_t e = 0; e < sum[l].size(); ++e) sum[l][e] += sign * tokens[l][e];
  }
}

/// Mean over the layers, and the largest of one.
struct Figure {
  double mean = 0, largest = 0, least = 0;
};
Figure over_layers(const ExpertTokens& tokens, double (*figure)(const std::vector<Index>&)) {
  Figure f;
  for (std::size_t l = 0; l < tokens.size(); ++l) {
    const double x = figure(tokens[l]);
    f.mean += x / static_cast<double>(tokens.size());
    f.largest = l == 0 ? x : std::max(f.largest, x);
    f.least = l == 0 ? x : std::min(f.least, x);
  }
  return f;
}

Index dead_experts(const ExpertTokens& tokens) {
  Index n = 0;
  for (const auto& layer : tokens) n += std::ranges::count(layer, 0);
  return n;
}

}  // namespace

ExpertHistory::ExpertHistory(Index n_steps, Index n_spans)
    : span_steps_(std::max<Index>(1, ceil_div(n_steps, n_spans))) {}

bool ExpertHistory::add(Index step, const ExpertTokens& tokens) {
  if (tokens.empty() || tokens[0].empty()) return false;
  if (!window_.empty() && !same_shape(window_, tokens)) return false;
  add_to_window(tokens);
  add_to_spans(step, tokens);
  add_points(step, tokens);
  return true;
}

void ExpertHistory::add_to_window(const ExpertTokens& tokens) {
  if (window_.empty()) {
    window_ = tokens;
  } else {
    add_to(window_, tokens, 1);
  }
  steps_.push_back(tokens);
  if (static_cast<Index>(steps_.size()) <= kWindow) return;
  add_to(window_, steps_.front(), -1);
  steps_.pop_front();
}

void ExpertHistory::add_to_spans(Index step, const ExpertTokens& tokens) {
  if (spans_.empty() || in_span_ == span_steps_) {
    spans_.push_back({.first_step = step, .last_step = step, .tokens = tokens});
    in_span_ = 1;
    return;
  }
  add_to(spans_.back().tokens, tokens, 1);
  spans_.back().last_step = step;
  ++in_span_;
}

void ExpertHistory::add_points(Index step, const ExpertTokens& tokens) {
  const Figure vio = over_layers(tokens, max_vio);
  curves_.max_vio.add(step, vio.mean);
  curves_.worst_max_vio.add(step, vio.largest);
  if (window_steps() < kWindow) return;
  const Figure window_vio = over_layers(window_, max_vio),
               entropy = over_layers(window_, load_entropy);
  curves_.window_max_vio.add(step, window_vio.mean);
  curves_.worst_window_max_vio.add(step, window_vio.largest);
  curves_.entropy.add(step, entropy.mean);
  curves_.least_entropy.add(step, entropy.least);
  curves_.dead.add(step, static_cast<double>(dead_experts(window_)));
}

}  // namespace kogia
