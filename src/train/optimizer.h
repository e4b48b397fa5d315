#pragma once
// AdamW over all parameters, after clipping by the global norm.

#include <cstddef>
#include <vector>

#include "device/device.h"
#include "train/parameters.h"

namespace kogia {

/// What holds for one step.
struct OptimizerStep {
  float lr = 0, beta1 = 0.9F, beta2 = 0.95F, eps = 1e-8F, weight_decay = 0.1F;
  float clip = 1;  // largest global norm; 0: any
};

/// The state that AdamW keeps of each parameter.
class Optimizer {
 public:
  /// `moments`: f32 or bf16.
  Optimizer(Device& device, std::vector<Parameter>& parameters, DType moments);

  /// √ Σ g² over all gradients: sums in f64, parameter by parameter.
  double global_norm() const;
  /// Moves the masters. `norm` is global_norm(); step counts from 1.
  void step(const OptimizerStep& how, double norm, Index step);

  struct Moments {
    std::vector<std::byte> m, v;  // empty: the parameter is not trained by gradient
  };
  DType dtype() const { return dtype_; }
  /// Of each parameter, in their order.
  std::vector<Moments>& moments() { return moments_; }

 private:
  Device& device_;
  std::vector<Parameter>& parameters_;
  DType dtype_;
  std::vector<Moments> moments_;
};

}  // namespace kogia
