#pragma once

#include <vector>

#include "base/index.h"

namespace kogia {

/// How many tokens of a pass each expert of a layer got.
struct ExpertLoad {
  Index layer = 0;
  std::vector<Index> tokens;  // [n_routed_experts]
};

}  // namespace kogia
