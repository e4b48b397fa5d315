#pragma once
// One step of training: gradients of a global batch, however it is cut into micro-batches, then the
// optimizer and the experts' selection biases.

#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/tape.h"
#include "train/expert_balance.h"
#include "train/optimizer.h"
#include "train/packed_row.h"
#include "train/parameters.h"

namespace kogia {

struct StepSettings {
  OptimizerStep optimizer = {};
  Index micro_batch_size = 0;  // rows of one forward; 0: all
  float mtp_weight = 0.3F;     // λ: Σ over the depths, each a share of λ / D
  float bias_rate = 0;         // of the experts' selection biases; 0: they stay
  double max_loss = std::numeric_limits<double>::infinity();  // a larger one is a failure
};

/// How a recipe keeps what its backward pass needs.
Keeping keeping_of(Recipe recipe);

struct StepResult {
  double loss = 0;  // mean −log p of the tokens that the main model predicted, nats
  std::vector<double> mtp_loss = {};  // of each depth
  /// evaluate() alone: of each depth, the share of its guesses that the main model's first choice
  /// agrees with, where all depths before were right; see TrainLoss. 0 where none were.
  std::vector<double> mtp_acceptance = {};
  double balance_loss = 0;             // weighted, of all layers
  double grad_norm = 0;                // before clipping
  Index n_tokens = 0;                  // that the main model predicted
  std::vector<ExpertLoad> loads = {};  // of the whole step
  Index kept_bytes = 0;  // activations kept for the backward pass, of the largest micro-batch
};

/// Threads: one. All must outlive it.
class StepRunner {
 public:
  StepRunner(Device& device, Parameters& parameters, Optimizer& optimizer,
             const TapeOptions& options);
  ~StepRunner();

  /// Step number `step`, from 1. Without a single token to predict nothing changes.
  /// Errors  a loss or gradient that is not finite, or too large a loss: names where it began;
  ///         nothing has changed
  StepResult run(std::span<const PackedRow> rows, const StepSettings& settings, Index step);
  /// Gradients alone: those of before are forgotten.
  StepResult gradients(std::span<const PackedRow> rows, const StepSettings& settings);
  /// The losses alone.
  StepResult evaluate(std::span<const PackedRow> rows, Index micro_batch_size);

 private:
  struct MicroBatch;
  StepResult pass(std::span<const PackedRow> rows, Index micro_batch_size, float mtp_weight,
                  bool backward);
  void check(const StepResult& result, std::span<const PackedRow> rows,
             const StepSettings& settings, Index step);
  std::string where_it_began(std::span<const PackedRow> rows, const StepSettings& settings);
  std::string largest_gradient() const;
  void update_biases(const StepResult& result, float rate);

  Device& device_;
  Parameters& parameters_;
  Optimizer& optimizer_;
  Tape tape_;
  Workspace workspace_;
  Arena cache_;
};

}  // namespace kogia
