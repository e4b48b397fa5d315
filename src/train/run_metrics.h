#pragma once
// What metrics.jsonl says of a run, as curves.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/index.h"
#include "train/curve.h"
#include "train/expert_history.h"

namespace kogia {

/// Curves whose quantity the log does not have are empty.
struct RunMetrics {
  std::filesystem::path folder;
  Index n_lines = 0;  // steps that were logged
  Index last_step = 0;
  double n_tokens = 0, seconds = 0;  // of all of them

  Curve loss, bits_per_byte;  // of the texts of each step
  Curve validation_loss, validation_bits_per_byte;
  Curve validation_max_vio;                                          // mean over the layers
  std::vector<Curve> mtp_loss, validation_mtp_loss, mtp_acceptance;  // by depth, from the first
  Curve balance_loss, grad_norm, lr;
  Curve tokens_per_s, gflop_s;
  Curve kept_bytes, peak_bytes;
  std::optional<ExpertHistory> experts;  // unset: the model has none

  std::vector<std::string> notes;  // what was left out of the log, a sentence each

  /// The last part of the folder's path.
  std::string name() const;
};

/// Reads RUN/metrics.jsonl, also while it is being written. A last line that was cut off and lines
/// that make no sense are left out, and a note says so; of a step that stands there twice the later
/// line counts.
///
/// Memory   a hundred or two bytes a step
/// Errors   no such folder or no such file; not a single line of it makes sense
RunMetrics read_run_metrics(const std::filesystem::path& folder);

}  // namespace kogia
