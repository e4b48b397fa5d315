// Operations that work on rows: every instruction set against the reference, and the bits of a row
// whatever is beside it.

#include "device/device_testing.h"
#include "device/reference/rms_norm.h"
#include "device/reference/silu_mul.h"

namespace kogia::testing {
namespace {

// Shorter than any vector register, one off its multiples, and large.
constexpr Index kSizes[] = {1, 7, 63, 64, 65, 1000};

std::vector<float> run_rms_norm(Device& device, const std::vector<float>& x,
                                const std::vector<float>& w, float eps = 1e-6F) {
  const Index n = static_cast<Index>(w.size());
  std::vector<float> y(x.size());
  device.rms_norm({.x = x.data(),
                   .x_stride = n,
                   .weight = w.data(),
                   .y = y.data(),
                   .y_stride = n,
                   .rows = static_cast<Index>(x.size()) / n,
                   .n = n,
                   .eps = eps});
  return y;
}

TEST(RmsNorm, EveryInstructionSetMatchesTheReference) {
  for_each_cpu_target([](Device& device) {
    for (const Index n : kSizes) {
      SCOPED_TRACE(::testing::Message() << "n=" << n);
      const auto x = random_floats(33 * n, /*seed=*/1), w = random_floats(n, /*seed=*/2);
      const auto y = run_rms_norm(device, x, w);
      std::vector<float> expected(x.size());
      reference::rms_norm(RmsNormArgs{.x = x.data(),
                                      .x_stride = n,
                                      .weight = w.data(),
                                      .y = expected.data(),
                                      .y_stride = n,
                                      .rows = 33,
                                      .n = n});
      expect_near(y, expected, {.rel = 2e-6});
      for (const Index r : {Index{0}, Index{7}, Index{32}}) {
        EXPECT_TRUE(same_bits(row(y, r, n), run_rms_norm(device, row(x, r, n), w)))
            << "the row's bits depend on the batch";
      }
    }
  });
}

}  // namespace
}  // namespace kogia::testing
