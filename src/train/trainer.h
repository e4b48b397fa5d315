#pragma once
// A run from its first step, or from its newest checkpoint, to its last.

#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/device.h"
#include "train/metrics_log.h"
#include "train/row_source.h"
#include "train/run_config.h"
#include "train/run_folder.h"
#include "train/step.h"

namespace kogia {

/// What is told of a step.
struct StepReport {
  Index step = 0, n_steps = 0;  // done, of so many
  StepResult result = {};
  double lr = 0, seconds = 0;
  std::vector<double> max_vio = {};  // of each of result.loads
  Index bytes = 0;                   // of text that the step predicted; 0: not known
  double flops = 0;                  // train_flops()
  std::optional<double> validation_loss = {};
  double validation_bits_per_byte = 0;  // the same per byte of text; 0: not known
  std::vector<double> validation_mtp_loss = {}, mtp_acceptance = {};  // of each depth
  std::vector<double> validation_max_vio = {};  // of each layer with experts, on the same rows
};

struct TrainReport {
  Index first_step = 0, n_steps = 0;  // from, to
  double loss = 0;                    // of the last step
  std::optional<double> validation_loss = {};
  double seconds = 0;
  Index n_tokens = 0;
  bool interrupted = false;
  std::filesystem::path checkpoint = {};
};

class Trainer {
 public:
  /// `checkpoint`: where the run goes on; nullopt: from the beginning.
  Trainer(const RunConfig& config, Device& device, RowSource& rows, RunFolder& folder,
          const std::optional<RunFolder::Found>& checkpoint, CheckpointTokenizer tokenizer);

  /// Until the last step or Ctrl-C, where an InterruptGuard lives; a checkpoint is left then, and
  /// also where a step fails, of what was before it.
  TrainReport run(const std::function<void(const StepReport&)>& tell);

  Index n_parameters() const { return parameters_->n_values(); }
  Index first_step() const { return step_; }

 private:
  StepSettings settings() const;
  double max_loss() const;
  StepReport one_step();
  void validate(StepReport& report);
  void save();

  const RunConfig& config_;
  RowSource& rows_;
  RunFolder& folder_;
  CheckpointTokenizer tokenizer_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<StepRunner> runner_;
  Index step_ = 0;                   // steps done
  std::deque<double> losses_;        // of the last steps of this process
  Index saved_ = RunConfig::kUnset;  // the step of the newest checkpoint
};

}  // namespace kogia
