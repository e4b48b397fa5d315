#pragma once
// Computes the rows that the scheduler chose.

#include <vector>

#include "infer/engine.h"
#include "infer/scheduler.h"

namespace kogia {

/// Threads: one at a time; the model's device computes on its own.
class Runner {
 public:
  explicit Runner(Engine& engine) : engine_(engine) {}

  /// Logits of all rows that want them, and states of all rows, in the order of the plan. They live
  /// until the engine's workspace is used again.
  ForwardResult run(const StepPlan& plan);

 private:
  void copy_pages(const StepPlan& plan);

  Engine& engine_;
  // Scratch, reused from step to step.
  std::vector<TokenId> ids_;
  std::vector<SequenceRows> sequences_;
  std::vector<std::int32_t> logit_rows_;
};

}  // namespace kogia
