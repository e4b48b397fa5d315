#include "model/block.h"

#include "model/names.h"

namespace kogia {

void Block::bind(Binder& binder, const ModelConfig& c, Index layer, bool moe, MlaForm form) {
  const LayerNames name(layer);
  binder.norm(name(names::kInputNorm), c.hidden_size, input_layernorm_, c.rms_norm_eps);
  if (c.is_mla()) {
    attention_.emplace<MlaAttention>().bind(binder, c, layer, form);
  } else {
    attention_.emplace<GqaAttention>().bind(binder, c, layer);
  }
  binder.norm(name(names::kPostAttentionNorm), c.hidden_size, post_attention_layernorm_,
              c.rms_norm_eps);
  if (moe) {
    ffn_.emplace<Moe>().bind(binder, c, layer);
  } else {
    ffn_.emplace<Mlp>().bind(binder, name(names::kGate), name(names::kUp), name(names::kDown),
                             c.hidden_size, c.intermediate_size);
  }
}

void Block::forward(const Step& step, CacheView cache, Mat x) const {
  Ops& ops = step.ops;
  {
    const Arena::Scope scope(ops.arena);
    const Mat u = ops.rms_norm(x, input_layernorm_);
    std::visit([&](const auto& attention) { attention.forward(step, u, cache, x); }, attention_);
  }
  const Arena::Scope scope(ops.arena);
  const Mat u = ops.rms_norm(x, post_attention_layernorm_);
  std::visit([&](const auto& ffn) { ffn.forward(ops, u, x); }, ffn_);
}

}  // namespace kogia
