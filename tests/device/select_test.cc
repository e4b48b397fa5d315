// Which kernels for which processor.

#include <algorithm>

#include "base/error.h"
#include "device/cpu/cpu_features.h"
#include "device/device_testing.h"

namespace kogia::testing {
namespace {

constexpr Isa kAllIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

CpuFeatures haswell() {
  return {.avx2 = true,
          .fma = true,
          .f16c = true,
          .bmi = true,
          .bmi2 = true,
          .lzcnt = true,
          .popcnt = true};
}
CpuFeatures zen4() {
  CpuFeatures c = haswell();
  c.avx512f = c.avx512bw = c.avx512vl = c.avx512dq = c.avx512cd = c.avx512ifma = c.avx512vbmi =
      true;
  c.avx512vbmi2 = c.avx512vnni = c.avx512bitalg = c.avx512vpopcntdq = c.gfni = c.vaes = true;
  c.vpclmulqdq = c.avx512bf16 = true;
  return c;
}

TEST(SelectIsa, EachProcessorGetsWhatItCanRun) {
  EXPECT_EQ(isas_for({}), (std::vector{Isa::scalar}));
  EXPECT_EQ(isas_for(haswell()), (std::vector{Isa::scalar, Isa::avx2}));
  EXPECT_EQ(isas_for(zen4()), (std::vector{Isa::scalar, Isa::avx2, Isa::avx512}));
  CpuFeatures sandy_bridge = haswell();
  sandy_bridge.avx2 = sandy_bridge.fma = false;
  EXPECT_EQ(isas_for(sandy_bridge), (std::vector{Isa::scalar}));
  CpuFeatures ice_lake = zen4();
  ice_lake.avx512bf16 = false;
  EXPECT_EQ(isas_for(ice_lake), (std::vector{Isa::scalar, Isa::avx2}));
  EXPECT_EQ(isas_for({.neon = true}), (std::vector{Isa::scalar, Isa::neon}));
}

TEST(SelectIsa, NamesAreReadBack) {
  for (const Isa isa : kAllIsas) EXPECT_EQ(parse_isa(name(isa)), isa);
  EXPECT_EQ(parse_isa("sse2"), std::nullopt);
  EXPECT_EQ(make_cpu_device({.n_threads = 1, .isa = Isa::scalar})->name(), "cpu/scalar");
}

TEST(SelectIsa, ADeviceThatCannotRunHereIsRefused) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::scalar);
  Index n_refused = 0;  // another architecture's at least
  for (const Isa isa : kAllIsas) {
    if (std::find(isas.begin(), isas.end(), isa) != isas.end()) continue;
    ++n_refused;
    try {
      make_cpu_device({.n_threads = 1, .isa = isa});
      FAIL() << name(isa);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
    }
  }
  EXPECT_GE(n_refused, 1);
}

// The other tests pass over what the machine lacks; here that is said by name.
class Isas : public ::testing::TestWithParam<Isa> {};
TEST_P(Isas, CanBeTestedHere) {
  const auto isas = available_isas();
  if (std::find(isas.begin(), isas.end(), GetParam()) == isas.end()) {
    GTEST_SKIP() << "this processor lacks " << name(GetParam()) << ": its kernels stay untested";
  }
  const auto device = make_cpu_device({.n_threads = 2, .isa = GetParam()});
  EXPECT_EQ(device->name(), "cpu/" + std::string(name(GetParam())));
  EXPECT_EQ(device->n_threads(), 2);
}
INSTANTIATE_TEST_SUITE_P(All, Isas, ::testing::ValuesIn(kAllIsas),
                         [](const auto& param) { return std::string(name(param.param)); });

}  // namespace
}  // namespace kogia::testing
