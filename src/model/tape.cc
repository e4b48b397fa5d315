#include "model/tape.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "model/tape_rows.h"
#include "model/watch.h"

namespace kogia {
namespace {

/// The gradient of the values that m shows: see Tape.
Mat grad(ConstMat m) { return {const_cast<float*>(m.data), m.rows, m.cols, m.stride}; }

/// to += from, and from becomes zeros.
void move_into(Device& device, Mat from, Mat to) {
  device.add({.x = from.data,
              .x_stride = from.stride,
              .y = to.data,
              .y_stride = to.stride,
              .rows = from.rows,
              .n = from.cols});
  clear(device, from);
}

}  // namespace

// ---------------------------------------------------------------------------------------------------
// What is kept

void Tape::begin(Arena& arena) {
  arena_ = &arena;
  nodes_.clear();
  keeps_.clear();
  known_.clear();
  made_.clear();
  kept_.reset();
  lasting_.reset();
  balance_loss_ = 0;
}

void Tape::set_rows(std::span<const Index> begins, std::span<const SequenceRows> sequences,
                    Index n_rows, float row_weight) {
  n_rows_ = n_rows;
  row_weight_ = row_weight;
  sequences_ = std::make_shared<const Sequences>(sequences.begin(), sequences.end());
  packed_row_.assign(static_cast<std::size_t>(n_rows), 0);
  Blocks blocks;
  for (std::size_t i = 0; i < begins.size(); ++i) {
    const Index end = i + 1 < begins.size() ? begins[i + 1] : n_rows;
    KOGIA_CHECK(begins[i] <= end);
    std::fill(packed_row_.begin() + begins[i], packed_row_.begin() + end,
              static_cast<std::int32_t>(i));
    for (Index at = begins[i]; at < end; at += kTokenBlock) {
      blocks.push_back({at, std::min(kTokenBlock, end - at)});
    }
  }
  blocks_ = std::make_shared<const Blocks>(std::move(blocks));
}

// Rows sorted by expert keep the order of the batch, so those of a packed row stand together.
Tape::Blocks Tape::blocks_of(std::span<const std::int32_t> tokens) const {
  Blocks blocks;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto row_of = [&](std::size_t r) {
      return packed_row_[static_cast<std::size_t>(tokens[r])];
    };
    if (i == 0 || row_of(i) != row_of(i - 1) || blocks.back().n == kTokenBlock) {
      blocks.push_back({static_cast<Index>(i), 0});
    }
    ++blocks.back().n;
  }
  return blocks;
}

// Of a matrix with several rows a token (heads).
std::shared_ptr<const Tape::Blocks> Tape::scaled_blocks(Index rows) const {
  Blocks blocks;
  const Index each = n_rows_ == 0 ? 0 : rows / n_rows_;
  KOGIA_CHECK(each * n_rows_ == rows);
  for (const TokenBlock& b : *blocks_) {
    for (Index at = 0; at < b.n * each; at += kTokenBlock) {
      blocks.push_back({b.begin * each + at, std::min(kTokenBlock, b.n * each - at)});
    }
  }
  return std::make_shared<const Blocks>(std::move(blocks));
}

void Tape::record(const char* op, const float* grad, std::function<void()> run) {
  const float* const before = nodes_.empty() ? nullptr : nodes_.back().near;
  nodes_.push_back({op, grad != nullptr ? grad : before, std::move(run)});
}

bool Tape::finite() const {
  const std::vector<std::span<std::byte>> parts = arena_->touched();
  return std::all_of(parts.begin(), parts.end(), [](std::span<std::byte> part) {
    return all_finite(reinterpret_cast<const float*>(part.data()),
                      static_cast<Index>(part.size() / sizeof(float)));
  });
}

void Tape::clear_arena() {
  constexpr Index kPiece = Index{1} << 18;
  for (const std::span<std::byte> part : arena_->touched()) {
    const auto n = static_cast<Index>(part.size());
    device_.parallel(ceil_div(n, kPiece), [&](Index i) {
      const Index begin = i * kPiece;
      std::memset(part.data() + begin, 0, static_cast<std::size_t>(std::min(kPiece, n - begin)));
    });
  }
}

void Tape::backward(Watch* watch) {
  clear_arena();
  for (std::size_t i = nodes_.size(); i-- > 0;) {
    const Node& node = nodes_[i];
    node.run();
    forget_made(i);
    if (watch != nullptr && !watch->found() && !finite()) watch->made_gradient(node.op, node.near);
  }
  nodes_.clear();
  if (watch != nullptr) watch->look_at_gradients();
}

// ---------------------------------------------------------------------------------------------------
// Operations

Mat Tape::early_gradient(ConstMat m) {
  const Mat early = lasting_.matrix(m.rows, m.cols);
  record("loss", nullptr, [this, early, dm = grad(m)] { move_into(device_, early, dm); });
  return early;
}

void Tape::embed(const Embedding& table, std::span<const std::int32_t> ids, Mat y) {
  overwritten(y);
  const auto kept = keep_ids(ids);
  record("embedding", table.grad, [this, &table, kept, y] {
    const Mat dy = grad(y);
    if (table.grad != nullptr) {
      device_.embed_vjp({.ids = kept,
                         .dy = dy.data,
                         .dy_stride = dy.stride,
                         .cols = dy.cols,
                         .dtable = table.grad});
    }
    clear(device_, dy);
  });
}

namespace {

/// Gradients of inputs. Products that read one x add to it one after the other.
void products_to_inputs(Device& device, std::span<const Tape::Recorded> products) {
  std::vector<std::vector<LinearArgs>> waves;
  std::unordered_map<const float*, std::size_t> uses;
  for (const Tape::Recorded& p : products) {
    if (p.dx.rows == 0) continue;
    const std::size_t wave = uses[p.dx.data]++;
    if (waves.size() <= wave) waves.resize(wave + 1);
    waves[wave].push_back({.x = p.dy.data,
                           .x_stride = p.dy.stride,
                           .w = p.l->trained->transposed.get(),
                           .residual = p.dx.data,
                           .y = p.dx.data,
                           .y_stride = p.dx.stride,
                           .rows = p.dx.rows});
  }
  for (const std::vector<LinearArgs>& wave : waves) device.linear(wave);
}

LinearWgradArgs to_weights(const Tape::Recorded& p, ConstMat x, ConstMat dy) {
  const TrainedMatrix& t = *p.l->trained;
  LinearWgradArgs args{.x = x.data,
                       .x_stride = x.stride,
                       .dy = dy.data,
                       .dy_stride = dy.stride,
                       .n = dy.cols,
                       .cols = x.cols,
                       .blocks = *p.blocks,
                       .dw = t.grad,
                       .dw_stride = t.stride,
                       .db = t.bias_grad};
  if (t.packed_transposed) {  // what is stored is the transpose: so is its gradient
    std::swap(args.x, args.dy);
    std::swap(args.x_stride, args.dy_stride);
    std::swap(args.n, args.cols);
  }
  return args;
}

}  // namespace

Mat Tape::round_fp8(ConstMat x, std::span<const TokenBlock> blocks, Mat y) {
  if (x.rows == 0) return y;
  device_.fp8({.x = x.data,
               .x_stride = x.stride,
               .rows = x.rows,
               .cols = x.cols,
               .blocks = blocks,
               .y = y.data,
               .y_stride = y.stride});
  return y;
}

void Tape::products(std::span<const Product> products) {
  std::vector<Recorded> recorded;
  const Product* before = nullptr;  // gate and up of an expert have their rows together
  for (const Product& p : products) {
    KOGIA_CHECK(p.l->trained != nullptr);
    KOGIA_CHECK(p.residual == nullptr || p.residual == p.y.data);
    const bool fp8 = p.l->w->compute() == Compute::fp8;
    const bool same_rows = before != nullptr && before->x.data == p.x.data &&
                           before->x.rows == p.x.rows && before->tokens.data() == p.tokens.data();
    recorded.push_back({.l = p.l,
                        .fp8 = fp8,
                        .x = fp8 ? keep_operand(p.x) : keep(p.x),
                        .dx = grad(p.x),
                        .dy = grad(p.y),
                        .clears = p.residual == nullptr,
                        .blocks = same_rows ? recorded.back().blocks
                                  : p.tokens.empty()
                                      ? blocks_
                                      : std::make_shared<const Blocks>(blocks_of(p.tokens))});
    before = &p;
  }
  for (const Product& p : products) overwritten(p.y);
  const float* const first = recorded.empty() ? nullptr : recorded.front().l->trained->grad;
  record("product", first, [this, recorded = std::move(recorded)] {
    gradients_of_weights(recorded);
    gradients_of_inputs(recorded);
    for (const Recorded& p : recorded) {
      if (p.clears) clear(device_, p.dy);
    }
  });
}

// For the sum over tokens, FP8's tiles run along the tokens. Copies rounded so are made for some
// products at a time.
void Tape::gradients_of_weights(std::span<const Recorded> products) {
  constexpr Index kRoundedBytes = Index{8} << 20;
  for (std::size_t i = 0; i < products.size();) {
    const Arena::Scope scope(scratch_);
    const Index begin = scratch_.used_bytes();
    std::vector<LinearWgradArgs> weights;
    ConstMat of{}, rounded_x{};  // the x before, and what became of it
    for (; i < products.size() && scratch_.used_bytes() - begin < kRoundedBytes; ++i) {
      const Recorded& p = products[i];
      const ConstMat x = restore(p.x);
      if (!p.fp8) {
        weights.push_back(to_weights(p, x, p.dy));
        continue;
      }
      if (of.data == nullptr || x.data != of.data || x.rows != of.rows ||
          p.blocks != products[i - 1].blocks) {
        of = x, rounded_x = round_fp8(x, *p.blocks, scratch_.matrix(x.rows, x.cols));
      }
      const Mat dy = round_fp8(p.dy, *p.blocks, scratch_.matrix(p.dy.rows, p.dy.cols));
      weights.push_back(to_weights(p, rounded_x, dy));
    }
    device_.linear_wgrad(weights);
  }
}

// For the sum over outputs, FP8's tiles run along these. What is cleared next is rounded where it
// is.
void Tape::gradients_of_inputs(std::span<const Recorded> products) {
  const Arena::Scope scope(scratch_);
  std::vector<Recorded> rounded(products.begin(), products.end());
  for (Recorded& p : rounded) {
    if (!p.fp8) continue;
    p.dy = round_fp8(p.dy, {}, p.clears ? p.dy : scratch_.matrix(p.dy.rows, p.dy.cols));
  }
  products_to_inputs(device_, rounded);
}

void Tape::rms_norm(ConstMat x, const Norm& norm, Mat y) {
  const Part input = keep(x);
  const bool in_place = x.data == y.data;
  const auto blocks = x.rows == n_rows_ ? blocks_ : scaled_blocks(x.rows);
  overwritten(y);
  const auto make = [this, input, &norm](Mat out) {
    device_.rms_norm(rms_norm_args(restore(input), norm, out));
  };
  if (remakes_norms()) remember(y, make);
  const Mat dx = grad(x), dy = grad(y);
  record("norm", norm.grad, [this, input, &norm, dx, dy, in_place, blocks] {
    const ConstMat in = restore(input);
    device_.rms_norm_vjp({.x = in.data,
                          .x_stride = in.stride,
                          .weight = norm.weight.data(),
                          .dy = dy.data,
                          .dy_stride = dy.stride,
                          .dx = dx.data,
                          .dx_stride = dx.stride,
                          .accumulate = !in_place,
                          .rows = in.rows,
                          .n = in.cols,
                          .eps = norm.eps,
                          .blocks = *blocks,
                          .dweight = norm.grad});
    if (!in_place) clear(device_, dy);
  });
}

void Tape::rotate(const RopeArgs& args) {
  const Index last = args.n_heads > 0 ? (args.n_heads - 1) * args.head_stride + args.n_rot : 0;
  overwritten({args.x, args.rows, last, args.row_stride});
  RopeArgs back = args;
  back.inverse = !args.inverse;
  record("rotation", nullptr, [this, back] { device_.rope(back); });
}

void Tape::silu_mul(Mat gate, ConstMat up) {
  const Part kept_gate = keep_operand(gate), kept_up = keep_operand(up);
  overwritten(gate);
  const auto make = [this, kept_gate, kept_up](Mat out) {
    restore(kept_gate, out);
    device_.silu_mul(silu_mul_args(out, restore(kept_up), out));
  };
  if (options_.recompute_swiglu || options_.keeping != Keeping::kF32) remember(gate, make);
  const Mat dgate = grad(gate), dup = grad(up);
  record("SwiGLU", nullptr, [this, kept_gate, kept_up, dgate, dup] {
    const ConstMat g = restore(kept_gate), u = restore(kept_up);
    device_.silu_mul_vjp({.gate = g.data,
                          .up = u.data,
                          .dh = dgate.data,  // it stands where dgate will
                          .dgate = dgate.data,
                          .dup = dup.data,
                          .rows = g.rows,
                          .n = g.cols,
                          .gate_stride = g.stride,
                          .up_stride = u.stride,
                          .dh_stride = dgate.stride,
                          .dgate_stride = dgate.stride,
                          .dup_stride = dup.stride});
  });
}

void Tape::gather_rows(ConstMat x, std::span<const std::int32_t> index, Mat y) {
  overwritten(y);
  const auto kept = keep_ids(index);
  const Mat dx = grad(x), dy = grad(y);
  record("choice of rows", nullptr, [this, kept, dx, dy] {
    for_each_row(device_, dy.rows, dy.cols, [&](Index i) {
      float* const to = dx.row(kept[static_cast<std::size_t>(i)]);
      const float* const from = dy.row(i);
      for (Index c = 0; c < dy.cols; ++c) to[c] += from[c];
    });
    clear(device_, dy);
  });
}

void Tape::spread_rows(ConstMat x, std::span<const std::int32_t> index,
                       std::span<const std::int32_t> row_of, Mat y) {
  const Part input = keep(x);
  overwritten(y);
  const auto kept = keep_ids(index), kept_row_of = keep_ids(row_of);
  const auto make = [this, input, kept](Mat out) {
    device_.gather_rows(gather_rows_args(restore(input), kept, out));
  };
  if (remakes_norms()) remember(y, make);
  const Mat dx = grad(x), dy = grad(y);
  const Index top_k = static_cast<Index>(row_of.size()) / std::max<Index>(1, x.rows);
  record("dispatch", nullptr, [this, kept_row_of, top_k, dx, dy] {
    const std::vector<float> ones(kept_row_of.size(), 1.0f);
    device_.combine({.expert_rows = dy.data,
                     .expert_stride = dy.stride,
                     .row_of = kept_row_of,
                     .weights = ones.data(),
                     .rows = dx.rows,
                     .top_k = top_k,
                     .n = dx.cols,
                     .y = dx.data,
                     .y_stride = dx.stride});
    clear(device_, dy);
  });
}

void Tape::copy(ConstMat x, Mat y) {
  overwritten(y);
  const Mat dx = grad(x), dy = grad(y);
  record("copy", nullptr, [this, dx, dy] { move_into(device_, dy, dx); });
}

void Tape::attention(const Attended& a, Mat out) {
  const bool latent = a.v.data == nullptr;
  const CacheSpec& spec = a.cache.spec;
  const Part q = keep(a.q), k = keep(a.k);
  const Part v = latent ? k : keep(a.v);
  overwritten(out);
  const Mat dq = grad(a.q), dk = grad(a.k), dout = grad(out);
  const Mat dv = latent ? dk : grad(a.v);
  const std::vector<SequenceRows> sequences(a.keys.begin(), a.keys.end());
  for (const SequenceRows& s : sequences) KOGIA_CHECK(s.first_pos == 0);
  record("attention", nullptr,
         [=, this, n_heads = a.n_heads, scale = a.scale, sequences = std::move(sequences)] {
           const ConstMat kept_q = restore(q), kept_k = restore(k), kept_v = restore(v);
           const Arena::Scope scope(scratch_);
           // The gradients have the strides of the values, and these were kept without gaps.
           const auto gradient_of = [&](ConstMat kept) {
             const Mat d = scratch_.matrix(kept.rows, kept.cols);
             clear(device_, d);
             return d;
           };
           const bool own_q = dq.stride != kept_q.stride, own_k = dk.stride != kept_k.stride;
           const bool own_v = !latent && dv.stride != kept_v.stride;
           const Mat to_q = own_q ? gradient_of(kept_q) : dq,
                     to_k = own_k ? gradient_of(kept_k) : dk;
           const Mat to_v = latent ? to_k : own_v ? gradient_of(kept_v) : dv;
           device_.attention_vjp({.q = kept_q.data,
                                  .q_stride = kept_q.stride,
                                  .k = kept_k.data,
                                  .k_stride = kept_k.stride,
                                  .v = kept_v.data,
                                  .v_stride = kept_v.stride,
                                  .dout = dout.data,
                                  .dout_stride = dout.stride,
                                  .dq = to_q.data,
                                  .dk = to_k.data,
                                  .dv = to_v.data,
                                  .n_heads = n_heads,
                                  .n_kv_heads = spec.n_kv_heads,
                                  .k_dim = spec.k_dim,
                                  .v_dim = latent ? spec.latent_v_dim : spec.v_dim,
                                  .scale = scale,
                                  .sequences = sequences});
           if (own_q) move_into(device_, to_q, dq);
           if (own_k) move_into(device_, to_k, dk);
           if (own_v) move_into(device_, to_v, dv);
           clear(device_, dout);
         });
}

void Tape::route(const RouteArgs& args) {
  const Index n = args.rows * args.top_k;
  const ConstMat logits{args.logits, args.rows, args.n_experts};
  const Part kept_logits = keep_exact(logits);
  const auto experts = keep_ids({args.experts, static_cast<std::size_t>(n)});
  const Mat weights{args.weights, 1, n};
  overwritten(weights);
  const Mat dlogits = grad(logits), dweights = grad(weights);
  RouteVjpArgs back{.experts = experts.data(),
                    .rows = args.rows,
                    .n_experts = args.n_experts,
                    .top_k = args.top_k,
                    .score = args.score,
                    .normalise = args.normalise,
                    .scale = args.scale,
                    .dweights = dweights.data,
                    .dlogits = dlogits.data};
  record("router", nullptr, [this, kept_logits, back, dweights]() mutable {
    back.logits = restore(kept_logits).data;
    device_.route_vjp(back);
    clear(device_, dweights);
  });
  balance(args, kept_logits, dlogits);
}

// Each text counts by its rows, so that the sum over micro-batches is the mean over the batch.
void Tape::balance(const RouteArgs& args, Part logits, Mat dlogits) {
  const auto add = [&](float alpha, std::shared_ptr<const Sequences> sequences) {
    if (alpha == 0) return;
    std::vector<float> dloss, loss(sequences->size());
    for (const SequenceRows& s : *sequences) {
      dloss.push_back(static_cast<float>(s.n_rows) * row_weight_);
    }
    BalanceLossArgs balance{.logits = args.logits,
                            .n_experts = args.n_experts,
                            .top_k = args.top_k,
                            .score = args.score,
                            .sequences = *sequences,
                            .alpha = alpha,
                            .loss = loss.data()};
    device_.balance_loss(balance);
    for (std::size_t i = 0; i < loss.size(); ++i) {
      balance_loss_ += static_cast<double>(loss[i]) * static_cast<double>(dloss[i]);
    }
    balance.dlogits = dlogits.data;
    record("balance loss", nullptr, [=, this, dloss = std::move(dloss)]() mutable {
      std::vector<float> unused(sequences->size());
      balance.logits = restore(logits).data;
      balance.dloss = dloss.data();
      balance.loss = unused.data();
      device_.balance_loss(balance);
    });
  };
  add(options_.sequence_loss, sequences_);
  SequenceRows all;
  all.n_rows = n_rows_;
  add(options_.batch_loss, std::make_shared<const Sequences>(1, all));
}

namespace {

/// In a fixed order, whatever the machine.
float dot(const float* x, const float* y, Index n) {
  constexpr Index kLanes = 16;
  float sums[kLanes] = {};
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (Index l = 0; l < kLanes; ++l) sums[l] += x[i + l] * y[i + l];
  }
  for (; i < n; ++i) sums[i % kLanes] += x[i] * y[i];
  return std::accumulate(sums, sums + kLanes, 0.0F);
}

}  // namespace

// y = Σ w W h, so that ∂L/∂h = w Wᵀ ∂L/∂y and ∂L/∂w = ∂L/∂y · W h = ∂L/∂h · h / w: what the product
// gave need not be kept. Where w is nothing, the scores before it have no gradient either.
void Tape::weigh(ConstMat h, std::span<const std::int32_t> row_of, const float* weights) {
  const auto n = static_cast<Index>(row_of.size());
  const ConstMat w{weights, 1, n};
  const Part kept_h = keep_operand(h), kept_weights = keep_exact(w);
  const auto rows = keep_ids(row_of);
  const Mat dh = grad(h), dw = grad(w);
  record("experts' weights", nullptr, [this, kept_h, kept_weights, rows, dh, dw] {
    const ConstMat kept = restore(kept_h);
    const float* const by = restore(kept_weights).data;
    for_each_row(device_, dw.cols, dh.cols, [&](Index slot) {
      const Index row = rows[static_cast<std::size_t>(slot)];
      if (by[slot] == 0) return;
      dw.data[slot] += dot(dh.row(row), kept.row(row), dh.cols) / by[slot];
    });
  });
}

void Tape::combine(const CombineArgs& args) {
  const Index n = static_cast<Index>(args.row_of.size());
  const ConstMat rows{args.expert_rows, n, args.n, args.expert_stride};
  const Part kept_weights = keep_exact({args.weights, 1, n});
  const Mat y{args.y, args.rows, args.n, args.y_stride};
  overwritten(y);
  const auto row_of = keep_ids(args.row_of);
  const Mat drows = grad(rows), dy = grad(y);
  record("combination", nullptr, [this, kept_weights, row_of, drows, dy, top_k = args.top_k] {
    device_.combine_vjp({.row_of = row_of,
                         .weights = restore(kept_weights).data,
                         .rows = dy.rows,
                         .top_k = top_k,
                         .n = dy.cols,
                         .dy = dy.data,
                         .dy_stride = dy.stride,
                         .dexpert_rows = drows.data,
                         .expert_stride = drows.stride});
  });  // dy stays: y was added to
}

}  // namespace kogia
