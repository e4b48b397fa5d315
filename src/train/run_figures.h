#pragma once
// A run in figures, and two runs beside each other.

#include <optional>
#include <string>
#include <vector>

#include "train/run_metrics.h"

namespace kogia {

struct RunFigure {
  enum class Kind { kCount, kNats, kRatio, kRate, kBytes, kSeconds };
  std::string key;    // "validation_loss": in JSON
  std::string label;  // "held-out loss"
  Kind kind = Kind::kNats;
  std::optional<double> value = {};  // unset: the log does not say

  /// "4.0978", "1.2 GiB"; "-" where unset.
  std::string text() const;
};

/// The same list for every run, but for the depths of multi-token prediction.
std::vector<RunFigure> run_figures(const RunMetrics& metrics);

/// How two runs differ in the loss of what they learn from.
struct LossGap {
  Index first_step = 0, last_step = 0;
  double relative = 0;  // mean of the second ÷ mean of the first − 1
};

/// Of windows of 50 steps, from step 101 on, in which both have every step.
std::vector<LossGap> loss_gaps(const RunMetrics& first, const RunMetrics& second);
/// The one of the largest size; nullopt of none.
std::optional<LossGap> worst_gap(const std::vector<LossGap>& gaps);

/// "worst +0.170 % (steps 151 to 200), last +0.060 % (steps 751 to 800)"
std::string gaps_text(const RunMetrics& first, const RunMetrics& second);

/// A figure of each run, as text; "-" where a run has none.
struct FigureRow {
  std::string key, label;
  std::vector<std::string> values;
};
std::vector<FigureRow> figure_rows(const std::vector<const RunMetrics*>& runs);

/// All of it as plain text: a column a run (one or two), and the gaps below.
std::string figures_table(const std::vector<const RunMetrics*>& runs);

}  // namespace kogia
