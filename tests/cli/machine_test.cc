#include "cli/machine.h"

#include <gtest/gtest.h>

namespace kogia::cli {
namespace {

TEST(Machine, FieldsAreFoundByTheirWholeName) {
  const std::string text =
      "processor\t: 0\nmodel name extra: x\nmodel name\t: AMD EPYC 9R14\nflags\t\t:\nlast: end";
  EXPECT_EQ(field_of(text, "model name"), "AMD EPYC 9R14");
  EXPECT_EQ(field_of(text, "flags"), "");
  EXPECT_EQ(field_of(text, "last"), "end");
  EXPECT_EQ(field_of(text, "missing"), "");
  EXPECT_EQ(field_of("", "x"), "");
}

TEST(Machine, SizesAreReadWithTheirUnits) {
  EXPECT_EQ(parse_size("32K"), 32 << 10);
  EXPECT_EQ(parse_size("16M"), 16 << 20);
  EXPECT_EQ(parse_size("24576 kB"), Index{24576} << 10);
  EXPECT_EQ(parse_size("64"), 64);
  for (const char* bad :
       {"", "K", "-5K", "12 apples", "99999999999999999999K", "4611686018427387904K"}) {
    EXPECT_EQ(parse_size(bad), 0) << bad;
  }
}

TEST(Machine, ThisOneHasCoresMemoryAndThreeCaches) {
  const Machine machine = read_machine();
  EXPECT_GE(machine.usable_cores, 1);
  EXPECT_GT(machine.memory_bytes, 0);
  ASSERT_EQ(machine.caches.size(), 3U);
  for (const CacheSize& cache : machine.caches) EXPECT_GT(cache.bytes, 0) << cache.name;
}

}  // namespace
}  // namespace kogia::cli
