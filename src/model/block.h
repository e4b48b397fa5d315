#pragma once
// One decoder layer: x ← x + Attention(RMSNorm(x));  x ← x + FFN(RMSNorm(x))

#include <variant>

#include "model/attention.h"
#include "model/mlp.h"

namespace kogia {

class Block {
 public:
  void bind(Binder& binder, const ModelConfig& config, Index layer, bool moe, MlaForm form);
  /// In place on the residual stream x [T, hidden_size].
  void forward(const Step& step, CacheView cache, Mat x) const;
  void tally(ActiveWeights& active) const;

 private:
  Norm input_layernorm_, post_attention_layernorm_;
  std::variant<GqaAttention, MlaAttention> attention_;
  std::variant<Mlp, Moe> ffn_;
};

}  // namespace kogia
