// The probe does what it claims to time; how fast is nobody's claim here.

#include "device/cpu/limits.h"

#include <cmath>
#include <cstring>

#include "device/device_testing.h"

namespace kogia::testing {
namespace {

class Limits : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    const auto isas = available_isas();
    if (std::find(isas.begin(), isas.end(), GetParam()) == isas.end()) {
      GTEST_SKIP() << "this processor lacks " << name(GetParam());
    }
  }
  const LimitLoops& loops() const { return limit_loops(GetParam()); }
};

TEST_P(Limits, EveryProductThatIsCountedIsMade) {
  for (const PeakLoop& loop : {loops().f32, loops().bf16, loops().int16, loops().int8}) {
    if (loop.run == nullptr) continue;
    EXPECT_GT(loop.products, 0);
    for (const Index rounds : {0, 1, 7, 1000}) {
      EXPECT_EQ(loop.run(rounds), static_cast<double>(rounds * loop.products));
    }
  }
  EXPECT_NE(loops().f32.run, nullptr);
}

TEST_P(Limits, EveryPatternReadsEveryByte) {
  constexpr Index kBytes = 12 * kReadStreams * kReadStep;
  std::vector<std::uint64_t> words(kBytes / 8);
  const Philox random(5);
  std::uint64_t expected = 0;
  for (std::size_t i = 0; i < words.size(); ++i) expected ^= words[i] = random.bits64(i);
  const auto* bytes = reinterpret_cast<const std::byte*>(words.data());
  for (const ReadPattern pattern : kReadPatterns) {
    EXPECT_EQ(loops().read(bytes, kBytes, pattern), expected) << name(pattern);
    for (const std::size_t i : {std::size_t{0}, words.size() / 2, words.size() - 1}) {
      words[i] ^= 1;
      EXPECT_EQ(loops().read(bytes, kBytes, pattern), expected ^ 1) << name(pattern) << " " << i;
      words[i] ^= 1;
    }
  }
}

TEST_P(Limits, AreFiniteAndOfWhatThereIs) {
  ThreadPool pool(2);
  const MachineLimits limits =
      measure_limits(loops(), pool, {.memory_bytes = 8 << 20, .pass_s = 0.001});
  const auto expect_rate = [](std::optional<double> rate, bool there) {
    EXPECT_EQ(rate.has_value(), there);
    EXPECT_TRUE(!rate || (std::isfinite(*rate) && *rate > 0)) << *rate;
  };
  expect_rate(limits.read_gb_s, true);
  expect_rate(limits.f32_gflop_s, true);
  expect_rate(limits.bf16_gflop_s, GetParam() == Isa::avx512);
  expect_rate(limits.int16_gop_s, GetParam() == Isa::avx512);
  expect_rate(limits.int8_gop_s, GetParam() != Isa::scalar);
  EXPECT_FALSE(limits.read_pattern.empty());
  const MachineLimits of_products =
      measure_limits(loops(), pool, {.memory_bytes = 0, .pass_s = 0.001});
  expect_rate(of_products.f32_gflop_s, true);
  EXPECT_FALSE(of_products.read_gb_s);
}

INSTANTIATE_TEST_SUITE_P(All, Limits, ::testing::Values(Isa::scalar, Isa::avx2, Isa::avx512),
                         [](const auto& param) { return std::string(name(param.param)); });

TEST(MachineLimits, PeakFallsBackToThatOfF32) {
  const MachineLimits all{.f32_gflop_s = 1, .bf16_gflop_s = 2, .int16_gop_s = 3, .int8_gop_s = 4};
  EXPECT_EQ(all.peak_gflop_s(Compute::f32), 1);
  EXPECT_EQ(all.peak_gflop_s(Compute::bf16), 2);
  EXPECT_EQ(all.peak_gflop_s(Compute::fp8), 2);
  EXPECT_EQ(all.peak_gflop_s(Compute::int16), 3);
  EXPECT_EQ(all.peak_gflop_s(Compute::int8), 4);
  const MachineLimits plain{.f32_gflop_s = 1};
  EXPECT_EQ(plain.peak_gflop_s(Compute::bf16), 1);
  EXPECT_EQ(plain.peak_gflop_s(Compute::int8), 1);
  EXPECT_EQ(MachineLimits{}.peak_gflop_s(Compute::f32), std::nullopt);
}

}  // namespace
}  // namespace kogia::testing
