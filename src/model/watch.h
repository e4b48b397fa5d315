#pragma once
// Where in a training step the first number appears that is none.

#include <string>
#include <string_view>

#include "model/trained_weights.h"
#include "tensor/view.h"

namespace kogia {

/// Looks at every result of a pass: for a pass that is made again because its loss or its gradient
/// was not finite. Slow. Threads: one.
class Watch {
 public:
  explicit Watch(TrainedWeights& weights) : weights_(weights) {}

  /// `op` has made y, with the weight whose gradient is at `grad` (null: without one).
  void made(ConstMat y, std::string_view op, const float* grad = nullptr);
  /// The backward pass of `op`, with or after the weight whose gradient is at `grad`, has made the
  /// first gradient that is not finite.
  void made_gradient(std::string_view op, const float* grad);
  /// Looks at the gradients of all weights.
  void look_at_gradients();

  bool found() const { return !where_.empty(); }
  /// "the product of model.layers.2.mlp.down_proj.weight"
  const std::string& where() const { return where_; }

 private:
  std::string name_of(const float* grad) const;

  TrainedWeights& weights_;
  std::string last_;  // weight that was used
  std::string where_;
};

bool all_finite(const float* x, Index n);

}  // namespace kogia
