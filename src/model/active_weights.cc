#include "model/active_weights.h"

#include <algorithm>

#include "model/attention.h"
#include "model/block.h"
#include "model/mlp.h"

namespace kogia {

Index read_bytes(const Matrix& matrix) {
  if (matrix.n_bytes() > 0) return matrix.n_bytes();
  const DTypeInfo& format = info(matrix.dtype());
  return matrix.rows() * matrix.cols() / format.block_values * format.block_bytes;
}

void WeightTally::add(const Linear& linear, double share) {
  if (linear.w == nullptr) return;  // a projection that this model does without
  const Matrix& w = *linear.w;
  const double n = share * static_cast<double>(w.rows() * w.cols());
  parameters += n;
  bytes += share * static_cast<double>(read_bytes(w));
  by_compute[w.compute()] += n;
}

void WeightTally::add(const WeightTally& other, double share) {
  parameters += share * other.parameters;
  bytes += share * other.bytes;
  for (const auto& [compute, n] : other.by_compute) by_compute[compute] += share * n;
}

Compute ActiveWeights::compute() const {
  WeightTally all = always;
  all.add(routed);
  all.add(head);
  const auto most = std::ranges::max_element(
      all.by_compute, [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == all.by_compute.end() ? Compute::f32 : most->first;
}

void GqaAttention::tally(ActiveWeights& active) const {
  for (const Linear* l : {&q_proj_, &k_proj_, &v_proj_, &o_proj_}) active.always.add(*l);
}

// Of the two forms of the key projection a token meets one.
void MlaAttention::tally(ActiveWeights& active) const {
  for (const Linear* l : {&q_proj_, &q_a_proj_, &q_b_proj_, &kv_a_proj_, &o_proj_}) {
    active.always.add(*l);
  }
  for (const Linear& l : up_k_t_.empty() ? up_k_ : up_k_t_) active.always.add(l);
  for (const Linear& l : up_v_) active.always.add(l);
}

void Mlp::tally(WeightTally& weights, double share) const {
  for (const Linear* l : {&gate_proj, &up_proj, &down_proj}) weights.add(*l, share);
}

Index Mlp::read_bytes() const {
  Index n = 0;
  for (const Linear* l : {&gate_proj, &up_proj, &down_proj}) n += kogia::read_bytes(*l->w);
  return n;
}

void Moe::tally(ActiveWeights& active) const {
  active.always.add(router_);
  shared_.tally(active.always);
  const double share = static_cast<double>(config_->num_experts_per_tok) /
                       static_cast<double>(config_->n_routed_experts);
  for (const Mlp& expert : experts_) expert.tally(active.routed, share);
}

void Block::tally(ActiveWeights& active) const {
  std::visit([&](const auto& attention) { attention.tally(active); }, attention_);
  if (const Moe* moe = std::get_if<Moe>(&ffn_)) {
    moe->tally(active);
  } else {
    std::get<Mlp>(ffn_).tally(active.always);
  }
}

}  // namespace kogia
