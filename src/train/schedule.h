#pragma once
// What changes in the course of a run, as pure functions of the step: a resumed run has no state of
// its own to get wrong.

#include "train/run_config.h"

namespace kogia {

// `step` counts from 0 and is that of the update which is about to be made: the first of w warm-up
// steps has 1/w of the rate, so that no batch is wasted at rate 0 (transformers' k/w would).
// `config` is resolved (run_file.h).

/// Warm-up: lr (step + 1) / w. From decay_start on it falls over decay_steps from lr to min_lr,
/// which stays: by half a cosine (cosine, v3) or along a line (linear, wsd). v3: from final_start
/// on final_lr.
double learning_rate(const RunConfig& config, Index step);

/// Packed rows of the step's batch: trainer.batch_size, or that of the last entry of the ramp whose
/// step has come.
Index batch_size(const RunConfig& config, Index step);

/// Rows of all steps before this one: where in the order of rows its batch begins.
Index rows_before(const RunConfig& config, Index step);

/// λ, the weight of the loss of multi-token prediction.
double mtp_loss_weight(const RunConfig& config, Index step);

/// γ, by which the biases of experts change after this step; 0 where `balance` has no biases.
double bias_update_rate(const RunConfig& config, Index step);

}  // namespace kogia
