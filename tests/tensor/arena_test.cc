#include "tensor/arena.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "support/sanitized.h"

namespace kogia {
namespace {

TEST(Arena, SecondPassOfTheSameShapeAllocatesNothing) {
  Arena arena;
  for (int pass = 0; pass < 3; ++pass) {
    const Index before = arena.n_bytes();
    arena.reset();
    for (const Index n : {1, 1000, 7, 300000, 64}) {
      float* p = arena.allocate<float>(n);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 64, 0U);
      p[0] = p[n - 1] = 1;
    }
    if (pass == 2) {
      EXPECT_EQ(arena.n_bytes(), before);
    }
  }
}

TEST(Arena, ScopeGivesBackWhatItTook) {
  Arena arena;
  float* first = arena.allocate<float>(10);
  float* inner = nullptr;
  {
    const Arena::Scope scope(arena);
    inner = arena.allocate<float>(100);
  }
  EXPECT_EQ(arena.allocate<float>(100), inner);
  EXPECT_NE(first, inner);
}

TEST(Arena, TouchedIsAllThatWasHandedOutSinceTheReset) {
  Arena arena;
  const auto holds = [&](const float* p, Index n) {
    for (const std::span<std::byte> part : arena.touched()) {
      const auto* const begin = reinterpret_cast<const std::byte*>(p);
      if (begin >= part.data() && begin + n * 4 <= part.data() + part.size()) return true;
    }
    return false;
  };
  const float* const first = arena.allocate<float>(10);
  const float* inner = nullptr;
  {
    const Arena::Scope scope(arena);
    inner = arena.allocate<float>(1000000);
  }
  EXPECT_TRUE(holds(first, 10));
  EXPECT_TRUE(holds(inner, 1000000));
  arena.reset();
  EXPECT_FALSE(holds(arena.allocate<float>(10), 1000000));
  EXPECT_EQ(arena.used_bytes(), 64);
}

TEST(Arena, MemoryIsWhatWasInUseAtOnce) {
  Arena arena;
  for (const Index n : {1000000, 3000000, 2000000}) {
    const Arena::Scope scope(arena);
    arena.allocate<float>(n);
  }
  EXPECT_EQ(arena.n_bytes(), 12000000);
}

// A process that may have few addresses gets ranges as it needs them.
TEST(ArenaDeathTest, WorksWhereAddressesAreLimited) {
  if (test::kSanitized) GTEST_SKIP() << "sanitizers reserve terabytes of addresses";
  const auto use = [] {
    const rlimit limit{Index{1} << 30, Index{1} << 30};
    if (::setrlimit(RLIMIT_AS, &limit) != 0) std::exit(1);
    Arena a, b;
    for (int pass = 0; pass < 2; ++pass) {
      a.reset(), b.reset();
      for (const Index n : {1, 300000, 5, 2000000, 300000}) {
        float* const p = a.allocate<float>(n);
        float* const q = b.allocate<float>(n);
        std::fill(p, p + n, 1.0F);
        std::fill(q, q + n, 2.0F);
        if (p[n - 1] != 1 || q[0] != 2) std::exit(2);
      }
    }
    std::exit(a.used_bytes() >= 4 * 2600006 ? 0 : 3);
  };
  EXPECT_EXIT(use(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace kogia
