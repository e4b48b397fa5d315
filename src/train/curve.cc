#include "train/curve.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kogia {

Curve trailing_mean(const Curve& curve, std::size_t n) {
  Curve means{.x = curve.x, .y = {}};
  means.y.reserve(curve.size());
  // Summed anew at each point: a running sum would keep the rounding of every large value before.
  for (std::size_t i = 0; i < curve.size(); ++i) {
    const std::size_t first = i + 1 > n ? i + 1 - n : 0;
    double sum = 0;
    for (std::size_t j = first; j <= i; ++j) sum += curve.y[j];
    means.y.push_back(sum / static_cast<double>(i + 1 - first));
  }
  return means;
}

Curve thinned(const Curve& curve, std::size_t n_spans) {
  if (curve.size() <= 4 * n_spans) return curve;
  Curve few;
  const double begin = curve.x.front(), length = curve.x.back() - begin;
  for (std::size_t i = 0, span = 1; i < curve.size(); ++span) {
    const double end = begin + length * static_cast<double>(span) / static_cast<double>(n_spans);
    std::size_t least = i, most = i, past = i;
    for (; past < curve.size() && (curve.x[past] <= end || span >= n_spans); ++past) {
      if (curve.y[past] < curve.y[least]) least = past;
      if (curve.y[past] > curve.y[most]) most = past;
    }
    if (past == i) continue;  // no step of the span was logged
    std::vector<std::size_t> kept{i, least, most, past - 1};
    std::ranges::sort(kept);
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    for (const std::size_t k : kept) {
      few.x.push_back(curve.x[k]);
      few.y.push_back(curve.y[k]);
    }
    i = past;
  }
  return few;
}

double mean_of_last(const Curve& curve, std::size_t n) {
  if (curve.empty()) return std::numeric_limits<double>::quiet_NaN();
  const std::size_t some = std::min(n, curve.size());
  double sum = 0;
  for (std::size_t i = curve.size() - some; i < curve.size(); ++i) sum += curve.y[i];
  return sum / static_cast<double>(some);
}

double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace kogia
