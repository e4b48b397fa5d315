#pragma once
// The feed-forward part of a layer: one dense SwiGLU, or a mixture of experts.

#include <vector>

#include "model/active_weights.h"
#include "model/attention.h"
#include "model/binder.h"
#include "model/ops.h"

namespace kogia {

/// y = (silu(x W_gateᵀ) ⊙ (x W_upᵀ)) W_downᵀ                                     arXiv:2002.05202
struct Mlp {
  Linear gate_proj, up_proj, down_proj;

  void bind(Binder& binder, const TensorName& gate, const TensorName& up, const TensorName& down,
            Index hidden_size, Index intermediate_size);
  /// x += Mlp(u)
  void forward(Ops& ops, ConstMat u, Mat x) const;
  void tally(WeightTally& weights, double share = 1) const;
  Index read_bytes() const;
};

/// DeepSeekMoE, arXiv:2401.06066, with the routers of V2 and V3:
/// y = Σ_{e chosen} w_e Expert_e(u) + Shared(u)
class Moe {
 public:
  void bind(Binder& binder, const ModelConfig& config, Index layer);
  /// x += Moe(u)
  void forward(Ops& ops, ConstMat u, Mat x) const;
  void tally(ActiveWeights& active) const;

 private:
  /// Rows of the batch sorted by expert: expert e computes sorted rows [first[e], first[e + 1]),
  /// sorted row i is token[i], and slot k of token t went to sorted row row_of[t * top_k + k].
  struct Dispatch {
    std::span<std::int32_t> first, token, row_of;
    float* weights = nullptr;
  };
  Dispatch route(Ops& ops, ConstMat u) const;
  Mat run_experts(Ops& ops, ConstMat u, const Dispatch& dispatch) const;
  void bind_experts(Binder& binder, Index layer);

  const ModelConfig* config_ = nullptr;
  Index layer_ = 0;
  Linear router_;
  std::vector<float> e_score_correction_bias_;
  std::vector<Mlp> experts_;
  Mlp shared_;
};

}  // namespace kogia
