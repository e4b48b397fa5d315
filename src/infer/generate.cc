#include "infer/generate.h"

namespace kogia {

std::string_view name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kInterrupted:
      return "interrupted";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "";
}

void DraftStats::count(Index n_drafted, Index n_accepted) {
  ++n_steps;
  all.n_drafted += n_drafted;
  all.n_accepted += n_accepted;
  const auto n = static_cast<std::size_t>(n_drafted);
  if (at.size() < n) at.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    ++at[i].n_drafted;
    if (static_cast<Index>(i) < n_accepted) ++at[i].n_accepted;
  }
}

void DraftStats::add(const DraftStats& other) {
  n_steps += other.n_steps;
  all.n_drafted += other.all.n_drafted;
  all.n_accepted += other.all.n_accepted;
  if (at.size() < other.at.size()) at.resize(other.at.size());
  for (std::size_t i = 0; i < other.at.size(); ++i) {
    at[i].n_drafted += other.at[i].n_drafted;
    at[i].n_accepted += other.at[i].n_accepted;
  }
}

}  // namespace kogia
