#include <algorithm>

#include "model/mlp.h"
#include "model/names.h"

namespace kogia {

void Moe::bind(Binder& binder, const ModelConfig& c, Index layer) {
  config_ = &c;
  layer_ = layer;
  const LayerNames name(layer);
  binder.linear(name(names::kRouter), c.n_routed_experts, c.hidden_size, router_, Compute::f32);
  if (c.topk_method == ModelConfig::TopkMethod::kNoauxTc) {
    binder.exact_vector(name(names::kRouterBias), c.n_routed_experts, e_score_correction_bias_);
  }
  bind_experts(binder, layer);
  if (c.n_shared_experts > 0) {
    shared_.bind(binder, name(names::kSharedGate), name(names::kSharedUp), name(names::kSharedDown),
                 c.hidden_size, c.shared_intermediate_size());
  }
}

// Hugging Face keeps a tensor per expert, GGUF one stack per projection (or gate over up in one).
void Moe::bind_experts(Binder& binder, Index layer) {
  const ModelConfig& c = *config_;
  const LayerNames name(layer);
  const Index n = c.n_routed_experts, width = c.moe_intermediate_size, d = c.hidden_size;
  experts_.resize(static_cast<std::size_t>(n));
  const TensorName fused = name(names::kExpertGateUp);
  for (Index e = 0; e < n; ++e) {
    Mlp& expert = experts_[static_cast<std::size_t>(e)];
    if (!binder.gguf()) {
      expert.bind(binder, {name.expert(e, names::kExpertGate), {}},
                  {name.expert(e, names::kExpertUp), {}}, {name.expert(e, names::kExpertDown), {}},
                  d, width);
      continue;
    }
    if (binder.has(fused)) {
      binder.slice(fused, {n, 2 * width, d}, {2 * e * width, width}, false, expert.gate_proj);
      binder.slice(fused, {n, 2 * width, d}, {(2 * e + 1) * width, width}, false, expert.up_proj);
    } else {
      binder.slice(name(names::kExpertGate), {n, width, d}, {e * width, width}, false,
                   expert.gate_proj);
      binder.slice(name(names::kExpertUp), {n, width, d}, {e * width, width}, false,
                   expert.up_proj);
    }
    binder.slice(name(names::kExpertDown), {n, d, width}, {e * d, d}, false, expert.down_proj);
  }
}

Moe::Dispatch Moe::route(Ops& ops, ConstMat u) const {
  const ModelConfig& c = *config_;
  using M = ModelConfig::TopkMethod;
  const Index top_k = c.num_experts_per_tok, n = u.rows * top_k, n_experts = c.n_routed_experts;
  const bool v3 = c.topk_method == M::kNoauxTc;
  const bool normalise = c.norm_topk_prob && top_k > 1;
  const Mat logits = ops.linear(u, router_);
  std::int32_t* const experts = ops.arena.allocate<std::int32_t>(n);
  float* const weights = ops.arena.allocate<float>(n);
  const auto span_of = [&](Index size) {
    return std::span(ops.arena.allocate<std::int32_t>(size), static_cast<std::size_t>(size));
  };
  Dispatch out{.first = span_of(n_experts + 1),
               .token = span_of(n),
               .row_of = span_of(n),
               .weights = weights};
  ops.route({.logits = logits.data,
             .bias = v3 ? e_score_correction_bias_.data() : nullptr,
             .rows = u.rows,
             .n_experts = n_experts,
             .top_k = top_k,
             .n_group = c.topk_method == M::kGreedy ? 1 : c.n_group,
             .topk_group = c.topk_method == M::kGreedy ? 1 : c.topk_group,
             .score = c.scoring_func,
             .group_score = v3 ? GroupScore::kTop2Sum : GroupScore::kMax,
             .normalise = normalise,
             // V2 either normalises or scales; V3 always scales.
             .scale = v3 || !normalise ? static_cast<float>(c.routed_scaling_factor) : 1.0f,
             .experts = experts,
             .weights = weights},
            layer_, out.first);

  // A counting sort, stable: the rows of an expert stay in the order of the batch.
  const auto next = span_of(n_experts);
  std::copy_n(out.first.begin(), next.size(), next.begin());
  for (Index i = 0; i < n; ++i) {
    const std::int32_t row = next[static_cast<std::size_t>(experts[i])]++;
    out.token[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(i / top_k);
    out.row_of[static_cast<std::size_t>(i)] = row;
  }
  return out;
}

// Every touched expert's weights are read once: gate and up of all of them in one dispatch, then
// down. gate, up [T · top_k, moe_intermediate_size] → [T · top_k, hidden_size], rows sorted by
// expert
Mat Moe::run_experts(Ops& ops, ConstMat u, const Dispatch& dispatch) const {
  const ModelConfig& c = *config_;
  const Index n = static_cast<Index>(dispatch.token.size());
  const bool single = u.rows == 1;  // every expert reads the one row where it lies
  const Mat sorted = single ? Mat{} : ops.arena.matrix(n, u.cols);
  if (!single) ops.spread_rows(u, dispatch.token, dispatch.row_of, sorted);
  const Mat gate = ops.arena.matrix(n, c.moe_intermediate_size),
            up = ops.arena.matrix(n, c.moe_intermediate_size);
  const Mat y = ops.arena.matrix(n, c.hidden_size);

  std::vector<Product> in, out;
  for (std::size_t e = 0; e < experts_.size(); ++e) {
    const Index begin = dispatch.first[e], rows = dispatch.first[e + 1] - begin;
    if (rows == 0) continue;
    ops.expert_bytes += experts_[e].read_bytes();
    const auto rows_of = [&](Mat m) { return Mat{m.row(begin), rows, m.cols, m.stride}; };
    const ConstMat x = single ? u : ConstMat(rows_of(sorted));
    const auto tokens =
        std::span<const std::int32_t>(dispatch.token)
            .subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(rows));
    in.push_back({.x = x, .l = &experts_[e].gate_proj, .y = rows_of(gate), .tokens = tokens});
    in.push_back({.x = x, .l = &experts_[e].up_proj, .y = rows_of(up), .tokens = tokens});
    out.push_back(
        {.x = rows_of(gate), .l = &experts_[e].down_proj, .y = rows_of(y), .tokens = tokens});
  }
  ops.run(in);
  ops.silu_mul(gate, up);
  ops.weigh(gate, dispatch.row_of, dispatch.weights);
  ops.run(out);
  return y;
}

void Moe::forward(Ops& ops, ConstMat u, Mat x) const {
  const Dispatch dispatch = route(ops, u);
  const Mat rows = run_experts(ops, u, dispatch);
  if (config_->n_shared_experts > 0) shared_.forward(ops, u, x);
  ops.combine({.expert_rows = rows.data,
               .expert_stride = rows.stride,
               .row_of = dispatch.row_of,
               .weights = dispatch.weights,
               .rows = u.rows,
               .top_k = config_->num_experts_per_tok,
               .n = x.cols,
               .y = x.data,
               .y_stride = x.stride});
}

}  // namespace kogia
