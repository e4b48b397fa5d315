// What the tape keeps of operands for the backward pass, and how it gives it back.

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"
#include "model/tape.h"
#include "model/tape_rows.h"

namespace kogia {
namespace {

// Matrices made again that are held for the next operation that wants them.
constexpr std::size_t kMadeAgain = 4;

/// Floats from the first value that m shows to behind the last.
Index extent(ConstMat m) { return m.rows == 0 ? 0 : (m.rows - 1) * m.stride + m.cols; }

/// The values of `inner` are all among those of `outer`, row for row at the same stride.
bool holds(ConstMat outer, ConstMat inner) {
  if (inner.rows == 0 || outer.stride != inner.stride) return false;
  const std::less<> before;
  if (before(inner.data, outer.data)) return false;
  const Index offset = inner.data - outer.data;
  const Index row = offset / outer.stride, col = offset % outer.stride;
  return row + inner.rows <= outer.rows && col + inner.cols <= outer.cols;
}

}  // namespace

void Tape::overwritten(ConstMat m) {
  const float *begin = m.data, *end = m.data + extent(m);
  const std::less<> before;
  std::erase_if(known_, [&](const Known& known) {
    const float* const at = known.where.data;
    return before(at, end) && before(begin, at + extent(known.where));
  });
}

Tape::Part Tape::keep(ConstMat m) {
  for (const Known& known : known_) {
    if (keeps_[known.id].fp8 || !holds(known.where, m)) continue;
    const Index offset = m.data - known.where.data;
    const Index row = offset / known.where.stride, col = offset % known.where.stride;
    return {known.id, row * keeps_[known.id].cols + col, m.rows, m.cols};
  }
  const Mat copy = kept_.matrix(m.rows, m.cols);
  copy_rows(device_, m, copy);
  keeps_.push_back({.copy = copy, .make = nullptr, .rows = m.rows, .cols = m.cols});
  if (m.rows > 0) known_.push_back({m, keeps_.size() - 1});
  return {keeps_.size() - 1, 0, m.rows, m.cols};
}

Tape::Part Tape::keep_fp8(ConstMat m) {
  for (const Known& known : known_) {
    const ConstMat& w = known.where;
    if (!keeps_[known.id].fp8 || !holds(w, m) || w.cols != m.cols) continue;
    const Index row = (m.data - w.data) / w.stride;
    return {known.id, row * m.cols, m.rows, m.cols};
  }
  auto* const codes = kept_.allocate<std::uint8_t>(m.rows * m.cols);
  float* const scales = kept_.allocate<float>(m.rows * ceil_div(m.cols, kFp8Tile));
  device_.fp8({.x = m.data,
               .x_stride = m.stride,
               .rows = m.rows,
               .cols = m.cols,
               .blocks = {},
               .codes = codes,
               .scales = scales});
  keeps_.push_back({.copy = {},
                    .make =
                        [this, codes, scales](Mat out) {
                          device_.fp8_decode({.codes = codes,
                                              .scales = scales,
                                              .rows = out.rows,
                                              .cols = out.cols,
                                              .y = out.data,
                                              .y_stride = out.stride});
                        },
                    .rows = m.rows,
                    .cols = m.cols,
                    .fp8 = true});
  if (m.rows > 0) known_.push_back({m, keeps_.size() - 1});
  return {keeps_.size() - 1, 0, m.rows, m.cols};
}

void Tape::remember(ConstMat m, std::function<void(Mat)> make) {
  if (m.rows == 0) return;
  keeps_.push_back({.copy = {}, .make = std::move(make), .rows = m.rows, .cols = m.cols});
  known_.push_back({m, keeps_.size() - 1});
}

ConstMat Tape::restore(const Part& part) {
  const Kept& kept = keeps_[part.id];
  if (kept.make == nullptr) {
    return {kept.copy.data + part.offset, part.rows, part.cols, kept.cols};
  }
  auto made =
      std::find_if(made_.begin(), made_.end(), [&](const Made& m) { return m.id == part.id; });
  if (made != made_.end()) {
    made_.splice(made_.begin(), made_, made);
  } else {
    std::vector<float> values;
    if (made_.size() >= kMadeAgain) values = std::move(made_.back().values), made_.pop_back();
    values.resize(static_cast<std::size_t>(kept.rows * kept.cols));
    // `make` may itself restore: it must not take these values for free.
    kept.make({values.data(), kept.rows, kept.cols});
    made_.push_front({part.id, std::move(values)});
  }
  return {made_.front().values.data() + part.offset, part.rows, part.cols, kept.cols};
}

std::span<const std::int32_t> Tape::keep_ids(std::span<const std::int32_t> ids) {
  std::int32_t* const copy = kept_.allocate<std::int32_t>(static_cast<Index>(ids.size()));
  std::copy(ids.begin(), ids.end(), copy);
  return {copy, ids.size()};
}

}  // namespace kogia
