#include "tensor/arena.h"

#include <cstdint>

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace kogia
