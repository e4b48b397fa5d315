#include "base/error.h"
#include "model/attention.h"
#include "model/names.h"

namespace kogia {

void GqaAttention::bind(Binder& binder, const ModelConfig& c, Index layer) {
  config_ = &c;
  const Index d = c.hidden_size, q = c.num_attention_heads * c.head_dim;
  const Index kv = c.num_key_value_heads * c.head_dim;
  const LayerNames name(layer);
  const auto projection = [&](const TensorName& n, Index rows, Linear& out) {
    if (c.attention_bias) {
      binder.linear_with_bias(n, rows, d, out);
    } else {
      binder.linear(n, rows, d, out);
    }
  };
  projection(name(names::kQ), q, q_proj_);
  projection(name(names::kK), kv, k_proj_);
  projection(name(names::kV), kv, v_proj_);
  binder.linear(name(names::kO), d, q, o_proj_);
  if (c.qk_norm) {
    binder.norm(name(names::kQNorm), c.head_dim, q_norm_, c.rms_norm_eps);
    binder.norm(name(names::kKNorm), c.head_dim, k_norm_, c.rms_norm_eps);
  }
}

// q [T, H, head_dim]  k, v [T, H_kv, head_dim];  x += softmax(q kᵀ / √head_dim) v W_oᵀ
void GqaAttention::forward(const Step& step, ConstMat u, CacheView cache, Mat x) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  const auto [q, k, v] = ops.linears<3>(u, {&q_proj_, &k_proj_, &v_proj_});
  if (c.qk_norm) {
    ops.rms_norm_in_place({q.data, q.rows * c.num_attention_heads, c.head_dim, c.head_dim},
                          q_norm_);
    ops.rms_norm_in_place({k.data, k.rows * c.num_key_value_heads, c.head_dim, c.head_dim},
                          k_norm_);
  }
  ops.rotate(heads_of(q, c.num_attention_heads), step.rope, step.tables);
  ops.rotate(heads_of(k, c.num_key_value_heads), step.rope, step.tables);
  const Mat out = ops.arena.matrix(q.rows, q.cols);
  ops.append(cache, k, v, step.batch.sequences);
  ops.attention({.cache = cache,
                 .q = q,
                 .k = k,
                 .v = v,
                 .n_heads = c.num_attention_heads,
                 .scale = static_cast<float>(softmax_scale(c)),
                 .keys = step.batch.sequences,
                 .queries = step.batch.sequences},
                out);
  ops.add_linear(x, out, o_proj_);
}

}  // namespace kogia
