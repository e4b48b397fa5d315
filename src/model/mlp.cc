#include "model/mlp.h"

namespace kogia {

void Mlp::bind(Binder& binder, const TensorName& gate, const TensorName& up, const TensorName& down,
               Index hidden_size, Index intermediate_size) {
  binder.linear(gate, intermediate_size, hidden_size, gate_proj);
  binder.linear(up, intermediate_size, hidden_size, up_proj);
  binder.linear(down, hidden_size, intermediate_size, down_proj);
}

// u, x [T, hidden_size]  gate, up [T, intermediate_size]
void Mlp::forward(Ops& ops, ConstMat u, Mat x) const {
  const auto [gate, up] = ops.linears<2>(u, {&gate_proj, &up_proj});
  ops.add_linear(x, ops.silu_mul(gate, up), down_proj);
}

}  // namespace kogia
