#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/attention.h"
#include "model/names.h"

namespace kogia {

void MlaAttention::bind(Binder& binder, const ModelConfig& c, Index layer, MlaForm form) {
  config_ = &c;
  form_ = form;
  scale_ = static_cast<float>(softmax_scale(c));
  const Index d = c.hidden_size, q = c.num_attention_heads * c.qk_head_dim();
  const LayerNames name(layer);
  // The two inner norms are built with the default epsilon of their class, whatever the config
  // says.
  constexpr double kInnerEps = 1e-6;
  if (c.q_lora_rank > 0) {
    binder.linear(name(names::kQA), c.q_lora_rank, d, q_a_proj_);
    binder.norm(name(names::kQANorm), c.q_lora_rank, q_a_norm_, kInnerEps);
    binder.linear(name(names::kQB), q, c.q_lora_rank, q_b_proj_);
  } else {
    binder.linear(name(names::kQ), q, d, q_proj_);
  }
  binder.linear(name(names::kKvA), c.kv_lora_rank + c.qk_rope_head_dim, d, kv_a_proj_);
  binder.norm(name(names::kKvANorm), c.kv_lora_rank, kv_a_norm_, kInnerEps);
  binder.linear(name(names::kO), d, c.num_attention_heads * c.v_head_dim, o_proj_);

  const auto heads = static_cast<std::size_t>(c.num_attention_heads);
  up_v_.resize(heads);
  if (form != MlaForm::kExpanded) up_k_t_.resize(heads);
  if (form != MlaForm::kAbsorbed) up_k_.resize(heads);
  const TensorName whole = name(names::kKvB);
  const TensorName split_k = name(names::kKB), split_v = name(names::kVB);
  const Index h = c.num_attention_heads, nope = c.qk_nope_head_dim, v = c.v_head_dim,
              r = c.kv_lora_rank;
  const bool is_split = binder.gguf() && !binder.has(whole);
  for (Index i = 0; i < h; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (is_split) {  // k_b holds W_UKᵀ already
      if (!up_k_t_.empty()) binder.slice(split_k, {h, r, nope}, {i * r, r}, false, up_k_t_[at]);
      if (!up_k_.empty()) binder.slice(split_k, {h, r, nope}, {i * r, r}, true, up_k_[at]);
      binder.slice(split_v, {h, v, r}, {i * v, v}, false, up_v_[at]);
    } else {  // per head: nope rows of keys, then v rows of values
      const std::vector<Index> shape = {h * (nope + v), r};
      const RowSlice k_rows{i * (nope + v), nope}, v_rows{i * (nope + v) + nope, v};
      if (!up_k_t_.empty()) binder.slice(whole, shape, k_rows, true, up_k_t_[at]);
      if (!up_k_.empty()) binder.slice(whole, shape, k_rows, false, up_k_[at]);
      binder.slice(whole, shape, v_rows, false, up_v_[at]);
    }
  }
  if (!is_split && binder.gguf()) {  // files of the experimental branch carry both forms
    binder.ignore(split_k.gguf + ".weight");
    binder.ignore(split_v.gguf + ".weight");
  }
}

// q = u W_q (through the low-rank bottleneck where there is one), [c′; k_pe] = u W_kv_a.
// Rotates q_pe of every head and the one k_pe; c = RMSNorm(c′). k_pe is not normalised.
Mat MlaAttention::queries(const Step& step, ConstMat u, Mat& kv) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  Mat q;
  if (c.q_lora_rank > 0) {
    const auto [q_a, kv_a] = ops.linears<2>(u, {&q_a_proj_, &kv_a_proj_});
    ops.rms_norm_in_place(q_a, q_a_norm_);
    q = ops.linear(q_a, q_b_proj_);
    kv = kv_a;
  } else {
    const auto [direct, kv_a] = ops.linears<2>(u, {&q_proj_, &kv_a_proj_});
    q = direct;
    kv = kv_a;
  }
  ops.rms_norm_in_place(kv.columns(0, c.kv_lora_rank), kv_a_norm_);
  ops.rotate(heads_of(q, c.num_attention_heads).shifted(c.qk_nope_head_dim), step.rope,
             step.tables);
  ops.rotate({kv.data + c.kv_lora_rank, kv.rows, 1, kv.stride, 0}, step.rope, step.tables);
  return q;
}

void MlaAttention::forward(const Step& step, ConstMat u, CacheView cache, Mat x) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  Mat kv;
  const Mat q = queries(step, u, kv);
  ops.device.cache_append(
      {.cache = cache, .k = kv.data, .k_stride = kv.stride, .sequences = step.batch.sequences});
  if (form_ == MlaForm::kAbsorbed) {
    ops.add_linear(x, absorbed(step, q, cache, step.batch.sequences), o_proj_);
    return;
  }
  const Mat out = ops.arena.matrix(q.rows, c.num_attention_heads * c.v_head_dim);
  for (const SequenceRows& s : step.batch.sequences) {
    const Arena::Scope scope(ops.arena);
    if (form_ == MlaForm::kAuto && s.n_rows == 1) {
      const SequenceRows alone{
          .row_begin = 0, .n_rows = 1, .first_pos = s.first_pos, .pages = s.pages};
      const Mat one = absorbed(step, {q.row(s.row_begin), 1, q.cols, q.stride}, cache, {&alone, 1});
      std::copy_n(one.data, out.cols, out.row(s.row_begin));
    } else {
      expanded(step, q, cache, s, out);
    }
  }
  ops.add_linear(x, out, o_proj_);
}

// Per head: q_lat = q_nope W_UK;  score_t = (q_lat·c_t + q_pe·k_pe,t) · scale;  o_lat = Σ p_t c_t;
// o = W_UV o_lat. The cache is one key head of width 576 whose first 512 numbers are the values.
Mat MlaAttention::absorbed(const Step& step, Mat q, CacheView cache,
                           std::span<const SequenceRows> sequences) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  const Index heads = c.num_attention_heads, rank = c.kv_lora_rank, nope = c.qk_nope_head_dim;
  const Index rope = c.qk_rope_head_dim, width = rank + rope, n = q.rows;
  const Mat q_lat = ops.arena.matrix(n, heads * width);
  std::vector<LinearArgs> products(static_cast<std::size_t>(heads));
  for (Index h = 0; h < heads; ++h) {
    products[static_cast<std::size_t>(h)] =
        Ops::product(q.columns(h * (nope + rope), nope), up_k_t_[static_cast<std::size_t>(h)],
                     q_lat.columns(h * width, rank));
  }
  ops.device.linear(products);
  // q_pe goes behind the latent part, row by (token, head) row.
  std::int32_t* const every = ops.arena.allocate<std::int32_t>(n * heads);
  std::iota(every, every + n * heads, 0);
  ops.gather_rows({q.data + nope, n * heads, rope, nope + rope},
                  {every, static_cast<std::size_t>(n * heads)},
                  {q_lat.data + rank, n * heads, rope, width});

  const Mat o_lat = ops.arena.matrix(n, heads * rank);
  ops.device.attention({.cache = cache,
                        .q = q_lat.data,
                        .q_stride = q_lat.stride,
                        .out = o_lat.data,
                        .out_stride = o_lat.stride,
                        .n_heads = heads,
                        .scale = scale_,
                        .sequences = sequences});
  const Mat o = ops.arena.matrix(n, heads * c.v_head_dim);
  for (Index h = 0; h < heads; ++h) {
    products[static_cast<std::size_t>(h)] =
        Ops::product(o_lat.columns(h * rank, rank), up_v_[static_cast<std::size_t>(h)],
                     o.columns(h * c.v_head_dim, c.v_head_dim));
  }
  ops.device.linear(products);
  return o;
}

// Keys and values of every head are made from the cached latents of the whole sequence (so that
// bits do not depend on the chunking), then attention is the plain multi-head one, 192 wide against
// 128.
void MlaAttention::expanded(const Step& step, Mat q, CacheView cache, const SequenceRows& s,
                            Mat out) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  const Index heads = c.num_attention_heads, rank = c.kv_lora_rank, nope = c.qk_nope_head_dim;
  const Index rope = c.qk_rope_head_dim, v_dim = c.v_head_dim, total = s.first_pos + s.n_rows;
  const Mat latent = ops.arena.matrix(total, rank + rope);
  ops.device.cache_read({.cache = cache, .pages = s.pages, .n_positions = total, .k = latent.data});

  const Mat k = ops.arena.matrix(total, heads * (nope + rope)),
            v = ops.arena.matrix(total, heads * v_dim);
  std::vector<LinearArgs> products;
  for (Index h = 0; h < heads; ++h) {
    const auto at = static_cast<std::size_t>(h);
    products.push_back(
        Ops::product(latent.columns(0, rank), up_k_[at], k.columns(h * (nope + rope), nope)));
    products.push_back(
        Ops::product(latent.columns(0, rank), up_v_[at], v.columns(h * v_dim, v_dim)));
  }
  ops.device.linear(products);
  std::int32_t* const every = ops.arena.allocate<std::int32_t>(total);
  std::iota(every, every + total, 0);
  for (Index h = 0; h < heads; ++h) {  // the one k_pe serves every head
    ops.gather_rows(latent.columns(rank, rope), {every, static_cast<std::size_t>(total)},
                    k.columns(h * (nope + rope) + nope, rope));
  }

  const CacheSpec spec{
      .n_kv_heads = heads, .k_dim = nope + rope, .v_dim = v_dim, .dtype = cache.spec.dtype};
  const Index n_pages = ceil_div(total, kPageTokens),
              page_bytes = ops.device.cache_page_bytes(spec);
  const CacheView full{spec, ops.arena.allocate<std::byte>(n_pages * page_bytes), page_bytes};
  std::int32_t* const pages = ops.arena.allocate<std::int32_t>(n_pages);
  std::iota(pages, pages + n_pages, 0);
  const SequenceRows everything{.row_begin = 0, .n_rows = total, .first_pos = 0, .pages = pages};
  ops.device.cache_append({.cache = full,
                           .k = k.data,
                           .k_stride = k.stride,
                           .v = v.data,
                           .v_stride = v.stride,
                           .sequences = {&everything, 1}});
  const SequenceRows rows{
      .row_begin = s.row_begin, .n_rows = s.n_rows, .first_pos = s.first_pos, .pages = pages};
  ops.device.attention({.cache = full,
                        .q = q.data,
                        .q_stride = q.stride,
                        .out = out.data,
                        .out_stride = out.stride,
                        .n_heads = heads,
                        .scale = scale_,
                        .sequences = {&rows, 1}});
}

}  // namespace kogia
