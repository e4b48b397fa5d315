#pragma once
// One quantity over the steps of a run.

#include <cstddef>
#include <vector>

#include "base/index.h"

namespace kogia {

/// Points (x, y), x ascending. Steps in which the quantity was not measured have none.
struct Curve {
  std::vector<double> x, y;

  void add(Index step, double value) {
    x.push_back(static_cast<double>(step));
    y.push_back(value);
  }
  bool empty() const { return x.empty(); }
  std::size_t size() const { return x.size(); }
};

/// At each point the mean of it and of the points before it, `n` in all (fewer at the beginning).
Curve trailing_mean(const Curve& curve, std::size_t n);

/// The same shape with few points: the steps are cut into `n_spans` spans of equal length, and of
/// each its first, least, largest and last point stay.
Curve thinned(const Curve& curve, std::size_t n_spans);

/// Of the last n points; nothing of an empty curve: NaN.
double mean_of_last(const Curve& curve, std::size_t n);
double median(std::vector<double> values);

}  // namespace kogia
