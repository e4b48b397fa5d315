#pragma once
// What a run's metrics.jsonl says, and figures made of it.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/index.h"
#include "model/expert_load.h"

namespace kogia {

/// A line. Losses are nats a token; what a line does not have is NaN, empty or 0.
struct StepMetrics {
  Index step = 0;
  double loss = 0, grad_norm = 0, lr = 0, seconds = 0;
  Index tokens = 0;
  std::vector<double> mtp_loss;                   // of each depth
  std::vector<double> max_vio;                    // of each layer with experts
  std::vector<std::vector<Index>> expert_tokens;  // of each layer with experts
  std::optional<double> validation_loss, validation_bits_per_byte;
  std::vector<double> validation_max_vio;
  Index kept_bytes = 0, peak_bytes = 0;
};

struct RunMetrics {
  std::string name;                // of the folder
  std::vector<StepMetrics> steps;  // at least one
  Index n_damaged = 0;             // lines that say nothing: cut off by a power failure
};

/// Errors  no such folder, no metrics.jsonl in it, no line that says something: Error names it
RunMetrics read_run_metrics(const std::filesystem::path& folder);

/// Tokens of each expert over steps [begin, end) of `steps`, of each layer.
std::vector<ExpertLoad> summed_loads(const RunMetrics& run, std::size_t begin, std::size_t end);

/// −Σ p ln p / ln n of the shares of the experts: 1 where all have the same.
double load_entropy(const ExpertLoad& load);

/// How another run's loss lies beside this one's: (theirs − ours) / ours of means over windows of
/// 50 steps that both have, from step 101 on.
struct LossGap {
  Index n_windows = 0;
  double last = 0;       // of the last window
  double worst = 0;      // the largest in magnitude
  Index worst_step = 0;  // where that window ends
};
LossGap loss_gap(const RunMetrics& ours, const RunMetrics& theirs);

/// What the end of a run looks like.
struct RunSummary {
  Index steps = 0, tokens = 0;
  double loss = 0;               // mean of the last 50 steps
  std::vector<double> mtp_loss;  // the same
  std::optional<double> validation_loss, best_validation_loss, bits_per_byte;
  std::optional<double> max_vio;  // mean over layers, of the tokens of the last 100 steps
  std::optional<double> validation_max_vio;  // mean over layers
  Index dead_experts = 0;                    // without a token in these steps
  double tokens_per_s = 0;
  Index kept_bytes = 0, peak_bytes = 0;
};
RunSummary summarise(const RunMetrics& run);

}  // namespace kogia
