#pragma once
// What a run file says, as plain data. docs/training.md tells the same to users.

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/index.h"
#include "model/model.h"
#include "train/recipe.h"

namespace kogia {

enum class OptimizerKind { kAdamW };
enum class MomentType { kF32, kBf16 };
enum class ScheduleKind { kConstant, kCosine, kLinear, kWsd, kV3 };
enum class Balance { kLossFree, kAuxLoss, kNone };

/// One run. Steps count from 0; what "from step s on" holds, holds in step s too.
///
/// read_run_file() gives it resolved: every field that has a meaning for the run has its value.
/// kUnset is left where there is none (final_lr of a cosine schedule).
struct RunConfig {
  static constexpr Index kUnset = -1;

  /// A value from a step on.
  struct StepValue {
    Index step = 0;
    double value = 0;
    bool operator==(const StepValue&) const = default;
  };

  struct Model {
    /// What becomes config.json, by the names it has there, without null. That of `from` first,
    /// what the run file says itself over it.
    nlohmann::ordered_json config = nlohmann::ordered_json::object();
    std::filesystem::path from;        // a folder with config.json, or a .json file; empty: none
    bool weights = false;              // begin with the weights of `from` instead of random ones
    MlaForm mla = MlaForm::kExpanded;  // in which it trains and decodes; not kAuto
  } model;

  struct Source {
    std::filesystem::path path;  // .txt or .jsonl, also .gz or .zst
    double weight = 1;           // share of the tokens, relative to the other sources
    std::string field = "text";  // of a line of JSON: where its text is
    bool operator==(const Source&) const = default;
  };

  struct Data {
    std::vector<Source> sources;
    std::filesystem::path tokenizer;  // a tokenizer.json
    Index sequence_length = kUnset;   // tokens of a packed row
    double holdout = 0.01;            // share of the documents that is kept for validation
    Index seed = 0;                   // of the order of documents
    std::filesystem::path cache;      // where the tokens are kept between runs
  } data;

  struct Recompute {  // what the backward pass computes again instead of keeping it
    bool norms = false, swiglu = false, up_projection = false;
    bool operator==(const Recompute&) const = default;
  };

  struct Trainer {
    Index steps = kUnset;
    Index batch_size = 8;             // packed rows of an optimizer step
    Index micro_batch_size = kUnset;  // rows of one forward; unless set, batch_size
    Index seed = 0;                   // of the first weights
    Index threads = 0;                // 0: as many as the process may use
    Index log_every = 10;             // steps; 0: never, as below
    Index eval_every = 100;
    Index eval_rows = 64;  // rows of the validation set that are looked at; 0: all
    Index checkpoint_every = 500;
    Index keep_checkpoints = 2;
    Recompute recompute;
    bool tensorboard = true;   // event files beside metrics.jsonl
    double stop_at_spike = 3;  // nats over the mean loss of the steps before; 0: never
  } trainer;

  struct Optimizer {
    OptimizerKind name = OptimizerKind::kAdamW;
    double lr = kUnset;  // the highest rate
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double weight_decay = 0.1;
    double clip = 1;  // largest global norm of the gradient; 0: any
    MomentType moments = MomentType::kF32;
  } optimizer;

  struct RampStep {
    Index step = 0, batch_size = 0;
    bool operator==(const RampStep&) const = default;
  };

  struct Schedule {
    ScheduleKind kind = ScheduleKind::kConstant;
    Index warmup_steps = kUnset;       // 0, v3: steps / 120
    double min_lr = kUnset;            // 0, v3: lr / 10
    Index decay_start = kUnset;        // where the rate begins to fall
    Index decay_steps = kUnset;        // in how many steps it is at min_lr
    Index final_start = kUnset;        // v3: from here on final_lr
    double final_lr = kUnset;          // v3: lr · 7.3 / 220
    std::vector<RampStep> batch_ramp;  // trainer.batch_size holds before the first
  } schedule;

  struct Precision {
    Recipe recipe = Recipe::kBf16;
  } precision;

  struct Experts {
    Balance balance = Balance::kLossFree;
    double bias_update_rate = 0.001;
    Index bias_update_until = kUnset;  // from this step on the rate is 0; unset: never
    double sequence_loss = 1e-4;       // weight of the sequence-wise loss beside loss_free
    double aux_loss = 0.01;            // weight of the loss of aux_loss
  } experts;

  struct Mtp {
    std::vector<StepValue> loss_weight;  // the first is at step 0
  } mtp;
};

}  // namespace kogia
