#include "model/watch.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

namespace kogia {

bool all_finite(const float* x, Index n) {
  return std::all_of(x, x + n, [](float v) { return std::isfinite(v); });
}

std::string Watch::name_of(const float* grad) const {
  const std::less_equal<> not_after;
  for (const auto& [name, g] : weights_.gradients()) {
    const float* const begin = g.values.data();
    if (not_after(begin, grad) && !not_after(begin + g.values.size(), grad)) return name;
  }
  return {};
}

void Watch::made(ConstMat y, std::string_view op, const float* grad) {
  if (found()) return;
  if (grad != nullptr) last_ = name_of(grad);
  for (Index r = 0; r < y.rows; ++r) {
    if (all_finite(y.row(r), y.cols)) continue;
    where_ = fmt::format("the {} {} {}", op, grad != nullptr ? "of" : "after", last_);
    return;
  }
}

void Watch::made_gradient(std::string_view op, const float* grad) {
  if (!found()) where_ = fmt::format("the way back through the {} at {}", op, name_of(grad));
}

void Watch::look_at_gradients() {
  for (const auto& [name, g] : weights_.gradients()) {
    if (found()) return;
    if (!all_finite(g.values.data(), static_cast<Index>(g.values.size()))) {
      where_ = fmt::format("the gradient of {}", name);
    }
  }
}

}  // namespace kogia
