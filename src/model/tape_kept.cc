// What the tape keeps of operands for the backward pass, and how it gives it back.

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"
#include "model/tape.h"
#include "model/tape_rows.h"
#include "tensor/convert.h"
#include "tensor/quantize.h"

namespace kogia {
namespace {

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

std::optional<Tape::Part> Tape::known(ConstMat m, std::initializer_list<How> ways) const {
  for (const Known& known : known_) {
    const Kept& kept = keeps_[known.id];
    if (std::find(ways.begin(), ways.end(), kept.how) == ways.end() || !holds(known.where, m)) {
      continue;
    }
    const Index offset = m.data - known.where.data;
    const Index row = offset / known.where.stride, col = offset % known.where.stride;
    return Part{known.id, row * kept.cols + col, m.rows, m.cols};
  }
  return {};
}

Tape::Part Tape::add_kept(ConstMat m, How how, ConstMat copy, std::function<void(Mat)> make) {
  keeps_.push_back({.how = how,
                    .copy = copy,
                    .make = std::move(make),
                    .rows = m.rows,
                    .cols = m.cols,
                    .first_use = nodes_.size()});
  if (m.rows > 0) known_.push_back({m, keeps_.size() - 1});
  return {keeps_.size() - 1, 0, m.rows, m.cols};
}

Tape::Part Tape::keep(ConstMat m) {
  return options_.keeping == Keeping::kF32 ? keep_exact(m) : keep_bf16(m);
}

Tape::Part Tape::keep_operand(ConstMat m) {
  return options_.keeping == Keeping::kFp8 ? keep_fp8(m) : keep(m);
}

Tape::Part Tape::keep_exact(ConstMat m) {
  // What is made again has all bits only if it is made of what has.
  const bool all = options_.keeping == Keeping::kF32;
  if (const auto part = all ? known(m, {How::kExact, How::kMade}) : known(m, {How::kExact})) {
    return *part;
  }
  const Mat copy = kept_.matrix(m.rows, m.cols);
  copy_rows(device_, m, copy);
  return add_kept(m, How::kExact, copy, nullptr);
}

Tape::Part Tape::keep_bf16(ConstMat m) {
  if (const auto part = known(m, {How::kBf16, How::kMade, How::kExact})) return *part;
  auto* const halves = kept_.allocate<std::uint16_t>(m.rows * m.cols);
  for_each_row(device_, m.rows, m.cols, [&](Index r) {
    quantize_row(DType::bf16, m.row(r), reinterpret_cast<std::byte*>(halves + r * m.cols), m.cols);
  });
  return add_kept(m, How::kBf16, {}, [this, halves](Mat out) {
    for_each_row(device_, out.rows, out.cols, [&](Index r) {
      dequantize_row(DType::bf16, reinterpret_cast<const std::byte*>(halves + r * out.cols),
                     out.row(r), out.cols);
    });
  });
}

Tape::Part Tape::keep_fp8(ConstMat m) {
  if (const auto part = known(m, {How::kFp8, How::kMade})) return *part;
  auto* const codes = kept_.allocate<std::uint8_t>(m.rows * m.cols);
  float* const scales = kept_.allocate<float>(m.rows * ceil_div(m.cols, kFp8Tile));
  device_.fp8({.x = m.data,
               .x_stride = m.stride,
               .rows = m.rows,
               .cols = m.cols,
               .blocks = {},
               .codes = codes,
               .scales = scales});
  return add_kept(m, How::kFp8, {}, [this, codes, scales](Mat out) {
    device_.fp8_decode({.codes = codes,
                        .scales = scales,
                        .rows = out.rows,
                        .cols = out.cols,
                        .y = out.data,
                        .y_stride = out.stride});
  });
}

void Tape::remember(ConstMat m, std::function<void(Mat)> make) {
  overwritten(m);
  if (m.rows > 0) add_kept(m, How::kMade, {}, std::move(make));
}

void Tape::round_as_kept(Mat m) {
  if (options_.keeping == Keeping::kF32) return;
  for_each_row(device_, m.rows, m.cols, [&](Index r) {
    for (Index c = 0; c < m.cols; ++c) m.row(r)[c] = round_bf16(m.row(r)[c]);
  });
}

ConstMat Tape::restore(const Part& part) {
  const Kept& kept = keeps_[part.id];
  if (kept.how == How::kExact) {
    return {kept.copy.data + part.offset, part.rows, part.cols, kept.cols};
  }
  auto made =
      std::find_if(made_.begin(), made_.end(), [&](const Made& m) { return m.id == part.id; });
  if (made == made_.end()) {
    Values values = values_for(kept.rows * kept.cols);
    kept.make({values.data.get(), kept.rows, kept.cols});  // it may itself restore
    made = made_.insert(made_.end(), {part.id, std::move(values)});
  }
  return {made->values.data.get() + part.offset, part.rows, part.cols, kept.cols};
}

void Tape::restore(const Part& part, Mat out) {
  const Kept& kept = keeps_[part.id];
  KOGIA_CHECK(part.rows == kept.rows && part.cols == kept.cols);
  const bool is_made =
      std::any_of(made_.begin(), made_.end(), [&](const Made& made) { return made.id == part.id; });
  if (kept.how == How::kExact || is_made) {
    copy_rows(device_, restore(part), out);
  } else {
    kept.make(out);
  }
}

// The smallest spare memory that is large enough. Where there is none, one that is too small is
// given up for it, so that all together are no more than were ever needed at once.
Tape::Values Tape::values_for(Index n) {
  const auto smaller = [](const Values& a, const Values& b) { return a.size < b.size; };
  std::sort(spare_.begin(), spare_.end(), smaller);
  auto fits = std::find_if(spare_.begin(), spare_.end(),
                           [&](const Values& values) { return values.size >= n; });
  if (fits == spare_.end()) {
    if (!spare_.empty()) spare_.pop_back();
    return {std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(n)), n};
  }
  Values values = std::move(*fits);
  spare_.erase(fits);
  return values;
}

void Tape::forget_made(std::size_t node) {
  std::erase_if(made_, [&](Made& made) {
    if (keeps_[made.id].first_use < node) return false;
    spare_.push_back(std::move(made.values));
    return true;
  });
}

std::span<const std::int32_t> Tape::keep_ids(std::span<const std::int32_t> ids) {
  std::int32_t* const copy = kept_.allocate<std::int32_t>(static_cast<Index>(ids.size()));
  std::copy(ids.begin(), ids.end(), copy);
  return {copy, ids.size()};
}

}  // namespace kogia
