#include "train/schedule.h"

#include <algorithm>

namespace kogia {
namespace {

/// sin(π x) for 0 <= x <= 1/2: the series, to the last digits of a double. Libraries' own sines
/// differ in the last bit from version to version, and with it every weight.
double sin_pi(double x) {
  constexpr double kPi = 3.14159265358979323846;
  const double y = kPi * x, y2 = y * y;
  double term = y, sum = 0;
  for (int n = 1; n <= 25; n += 2) {
    sum += term;
    term *= -y2 / static_cast<double>((n + 1) * (n + 2));
  }
  return sum;
}

/// (1 + cos(π x)) / 2 for 0 <= x <= 1.
double half_cosine(double x) {
  const double s = sin_pi((x <= 0.5 ? x : 1 - x) / 2), s2 = s * s;  // cos(2y) = 1 - 2 sin²(y)
  return x <= 0.5 ? 1 - s2 : s2;
}

}  // namespace

double learning_rate(const RunConfig& config, Index step) {
  const RunConfig::Schedule& s = config.schedule;
  const double lr = config.optimizer.lr;
  if (step < s.warmup_steps) {
    return lr * (static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps));
  }
  if (s.kind == ScheduleKind::kConstant || step < s.decay_start) return lr;
  if (s.kind == ScheduleKind::kV3 && step >= s.final_start) return s.final_lr;
  const Index done = step - s.decay_start;
  if (done >= s.decay_steps) return s.min_lr;
  const double x = static_cast<double>(done) / static_cast<double>(s.decay_steps);
  const bool cosine = s.kind == ScheduleKind::kCosine || s.kind == ScheduleKind::kV3;
  return s.min_lr + (lr - s.min_lr) * (cosine ? half_cosine(x) : 1 - x);
}

Index batch_size(const RunConfig& config, Index step) {
  Index rows = config.trainer.batch_size;
  for (const auto& [from, size] : config.schedule.batch_ramp) {
    if (step >= from) rows = size;
  }
  return rows;
}

Index rows_before(const RunConfig& config, Index step) {
  Index rows = 0, begin = 0, size = config.trainer.batch_size;
  for (const auto& [from, next] : config.schedule.batch_ramp) {
    if (step <= from) break;
    rows += (from - begin) * size;
    begin = from;
    size = next;
  }
  return rows + (step - begin) * size;
}

double mtp_loss_weight(const RunConfig& config, Index step) {
  double value = 0;
  for (const auto& [from, weight] : config.mtp.loss_weight) {
    if (step >= from) value = weight;
  }
  return value;
}

double bias_update_rate(const RunConfig& config, Index step) {
  const RunConfig::Experts& e = config.experts;
  if (e.balance != Balance::kLossFree) return 0;
  const bool over = e.bias_update_until != RunConfig::kUnset && step >= e.bias_update_until;
  return over ? 0 : e.bias_update_rate;
}

}  // namespace kogia
