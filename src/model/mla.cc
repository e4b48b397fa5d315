#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/attention.h"
#include "model/names.h"
#include "model/tape.h"

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
  Mat q, q_a;
  if (c.q_lora_rank > 0) {
    const auto [bottleneck, kv_a] = ops.linears<2>(u, {&q_a_proj_, &kv_a_proj_});
    q_a = bottleneck;
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
  if (ops.tape != nullptr && ops.tape->remakes_queries() && c.q_lora_rank > 0) {
    remember_queries(step, q_a, q);
  }
  return q;
}

void MlaAttention::remember_queries(const Step& step, ConstMat q_a, Mat q) const {
  Tape& tape = *step.ops.tape;
  const auto make = [this, &tape, kept = tape.keep_operand(q_a), &rope = step.rope,
                     tables = step.tables](Mat out) {
    const ConstMat x = tape.restore(kept);
    const Arena::Scope scope(tape.scratch());
    Ops again(tape.device(), tape.scratch());
    const Product product{.x = x, .l = &q_b_proj_, .y = out};
    again.run({&product, 1});
    again.rotate(heads_of(out, config_->num_attention_heads).shifted(config_->qk_nope_head_dim),
                 rope, tables);
  };
  tape.remember(q, make);
}

void MlaAttention::forward(const Step& step, ConstMat u, CacheView cache, Mat x) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  const std::span<const SequenceRows> sequences = step.batch.sequences;
  Mat kv;
  const Mat q = queries(step, u, kv);
  ops.append(cache, kv, {}, sequences);
  if (form_ == MlaForm::kAbsorbed) {
    ops.add_linear(x, absorbed(step, q, kv, cache, sequences), o_proj_);
    return;
  }
  const Mat out = ops.arena.matrix(q.rows, c.num_attention_heads * c.v_head_dim);
  if (ops.tape != nullptr) {  // all at once: sums over tokens must not depend on where texts end
    KOGIA_CHECK(form_ == MlaForm::kExpanded);
    expanded(step, q, kv, cache, sequences, out);
    ops.add_linear(x, out, o_proj_);
    return;
  }
  for (const SequenceRows& s : sequences) {  // one by one: their expanded keys take memory
    const Arena::Scope scope(ops.arena);
    if (form_ == MlaForm::kAuto && s.n_rows == 1) {
      const SequenceRows alone{
          .row_begin = 0, .n_rows = 1, .first_pos = s.first_pos, .pages = s.pages};
      const Mat row{q.row(s.row_begin), 1, q.cols, q.stride};
      const Mat one =
          absorbed(step, row, {kv.row(s.row_begin), 1, kv.cols, kv.stride}, cache, {&alone, 1});
      std::copy_n(one.data, out.cols, out.row(s.row_begin));
    } else {
      expanded(step, q, kv, cache, {&s, 1}, out);
    }
  }
  ops.add_linear(x, out, o_proj_);
}

// Per head: q_lat = q_nope W_UK;  score_t = (q_lat·c_t + q_pe·k_pe,t) · scale;  o_lat = Σ p_t c_t;
// o = W_UV o_lat. The cache is one key head of width 576 whose first 512 numbers are the values.
Mat MlaAttention::absorbed(const Step& step, Mat q, Mat kv, CacheView cache,
                           std::span<const SequenceRows> sequences) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  const Index heads = c.num_attention_heads, rank = c.kv_lora_rank, nope = c.qk_nope_head_dim;
  const Index rope = c.qk_rope_head_dim, width = rank + rope, n = q.rows;
  const Mat q_lat = ops.arena.matrix(n, heads * width);
  std::vector<Product> products(static_cast<std::size_t>(heads));
  for (Index h = 0; h < heads; ++h) {
    const auto at = static_cast<std::size_t>(h);
    products[at] = {.x = q.columns(h * (nope + rope), nope),
                    .l = &up_k_t_[at],
                    .y = q_lat.columns(h * width, rank)};
  }
  ops.run(products);
  // q_pe goes behind the latent part, row by (token, head) row.
  ops.copy({q.data + nope, n * heads, rope, nope + rope},
           {q_lat.data + rank, n * heads, rope, width});

  const Mat o_lat = ops.arena.matrix(n, heads * rank);
  ops.attention({.cache = cache,
                 .q = q_lat,
                 .k = kv,
                 .v = {},
                 .n_heads = heads,
                 .scale = scale_,
                 .keys = sequences,
                 .queries = sequences},
                o_lat);
  const Mat o = ops.arena.matrix(n, heads * c.v_head_dim);
  for (Index h = 0; h < heads; ++h) {
    const auto at = static_cast<std::size_t>(h);
    products[at] = {.x = o_lat.columns(h * rank, rank),
                    .l = &up_v_[at],
                    .y = o.columns(h * c.v_head_dim, c.v_head_dim)};
  }
  ops.run(products);
  return o;
}

namespace {

/// A cache of some sequences from their first position on, in scratch memory.
struct WholeCache {
  CacheView cache;
  std::span<SequenceRows> keys;  // all positions, end to end
};

WholeCache whole_cache(Ops& ops, const CacheSpec& spec, std::span<const SequenceRows> sequences) {
  const Index page_bytes = ops.device.cache_page_bytes(spec);
  WholeCache whole;
  whole.keys = {ops.arena.allocate<SequenceRows>(static_cast<Index>(sequences.size())),
                sequences.size()};
  Index row = 0, page = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const Index total = sequences[i].first_pos + sequences[i].n_rows;
    const Index n_pages = ceil_div(total, kPageTokens);
    std::int32_t* const pages = ops.arena.allocate<std::int32_t>(n_pages);
    std::iota(pages, pages + n_pages, static_cast<std::int32_t>(page));
    whole.keys[i] = {.row_begin = row, .n_rows = total, .first_pos = 0, .pages = pages};
    row += total;
    page += n_pages;
  }
  whole.cache = {spec, ops.arena.allocate<std::byte>(page * page_bytes), page_bytes};
  return whole;
}

/// A product of the latents for each head, side by side in y, of which each has `width` columns.
void add_up_projections(const std::vector<Linear>& heads, ConstMat latent, Mat y, Index width,
                        std::vector<Product>& products) {
  for (std::size_t h = 0; h < heads.size(); ++h) {
    const Mat of_head = y.columns(static_cast<Index>(h) * width, heads[h].w->rows());
    products.push_back({.x = latent, .l = &heads[h], .y = of_head});
  }
}

/// The one k_pe serves every head.
void spread_k_pe(Ops& ops, ConstMat k_pe, Mat k, Index heads) {
  const Index width = k.cols / heads;
  for (Index h = 0; h < heads; ++h) {
    ops.copy(k_pe, k.columns((h + 1) * width - k_pe.cols, k_pe.cols));
  }
}

}  // namespace

// The latents take less memory than the keys and values that are made of them.
void MlaAttention::remember_up_projections(Tape& tape, ConstMat latent, Mat k, Mat v) const {
  const Index heads = config_->num_attention_heads, rank = config_->kv_lora_rank;
  const auto kept = tape.keep_operand(latent.columns(0, rank));
  const auto kept_pe = tape.keep(latent.columns(rank, config_->qk_rope_head_dim));
  const auto project = [&tape, kept, heads](const std::vector<Linear>& up, Mat out) {
    std::vector<Product> products;
    add_up_projections(up, tape.restore(kept), out, out.cols / heads, products);
    const Arena::Scope scope(tape.scratch());
    Ops(tape.device(), tape.scratch()).run(products);
  };
  tape.remember(k, [this, &tape, project, kept_pe, heads](Mat out) {
    project(up_k_, out);
    const ConstMat k_pe = tape.restore(kept_pe);
    const Arena::Scope scope(tape.scratch());
    Ops again(tape.device(), tape.scratch());
    spread_k_pe(again, k_pe, out, heads);
    tape.round_as_kept(out);
  });
  tape.remember(v, [this, &tape, project](Mat out) {
    project(up_v_, out);
    tape.round_as_kept(out);
  });
}

// Keys and values of every head are made from the cached latents of the whole sequence (so that
// bits do not depend on the chunking), then attention is the plain multi-head one, 192 wide against
// 128.
void MlaAttention::expanded(const Step& step, Mat q, Mat kv, CacheView cache,
                            std::span<const SequenceRows> sequences, Mat out) const {
  Ops& ops = step.ops;
  const ModelConfig& c = *config_;
  const Index heads = c.num_attention_heads, rank = c.kv_lora_rank, nope = c.qk_nope_head_dim;
  const Index rope = c.qk_rope_head_dim, v_dim = c.v_head_dim;
  const WholeCache whole = whole_cache(
      ops, {.n_kv_heads = heads, .k_dim = nope + rope, .v_dim = v_dim, .dtype = cache.spec.dtype},
      sequences);
  Index total = 0;
  for (const SequenceRows& s : whole.keys) total += s.n_rows;
  const Mat latent = ops.arena.matrix(total, rank + rope);
  ops.cached_keys(cache, sequences, kv, latent);

  const Mat k = ops.arena.matrix(total, heads * (nope + rope)),
            v = ops.arena.matrix(total, heads * v_dim);
  std::vector<Product> products;
  add_up_projections(up_k_, latent.columns(0, rank), k, nope + rope, products);
  add_up_projections(up_v_, latent.columns(0, rank), v, v_dim, products);
  ops.run(products);
  spread_k_pe(ops, latent.columns(rank, rope), k, heads);
  if (ops.tape != nullptr && ops.tape->remakes_up_projection()) {
    remember_up_projections(*ops.tape, latent, k, v);
  }

  SequenceRows* const queries =
      ops.arena.allocate<SequenceRows>(static_cast<Index>(sequences.size()));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    queries[i] = sequences[i];
    queries[i].pages = whole.keys[i].pages;
  }
  ops.append(whole.cache, k, v, whole.keys);
  ops.attention({.cache = whole.cache,
                 .q = q,
                 .k = k,
                 .v = v,
                 .n_heads = heads,
                 .scale = scale_,
                 .keys = whole.keys,
                 .queries = {queries, sequences.size()}},
                out);
}

}  // namespace kogia
