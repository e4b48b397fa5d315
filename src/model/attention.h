#pragma once
// Attention of one layer: grouped queries (Qwen, Llama), or multi-head latent attention in two
// forms.

#include <vector>

#include "model/active_weights.h"
#include "model/binder.h"
#include "model/model.h"
#include "model/ops.h"
#include "model/rope.h"

namespace kogia {

/// What a forward pass tells every layer.
struct Step {
  Ops& ops;
  const Batch& batch;
  const Rope& rope;
  RopeTables tables;
};

/// Grouped-query attention, arXiv:2305.13245; q and k normalised per head in Qwen3.
class GqaAttention {
 public:
  void bind(Binder& binder, const ModelConfig& config, Index layer);
  /// x += Attention(u); u [T, hidden_size] is the normed input.
  void forward(const Step& step, ConstMat u, CacheView cache, Mat x) const;
  void tally(ActiveWeights& active) const;

 private:
  const ModelConfig* config_ = nullptr;
  Linear q_proj_, k_proj_, v_proj_, o_proj_;
  Norm q_norm_, k_norm_;
};

/// Multi-head latent attention, DeepSeek-V2 arXiv:2405.04434 §2.1, expanded or absorbed.
/// The cache keeps, per token, the normed latent c (kv_lora_rank) and the rotated key part k_pe.
class MlaAttention {
 public:
  void bind(Binder& binder, const ModelConfig& config, Index layer, MlaForm form);
  void forward(const Step& step, ConstMat u, CacheView cache, Mat x) const;
  void tally(ActiveWeights& active) const;

 private:
  Mat queries(const Step& step, ConstMat u,
              Mat& kv) const;  // [T, H · 192], rotated; fills kv [T, 576]
  void remember_queries(const Step& step, ConstMat q_a, Mat q) const;
  void remember_up_projections(Tape& tape, ConstMat latent, Mat k, Mat v) const;
  Mat absorbed(const Step& step, Mat q, Mat kv, CacheView cache,
               std::span<const SequenceRows> sequences) const;
  void expanded(const Step& step, Mat q, Mat kv, CacheView cache,
                std::span<const SequenceRows> sequences, Mat out) const;
  void bind_up_projections(Binder& binder, const TensorName& layer_name, MlaForm form);

  const ModelConfig* config_ = nullptr;
  MlaForm form_ = MlaForm::kAbsorbed;
  float scale_ = 1;
  Linear q_proj_, q_a_proj_, q_b_proj_, kv_a_proj_, o_proj_;
  Norm q_a_norm_, kv_a_norm_;
  std::vector<Linear> up_k_t_;  // per head W_UKᵀ [kv_lora_rank, qk_nope_head_dim]: absorbed queries
  std::vector<Linear> up_k_;    // per head W_UK [qk_nope_head_dim, kv_lora_rank]: expanded keys
  std::vector<Linear> up_v_;    // per head W_UV [v_head_dim, kv_lora_rank]
};

}  // namespace kogia
