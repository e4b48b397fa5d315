#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace kogia {

Optimizer::Optimizer(Device& device, std::vector<Parameter>& parameters, DType moments)
    : device_(device), parameters_(parameters), dtype_(moments), moments_(parameters.size()) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].grad == nullptr) continue;
    const auto n = static_cast<std::size_t>(row_bytes(moments, parameters[i].n));
    moments_[i].m.assign(n, std::byte{0});
    moments_[i].v.assign(n, std::byte{0});
  }
}

double Optimizer::global_norm() const {
  double sum = 0;
  for (const Parameter& p : parameters_) {
    if (p.grad != nullptr) sum += device_.sum_squares({p.grad, static_cast<std::size_t>(p.n)});
  }
  return std::sqrt(sum);
}

// The factor is torch.nn.utils.clip_grad_norm_'s.
void Optimizer::step(const OptimizerStep& how, double norm, Index step) {
  const double factor = how.clip > 0 ? std::min(1.0, how.clip / (norm + 1e-6)) : 1.0;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& p = parameters_[i];
    if (p.grad == nullptr) continue;
    device_.adamw({.w = p.master,
                   .grad = p.grad,
                   .m = moments_[i].m.data(),
                   .v = moments_[i].v.data(),
                   .moments = dtype_,
                   .n = p.n,
                   .lr = how.lr,
                   .beta1 = how.beta1,
                   .beta2 = how.beta2,
                   .eps = how.eps,
                   .weight_decay = p.decays ? how.weight_decay : 0,
                   .grad_scale = static_cast<float>(factor),
                   .step = step});
  }
}

}  // namespace kogia
