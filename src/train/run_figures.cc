#include "train/run_figures.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "base/progress.h"

namespace kogia {
namespace {

constexpr std::size_t kMean = 50;  // steps of a mean of losses
constexpr Index kWarmUp = 100;     // steps before the first window of loss_gaps()

using Kind = RunFigure::Kind;

std::optional<double> last_of(const Curve& curve) {
  return curve.empty() ? std::nullopt : std::optional(curve.y.back());
}
std::optional<double> least_of(const Curve& curve) {
  return curve.empty() ? std::nullopt : std::optional(std::ranges::min(curve.y));
}
std::optional<double> largest_of(const Curve& curve) {
  return curve.empty() ? std::nullopt : std::optional(std::ranges::max(curve.y));
}
std::optional<double> recent_mean(const Curve& curve, std::size_t n = kMean) {
  return curve.empty() ? std::nullopt : std::optional(mean_of_last(curve, n));
}
std::optional<double> median_of_curve(const Curve& curve) {
  return curve.empty() ? std::nullopt : std::optional(median(curve.y));
}

class FigureList {
 public:
  void add(const char* key, std::string label, Kind kind, std::optional<double> value) {
    figures.push_back({.key = key, .label = std::move(label), .kind = kind, .value = value});
  }
  /// One for each depth: "mtp_loss_1".
  void add_depths(const std::string& key, const std::string& label, Kind kind,
                  const std::vector<Curve>& depths, std::optional<double> (*of)(const Curve&)) {
    for (std::size_t k = 0; k < depths.size(); ++k) {
      figures.push_back({.key = fmt::format("{}_{}", key, k + 1),
                         .label = fmt::format("{}, depth {}", label, k + 1),
                         .kind = kind,
                         .value = of(depths[k])});
    }
  }
  std::vector<RunFigure> figures;
};

void add_experts(const RunMetrics& m, FigureList& list) {
  if (!m.validation_max_vio.empty()) {
    list.add("validation_max_vio", "MaxVio on held-out text", Kind::kRatio,
             last_of(m.validation_max_vio));
  }
  if (!m.experts) return;
  const ExpertCurves& curves = m.experts->curves();
  list.add("max_vio", "MaxVio of a step, mean of the last 100", Kind::kRatio,
           recent_mean(curves.max_vio, ExpertHistory::kWindow));
  list.add("window_max_vio", "MaxVio over the last 100 steps", Kind::kRatio,
           last_of(curves.window_max_vio));
  list.add("load_entropy", "entropy of the load (1: even)", Kind::kRatio, last_of(curves.entropy));
  list.add("dead_experts", "experts without a token in 100 steps", Kind::kCount,
           last_of(curves.dead));
}

/// The mean of steps [first, first + n) from point i on; nullopt where one of them is missing.
std::optional<double> window_mean(const Curve& curve, Index first, Index n) {
  const auto begin = std::ranges::lower_bound(curve.x, static_cast<double>(first));
  const auto i = static_cast<std::size_t>(begin - curve.x.begin());
  const auto count = static_cast<std::size_t>(n);
  if (i + count > curve.size()) return {};
  if (curve.x[i] != static_cast<double>(first)) return {};
  if (curve.x[i + count - 1] != static_cast<double>(first + n - 1)) return {};
  double sum = 0;
  for (std::size_t j = i; j < i + count; ++j) sum += curve.y[j];
  return sum / static_cast<double>(n);
}

std::string gap_text(const LossGap& gap) {
  return fmt::format("{:+.3f} % (steps {} to {})", 100 * gap.relative, gap.first_step,
                     gap.last_step);
}

}  // namespace

std::string RunFigure::text() const {
  if (!value) return "-";
  switch (kind) {
    case Kind::kCount:
      return fmt::format("{:.0f}", *value);
    case Kind::kNats:
    case Kind::kRatio:
      return fmt::format("{:.4f}", *value);
    case Kind::kRate:
      return fmt::format("{:.1f}", *value);
    case Kind::kBytes:
      return format_bytes(static_cast<Index>(*value));
    case Kind::kSeconds:
      return format_duration(*value);
  }
  return "-";
}

std::vector<RunFigure> run_figures(const RunMetrics& m) {
  FigureList list;
  list.add("step", "steps", Kind::kCount, static_cast<double>(m.last_step));
  list.add("tokens", "tokens", Kind::kCount, m.n_tokens);
  list.add("seconds", "time of the steps", Kind::kSeconds, m.seconds);
  list.add("loss", "loss of the last step", Kind::kNats, last_of(m.loss));
  list.add("mean_loss", "loss, mean of the last 50 steps", Kind::kNats, recent_mean(m.loss));
  list.add("validation_loss", "held-out loss", Kind::kNats, last_of(m.validation_loss));
  list.add("best_validation_loss", "held-out loss, best", Kind::kNats, least_of(m.validation_loss));
  list.add("bits_per_byte", "bits per byte, mean of the last 50 steps", Kind::kNats,
           recent_mean(m.bits_per_byte));
  list.add("validation_bits_per_byte", "held-out bits per byte", Kind::kNats,
           last_of(m.validation_bits_per_byte));
  list.add_depths("mtp_loss", "MTP loss, mean of the last 50", Kind::kNats, m.mtp_loss,
                  [](const Curve& c) { return recent_mean(c); });
  list.add_depths("validation_mtp_loss", "held-out MTP loss", Kind::kNats, m.validation_mtp_loss,
                  last_of);
  list.add_depths("mtp_acceptance", "MTP acceptance", Kind::kRatio, m.mtp_acceptance, last_of);
  add_experts(m, list);
  list.add("grad_norm", "norm of the gradient, mean of the last 50", Kind::kRatio,
           recent_mean(m.grad_norm));
  list.add("tokens_per_s", "tokens/s, median", Kind::kRate, median_of_curve(m.tokens_per_s));
  list.add("gflop_s", "GFLOP/s, median", Kind::kRate, median_of_curve(m.gflop_s));
  list.add("kept_bytes", "activations kept for the backward pass", Kind::kBytes,
           largest_of(m.kept_bytes));
  list.add("peak_bytes", "peak memory of the process", Kind::kBytes, largest_of(m.peak_bytes));
  return std::move(list.figures);
}

std::vector<LossGap> loss_gaps(const RunMetrics& first, const RunMetrics& second) {
  std::vector<LossGap> gaps;
  constexpr Index n = kMean;
  const Index last = std::min(first.last_step, second.last_step);
  for (Index step = kWarmUp + 1; step + n - 1 <= last; step += n) {
    const auto a = window_mean(first.loss, step, n), b = window_mean(second.loss, step, n);
    if (!a || !b || *a == 0) continue;
    gaps.push_back({.first_step = step, .last_step = step + n - 1, .relative = *b / *a - 1});
  }
  return gaps;
}

std::optional<LossGap> worst_gap(const std::vector<LossGap>& gaps) {
  const auto worst =
      std::ranges::max_element(gaps, {}, [](const LossGap& gap) { return std::abs(gap.relative); });
  return worst == gaps.end() ? std::nullopt : std::optional(*worst);
}

std::vector<FigureRow> figure_rows(const std::vector<const RunMetrics*>& runs) {
  std::vector<FigureRow> rows;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (const RunFigure& figure : run_figures(*runs[r])) {
      auto row = std::ranges::find(rows, figure.key, &FigureRow::key);
      if (row == rows.end()) {
        rows.push_back({figure.key, figure.label, std::vector<std::string>(runs.size(), "-")});
        row = rows.end() - 1;
      }
      row->values[r] = figure.text();
    }
  }
  return rows;
}

std::string gaps_text(const RunMetrics& first, const RunMetrics& second) {
  const auto gaps = loss_gaps(first, second);
  if (gaps.empty()) return "no window of 50 steps after step 100 that both have";
  return fmt::format("worst {}, last {}", gap_text(*worst_gap(gaps)), gap_text(gaps.back()));
}

std::string figures_table(const std::vector<const RunMetrics*>& runs) {
  const std::vector<FigureRow> rows = figure_rows(runs);
  std::size_t label_width = 0, width = 12;
  for (const FigureRow& row : rows) label_width = std::max(label_width, row.label.size());
  for (const RunMetrics* run : runs) width = std::max(width, run->name().size());
  std::string text(label_width, ' ');
  for (const RunMetrics* run : runs) text += fmt::format("  {:>{}}", run->name(), width);
  text += '\n';
  for (const FigureRow& row : rows) {
    text += fmt::format("{:<{}}", row.label, label_width);
    for (const std::string& value : row.values) text += fmt::format("  {:>{}}", value, width);
    text += '\n';
  }
  if (runs.size() < 2) return text;
  return text + fmt::format("\nloss of {} above {}, means of 50 steps after step 100:\n{}\n",
                            runs[1]->name(), runs[0]->name(), gaps_text(*runs[0], *runs[1]));
}

}  // namespace kogia
