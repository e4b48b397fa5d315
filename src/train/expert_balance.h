#pragma once
// How evenly tokens fall on the experts of a layer, each figure from their counts.

#include <vector>

#include "base/index.h"
#include "model/expert_load.h"

namespace kogia {

/// (largest − mean) / mean                                             arXiv:2408.15664 eq. 4
double max_vio(const std::vector<Index>& tokens);
inline double max_vio(const ExpertLoad& load) { return max_vio(load.tokens); }

/// Entropy of the shares ÷ log n: 1 where all get the same, 0 where one gets everything. Of no
/// tokens, or of one expert: 1.
double load_entropy(const std::vector<Index>& tokens);

}  // namespace kogia
