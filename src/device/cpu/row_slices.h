#pragma once
// Rows shared among threads.

#include <algorithm>
#include <functional>

#include "base/thread_pool.h"

namespace kogia {

// Work below this many floats is done by the calling thread: waking another takes as long.
inline constexpr Index kSmallFloats = 8192;

/// body(begin, end) over rows that cost `floats` each, in slices worth a thread's while.
template <class Body>
void for_rows(ThreadPool& pool, Index rows, Index floats, const Body& body) {
  if (rows <= 0) return;
  if (rows == 1 || rows * floats <= kSmallFloats) return body(Index{0}, rows);
  const Index by_size = std::max<Index>(1, kSmallFloats / std::max<Index>(1, floats));
  const Index grain = std::max(by_size, ceil_div(rows, Index{8} * pool.n_threads()));
  const auto slice = [&](Index i, int) { body(i * grain, std::min(rows, (i + 1) * grain)); };
  pool.run(ceil_div(rows, grain),
           std::ref(slice));  // by reference: std::function allocates nothing
}

}  // namespace kogia
