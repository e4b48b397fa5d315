#pragma once
// Rows of matrices moved about by the device's threads.

#include <algorithm>
#include <cstring>

#include "device/device.h"
#include "tensor/view.h"

namespace kogia {

/// body(r) for each row.
template <class Body>
void for_each_row(Device& device, Index rows, Index cols, const Body& body) {
  const Index step = std::max<Index>(1, 16384 / std::max<Index>(1, cols));
  device.parallel(ceil_div(rows, step), [&](Index i) {
    for (Index r = i * step; r < std::min(rows, (i + 1) * step); ++r) body(r);
  });
}

inline void clear(Device& device, Mat m) {
  for_each_row(device, m.rows, m.cols, [&](Index r) {
    std::memset(m.row(r), 0, static_cast<std::size_t>(m.cols) * sizeof(float));
  });
}

inline void copy_rows(Device& device, ConstMat from, Mat to) {
  for_each_row(device, from.rows, from.cols, [&](Index r) {
    std::memcpy(to.row(r), from.row(r), static_cast<std::size_t>(from.cols) * sizeof(float));
  });
}

}  // namespace kogia
