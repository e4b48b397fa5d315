#pragma once
// What the tests of devices share.

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "device/cpu_device.h"
#include "device/device.h"

namespace kogia::testing {

/// n numbers, normal with deviation `scale`; the same for the same seed on every machine.
inline std::vector<float> random_floats(Index n, std::uint64_t seed, float scale = 1) {
  const Philox random(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * random.normal(i);
  return values;
}

/// Calls body(device) for a device of every instruction set of this machine.
inline void for_each_cpu_target(const std::function<void(Device&)>& body, int n_threads = 2) {
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(::testing::Message() << "isa " << name(isa) << ", " << n_threads << " threads");
    for (const bool slow_bf16 : {false, true}) {
      if (slow_bf16 && isa != Isa::avx512) continue;  // the others have no bf16 dot products
      const std::unique_ptr<Device> device =
          make_cpu_device({.n_threads = n_threads, .isa = isa, .slow_bf16 = slow_bf16});
      body(*device);
    }
  }
}

template <class T>
bool same_bits(std::span<const T> a, std::span<const T> b) {
  if (a.empty() || b.empty()) return a.empty() && b.empty();
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return same_bits(std::span<const float>(a), std::span<const float>(b));
}

/// Row r of a matrix with n columns.
inline std::vector<float> row(const std::vector<float>& m, Index r, Index n) {
  return {m.begin() + r * n, m.begin() + (r + 1) * n};
}

struct Tolerance {
  double abs = 0, rel = 0;
};

/// |a − b| <= abs + rel |b| everywhere; reports the worst place once.
inline void expect_near(std::span<const float> a, std::span<const float> b, Tolerance tolerance) {
  ASSERT_EQ(a.size(), b.size());
  double worst = 0;
  std::size_t at = a.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
    if (std::isnan(x) && std::isnan(y)) continue;
    if (x == y) continue;
    const double excess = std::fabs(x - y) - (tolerance.abs + tolerance.rel * std::fabs(y));
    if (at == a.size() ? !(excess <= 0) : excess > worst) at = i, worst = excess;
  }
  if (at < a.size()) {
    ADD_FAILURE() << "at " << at << ": " << a[at] << ", expected " << b[at] << " within "
                  << tolerance.abs << " + " << tolerance.rel << " of it";
  }
}

}  // namespace kogia::testing
