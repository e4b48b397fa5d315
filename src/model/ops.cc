#include "model/ops.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/tape.h"
#include "model/watch.h"

namespace kogia {

RmsNormArgs rms_norm_args(ConstMat x, const Norm& norm, Mat y) {
  return {.x = x.data,
          .x_stride = x.stride,
          .weight = norm.weight.data(),
          .y = y.data,
          .y_stride = y.stride,
          .rows = x.rows,
          .n = x.cols,
          .eps = norm.eps};
}

SiluMulArgs silu_mul_args(ConstMat gate, ConstMat up, Mat y) {
  return {.gate = gate.data,
          .up = up.data,
          .y = y.data,
          .rows = y.rows,
          .n = y.cols,
          .gate_stride = gate.stride,
          .up_stride = up.stride,
          .y_stride = y.stride};
}

GatherRowsArgs gather_rows_args(ConstMat x, std::span<const std::int32_t> index, Mat y) {
  return {.x = x.data,
          .x_stride = x.stride,
          .index = index,
          .y = y.data,
          .y_stride = y.stride,
          .n = y.cols};
}

Arena& Ops::lasting() { return tape != nullptr ? tape->lasting() : arena; }

Mat Ops::embed(const Embedding& table, std::span<const std::int32_t> ids) {
  const Mat y = arena.matrix(static_cast<Index>(ids.size()), table.table->cols());
  device.embed({.table = table.table, .ids = ids, .y = y.data});
  if (tape != nullptr) tape->embed(table, ids, y);
  if (watch != nullptr) watch->made(y, "rows", table.grad);
  return y;
}

void Ops::run(std::span<const Product> products) {
  LinearArgs* const args = arena.allocate<LinearArgs>(static_cast<Index>(products.size()));
  for (std::size_t i = 0; i < products.size(); ++i) {
    const Product& p = products[i];
    args[i] = {.x = p.x.data,
               .x_stride = p.x.stride,
               .w = p.l->w.get(),
               .bias = p.l->bias.empty() ? nullptr : p.l->bias.data(),
               .residual = p.residual,
               .y = p.y.data,
               .y_stride = p.y.stride,
               .rows = p.x.rows};
  }
  device.linear({args, products.size()});
  if (tape != nullptr) tape->products(products);
  if (watch == nullptr) return;
  for (const Product& p : products) {
    watch->made(p.y, "product", p.l->trained != nullptr ? p.l->trained->grad : nullptr);
  }
}

void Ops::norm_into(ConstMat x, const Norm& norm, Mat y) {
  if (tape != nullptr) tape->rms_norm(x, norm, y);
  device.rms_norm(rms_norm_args(x, norm, y));
  if (watch != nullptr) watch->made(y, "norm", norm.grad);
}

void Ops::rotate(Heads x, const Rope& rope, const RopeTables& tables) {
  const RopeArgs args{.x = x.data,
                      .row_stride = x.row_stride,
                      .head_stride = x.head_stride,
                      .rows = x.rows,
                      .n_heads = x.n_heads,
                      .n_rot = rope.dims(),
                      .cos = tables.cos,
                      .sin = tables.sin,
                      .layout = rope.layout()};
  device.rope(args);
  if (tape != nullptr) tape->rotate(args);
}

Mat Ops::silu_mul(Mat gate, ConstMat up) {
  if (tape != nullptr) tape->silu_mul(gate, up);
  device.silu_mul(silu_mul_args(gate, up, gate));
  if (watch != nullptr) watch->made(gate, "SwiGLU");
  return gate;
}

void Ops::gather_rows(ConstMat x, std::span<const std::int32_t> index, Mat y) {
  device.gather_rows(gather_rows_args(x, index, y));
  if (tape != nullptr) tape->gather_rows(x, index, y);
}

void Ops::spread_rows(ConstMat x, std::span<const std::int32_t> index,
                      std::span<const std::int32_t> row_of, Mat y) {
  device.gather_rows(gather_rows_args(x, index, y));
  if (tape != nullptr) tape->spread_rows(x, index, row_of, y);
}

void Ops::copy(ConstMat x, Mat y) {
  std::int32_t* const every = arena.allocate<std::int32_t>(x.rows);
  std::iota(every, every + x.rows, 0);
  device.gather_rows(gather_rows_args(x, {every, static_cast<std::size_t>(x.rows)}, y));
  if (tape != nullptr) tape->copy(x, y);
}

void Ops::append(CacheView cache, ConstMat k, ConstMat v, std::span<const SequenceRows> sequences) {
  device.cache_append({.cache = cache,
                       .k = k.data,
                       .k_stride = k.stride,
                       .v = v.data,
                       .v_stride = v.stride,
                       .sequences = sequences});
}

void Ops::attention(const Attended& a, Mat out) {
  device.attention({.cache = a.cache,
                    .q = a.q.data,
                    .q_stride = a.q.stride,
                    .out = out.data,
                    .out_stride = out.stride,
                    .n_heads = a.n_heads,
                    .scale = a.scale,
                    .sequences = a.queries});
  if (tape != nullptr) tape->attention(a, out);
  if (watch != nullptr) watch->made(out, "attention");
}

void Ops::cached_keys(CacheView cache, std::span<const SequenceRows> sequences, ConstMat k, Mat y) {
  Index row = 0;
  for (const SequenceRows& s : sequences) {
    const Index n = s.first_pos + s.n_rows;
    KOGIA_CHECK(tape == nullptr || (s.first_pos == 0 && s.row_begin == row));
    device.cache_read({.cache = cache, .pages = s.pages, .n_positions = n, .k = y.row(row)});
    row += n;
  }
  if (tape != nullptr) tape->copy(k, y);
}

void Ops::route(const RouteArgs& args, Index layer, std::span<std::int32_t> first) {
  device.route(args);
  std::fill(first.begin(), first.end(), 0);
  for (Index i = 0; i < args.rows * args.top_k; ++i) {
    ++first[static_cast<std::size_t>(args.experts[i]) + 1];
  }
  for (std::size_t e = 1; e < first.size(); ++e) first[e] += first[e - 1];
  if (loads != nullptr) {
    ExpertLoad& load = loads->emplace_back(ExpertLoad{.layer = layer, .tokens = {}});
    for (std::size_t e = 1; e < first.size(); ++e) load.tokens.push_back(first[e] - first[e - 1]);
  }
  if (tape != nullptr) tape->route(args);
}

void Ops::weigh(ConstMat h, std::span<const std::int32_t> row_of, const float* weights) {
  if (tape != nullptr) tape->weigh(h, row_of, weights);
}

void Ops::combine(const CombineArgs& args) {
  device.combine(args);
  if (tape != nullptr) tape->combine(args);
  if (watch != nullptr) watch->made({args.y, args.rows, args.n, args.y_stride}, "combination");
}

}  // namespace kogia
