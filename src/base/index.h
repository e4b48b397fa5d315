#pragma once
// The type of sizes, counts and loop counters.

#include <cstdint>

namespace kogia {

using Index = std::int64_t;

constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
constexpr Index round_up(Index a, Index b) { return ceil_div(a, b) * b; }

}  // namespace kogia
