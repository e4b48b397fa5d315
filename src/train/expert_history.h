#pragma once
// How the tokens of a run fell on its experts, step by step and over windows of steps.

#include <deque>
#include <vector>

#include "base/index.h"
#include "train/curve.h"

namespace kogia {

/// Tokens of each expert of each layer with experts.
using ExpertTokens = std::vector<std::vector<Index>>;

/// Each a mean over the layers with experts and the layer where it is worst.
struct ExpertCurves {
  Curve max_vio, worst_max_vio;                // of each step alone
  Curve window_max_vio, worst_window_max_vio;  // of the window that ends with the step
  Curve entropy, least_entropy;                // load_entropy() of that window
  Curve dead;  // experts of all layers without a token in a whole window
};

/// Memory  of a window of steps and of `n_spans` spans, however long the run is
class ExpertHistory {
 public:
  static constexpr Index kWindow = 100;  // steps; as arXiv:2408.15664 counts MaxVio_global

  /// The run's steps (about so many) are cut into `n_spans` spans at most.
  ExpertHistory(Index n_steps, Index n_spans);

  /// The next step. Returns false, and nothing changes, where it has not the shape of the first.
  bool add(Index step, const ExpertTokens& tokens);

  struct Span {
    Index first_step = 0, last_step = 0;
    ExpertTokens tokens;
  };

  Index n_layers() const { return static_cast<Index>(window_.size()); }
  Index n_experts() const { return window_.empty() ? 0 : static_cast<Index>(window_[0].size()); }
  /// Of the last kWindow steps.
  const ExpertTokens& window() const { return window_; }
  Index window_steps() const { return static_cast<Index>(steps_.size()); }
  const std::vector<Span>& spans() const { return spans_; }

  const ExpertCurves& curves() const { return curves_; }

 private:
  void add_to_window(const ExpertTokens& tokens);
  void add_to_spans(Index step, const ExpertTokens& tokens);
  void add_points(Index step, const ExpertTokens& tokens);

  Index span_steps_;
  std::deque<ExpertTokens> steps_;  // of the window
  ExpertTokens window_;             // their sum
  std::vector<Span> spans_;
  Index in_span_ = 0;  // steps of the last span
  ExpertCurves curves_;
};

}  // namespace kogia
