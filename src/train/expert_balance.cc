#include "train/expert_balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kogia {
namespace {

double sum_of(const std::vector<Index>& tokens) {
  return static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), Index{0}));
}

}  // namespace

double max_vio(const std::vector<Index>& tokens) {
  const double sum = sum_of(tokens);
  if (sum == 0) return 0;
  const double mean = sum / static_cast<double>(tokens.size());
  return (static_cast<double>(*std::ranges::max_element(tokens)) - mean) / mean;
}

double load_entropy(const std::vector<Index>& tokens) {
  const double sum = sum_of(tokens);
  if (sum == 0 || tokens.size() < 2) return 1;
  double entropy = 0;
  for (const Index n : tokens) {
    const double share = static_cast<double>(n) / sum;
    if (n > 0) entropy -= share * std::log(share);
  }
  return entropy / std::log(static_cast<double>(tokens.size()));
}

}  // namespace kogia
