#include "device/cpu/gradients.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "device/cpu/row_slices.h"
#include "device/reference/gradients.h"

namespace kogia {
namespace {

// Multiply-adds that one thread does while another would be waking up.
constexpr Index kSmallWork = 1 << 17;
// Numbers of a partial sum of squares: part of its arithmetic.
constexpr Index kSquares = 4096;

void check_blocks(std::span<const TokenBlock> blocks) {
  for (const TokenBlock& b : blocks) KOGIA_CHECK(b.begin >= 0 && b.n >= 0 && b.n <= kTokenBlock);
}

// Outputs [first, first + n) of a product.
WgradTile make_tile(const LinearWgradArgs& a, Index first, Index n) {
  return {.x = a.x,
          .x_stride = a.x_stride,
          .dy = a.dy + first,
          .dy_stride = a.dy_stride,
          .n = n,
          .cols = a.cols,
          .blocks = a.blocks.data(),
          .n_blocks = static_cast<Index>(a.blocks.size()),
          .dw = a.dw + first * a.dw_stride,
          .dw_stride = a.dw_stride,
          .db = a.db == nullptr ? nullptr : a.db + first};
}

Index n_tokens(std::span<const TokenBlock> blocks) {
  Index n = 0;
  for (const TokenBlock& b : blocks) n += b.n;
  return n;
}

// Outputs of a task: it copies its tokens' x once for all of them, and their dw is to stay in the
// second-level cache.
constexpr Index kMostOutputs = 192;
// Products for each thread from which on they need not be cut into equal shares.
constexpr Index kManyTasks = 4;

}  // namespace

void CpuGradients::linear_wgrad(std::span<const LinearWgradArgs> products, ThreadPool& pool) {
  Index total = 0;
  for (const LinearWgradArgs& a : products) {
    KOGIA_CHECK(a.n >= 0 && a.cols >= 0);
    check_blocks(a.blocks);
    total += n_tokens(a.blocks) * a.n * a.cols;
  }
  const bool alone = total < kSmallWork || pool.n_threads() == 1;
  const bool few = static_cast<Index>(products.size()) < kManyTasks * pool.n_threads();
  wgrad_tiles_.clear();
  Index floats = 0;
  for (const LinearWgradArgs& a : products) {
    if (a.n == 0 || a.cols == 0 || n_tokens(a.blocks) == 0) continue;
    Index pieces = ceil_div(a.n, kMostOutputs);
    if (few && !alone) pieces = round_up(pieces, pool.n_threads());
    const Index step = round_up(ceil_div(a.n, pieces), 16);
    for (Index first = 0; first < a.n; first += step) {
      wgrad_tiles_.push_back(make_tile(a, first, std::min(step, a.n - first)));
      floats = std::max(floats, wgrad_tiles_.back().scratch_floats());
    }
  }
  scratch_.reset();
  float* memory = scratch_.allocate<float>(floats * (alone ? 1 : pool.n_threads()));
  const auto run_tile = [&](Index i, int thread) {
    kernels_.linear_wgrad(wgrad_tiles_[static_cast<std::size_t>(i)], memory + thread * floats);
  };
  const Index n = static_cast<Index>(wgrad_tiles_.size());
  if (alone) {
    for (Index i = 0; i < n; ++i) run_tile(i, 0);
  } else {
    pool.run(n, std::ref(run_tile));
  }
}

// A task is a block, with a partial sum of its own for dweight, or the rows between two blocks.
void CpuGradients::rms_norm_vjp(const RmsNormVjpArgs& args, ThreadPool& pool) {
  KOGIA_CHECK(args.rows >= 0 && args.n > 0);
  if (args.dweight == nullptr) {
    for_rows(pool, args.rows, 2 * args.n,
             [&](Index begin, Index end) { kernels_.rms_norm_vjp(args, begin, end, nullptr); });
    return;
  }
  check_blocks(args.blocks);
  const Index n = args.n, n_blocks = static_cast<Index>(args.blocks.size());
  scratch_.reset();
  float* sums = scratch_.allocate<float>(n_blocks * n);
  // Block i and the rows before it; the last "block" is what is left.
  const auto run_block = [&](Index i, int) {
    const auto at = static_cast<std::size_t>(i);
    const Index before = i == 0 ? 0 : args.blocks[at - 1].begin + args.blocks[at - 1].n;
    const Index begin = i == n_blocks ? args.rows : args.blocks[at].begin;
    KOGIA_CHECK(before <= begin);
    if (before < begin) kernels_.rms_norm_vjp(args, before, begin, nullptr);
    if (i == n_blocks) return;
    const Index end = begin + args.blocks[at].n;
    KOGIA_CHECK(end <= args.rows);
    std::fill_n(sums + i * n, n, 0.0F);
    kernels_.rms_norm_vjp(args, begin, end, sums + i * n);
  };
  if (args.rows * n <= kSmallFloats) {
    for (Index i = 0; i <= n_blocks; ++i) run_block(i, 0);
  } else {
    pool.run(n_blocks + 1, std::ref(run_block));
  }
  for (Index i = 0; i < n_blocks; ++i) {
    kernels_.add({.x = sums + i * n, .y = args.dweight, .rows = 1, .n = n});
  }
}

void CpuGradients::silu_mul_vjp(const SiluMulVjpArgs& args, ThreadPool& pool) {
  KOGIA_CHECK(args.rows >= 0 && args.n >= 0);
  for_rows(pool, args.rows, 8 * args.n, [&](Index begin, Index end) {
    SiluMulVjpArgs a = args;
    a.gate += begin * a.gate_stride;
    a.up += begin * a.up_stride;
    a.dh += begin * a.dh_stride;
    a.dgate += begin * a.dgate_stride;
    a.dup += begin * a.dup_stride;
    a.rows = end - begin;
    kernels_.silu_mul_vjp(a);
  });
}

// A task is a sequence and a key head; the longest sequences go first.
void CpuGradients::attention_vjp(const AttentionVjpArgs& a, ThreadPool& pool) {
  KOGIA_CHECK(a.n_kv_heads > 0 && a.n_heads > 0 && a.n_heads % a.n_kv_heads == 0);
  KOGIA_CHECK(a.k_dim > 0 && a.v_dim > 0);
  const bool latent = a.v == a.k;
  KOGIA_CHECK(latent == (a.dv == a.dk));
  KOGIA_CHECK(!latent || (a.n_kv_heads == 1 && a.v_dim <= a.k_dim && a.v_stride == a.k_stride));
  const Index group = a.n_heads / a.n_kv_heads;
  heads_.clear();
  for (const SequenceRows& seq : a.sequences) {
    KOGIA_CHECK(seq.row_begin >= 0 && seq.n_rows >= 0);
    if (seq.n_rows == 0) continue;
    for (Index h = 0; h < a.n_kv_heads; ++h) {
      const Index q = seq.row_begin * a.q_stride + h * group * a.k_dim;
      const Index k = seq.row_begin * a.k_stride + h * a.k_dim;
      const Index v = seq.row_begin * a.v_stride + h * a.v_dim;
      heads_.push_back({.q = a.q + q,
                        .q_stride = a.q_stride,
                        .k = a.k + k,
                        .k_stride = a.k_stride,
                        .v = a.v + v,
                        .v_stride = a.v_stride,
                        .dout = a.dout + seq.row_begin * a.dout_stride + h * group * a.v_dim,
                        .dout_stride = a.dout_stride,
                        .dq = a.dq + q,
                        .dk = a.dk + k,
                        .dv = a.dv + v,
                        .n_rows = seq.n_rows,
                        .n_heads = group,
                        .k_dim = a.k_dim,
                        .v_dim = a.v_dim,
                        .scale = a.scale});
    }
  }
  std::sort(heads_.begin(), heads_.end(),
            [](const auto& x, const auto& y) { return x.n_rows > y.n_rows; });
  Index floats = 0;
  for (const AttentionVjpHead& h : heads_) {
    floats = std::max(floats, round_up(kernels_.attention_vjp_floats(h), 16));
  }
  scratch_.reset();
  float* memory = scratch_.allocate<float>(floats * pool.n_threads());
  const auto run_head = [&](Index i, int thread) {
    kernels_.attention_vjp(heads_[static_cast<std::size_t>(i)], memory + thread * floats);
  };
  pool.run(static_cast<Index>(heads_.size()), std::ref(run_head));
}

void CpuGradients::combine_vjp(const CombineVjpArgs& a, ThreadPool& pool) {
  KOGIA_CHECK(static_cast<Index>(a.row_of.size()) == a.rows * a.top_k);
  for_rows(pool, a.rows, 2 * a.n * a.top_k, [&](Index begin, Index end) {
    kernels_.combine_vjp({.row_of = a.row_of.data() + begin * a.top_k,
                          .weights = a.weights + begin * a.top_k,
                          .rows = end - begin,
                          .top_k = a.top_k,
                          .n = a.n,
                          .dy = a.dy + begin * a.dy_stride,
                          .dy_stride = a.dy_stride,
                          .dexpert_rows = a.dexpert_rows,
                          .expert_stride = a.expert_stride});
  });
}

// Few numbers a row, in f64, as the choice itself is: the definition serves everybody.
void CpuGradients::route_vjp(const RouteVjpArgs& a, ThreadPool& pool) {
  KOGIA_CHECK(a.rows >= 0 && a.top_k > 0 && a.top_k <= a.n_experts);
  const reference::RouterForm form = {
      .score = a.score, .normalise = a.normalise, .scale = static_cast<double>(a.scale)};
  for_rows(pool, a.rows, 64 * a.n_experts, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const float* z = a.logits + r * a.n_experts;
      const float* dw = a.dweights + r * a.top_k;
      const std::vector<double> logits(z, z + a.n_experts), dweights(dw, dw + a.top_k);
      std::vector<double> dlogits(logits.size(), 0);
      reference::route_weights_vjp(logits.data(), a.n_experts,
                                   {a.experts + r * a.top_k, static_cast<std::size_t>(a.top_k)},
                                   form, dweights.data(), dlogits.data());
      for (Index e = 0; e < a.n_experts; ++e) {
        a.dlogits[r * a.n_experts + e] += static_cast<float>(dlogits[static_cast<std::size_t>(e)]);
      }
    }
  });
}

namespace {

void balance_sequence(const BalanceLossArgs& a, std::size_t which) {
  const SequenceRows& seq = a.sequences[which];
  float* const loss = a.loss + which;
  const Index n = seq.n_rows * a.n_experts, first = seq.row_begin * a.n_experts;
  *loss = 0;
  if (n == 0) return;
  const std::vector<double> logits(a.logits + first, a.logits + first + n);
  std::vector<std::int32_t> experts(static_cast<std::size_t>(seq.n_rows * a.top_k));
  for (Index t = 0; t < seq.n_rows; ++t) {
    const auto s =
        reference::router_scores<double>(logits.data() + t * a.n_experts, a.n_experts, a.score);
    std::vector<float> choice(s.begin(), s.end());
    reference::top_k(choice, a.top_k, experts.data() + t * a.top_k);
  }
  const double alpha = static_cast<double>(a.alpha);
  *loss = static_cast<float>(
      reference::balance_loss(logits.data(), experts, a.n_experts, a.top_k, a.score, alpha));
  if (a.dlogits == nullptr) return;
  std::vector<double> dlogits(logits.size(), 0);
  reference::balance_loss_vjp(logits.data(), experts, a.n_experts, a.top_k, a.score, alpha,
                              static_cast<double>(a.dloss[which]), dlogits.data());
  for (Index i = 0; i < n; ++i) {
    a.dlogits[first + i] += static_cast<float>(dlogits[static_cast<std::size_t>(i)]);
  }
}

}  // namespace

void CpuGradients::balance_loss(const BalanceLossArgs& args, ThreadPool& pool) {
  KOGIA_CHECK(args.top_k > 0 && args.top_k <= args.n_experts);
  const auto run_sequence = [&](Index i, int) {
    balance_sequence(args, static_cast<std::size_t>(i));
  };
  pool.run(static_cast<Index>(args.sequences.size()), std::ref(run_sequence));
}

// A task is a slice of columns: each number of the table has one owner, who walks the rows.
void CpuGradients::embed_vjp(const EmbedVjpArgs& a, ThreadPool& pool) {
  const Index rows = static_cast<Index>(a.ids.size());
  constexpr Index kSlice = 32;  // two cache lines
  for_rows(pool, ceil_div(a.cols, kSlice), rows * kSlice, [&](Index begin, Index end) {
    const Index first = begin * kSlice, n = std::min(a.cols, end * kSlice) - first;
    for (Index r = 0; r < rows; ++r) {
      kernels_.add({.x = a.dy + r * a.dy_stride + first,
                    .y = a.dtable + a.ids[static_cast<std::size_t>(r)] * a.cols + first,
                    .rows = 1,
                    .n = n});
    }
  });
}

void CpuGradients::cross_entropy(const CrossEntropyArgs& a, ThreadPool& pool) {
  for_rows(pool, static_cast<Index>(a.targets.size()), 4 * a.n, [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const Index target = a.targets[static_cast<std::size_t>(r)];
      KOGIA_CHECK(target < a.n);
      float* logits = a.logits + r * a.stride;
      if (target < 0) {
        std::fill_n(logits, a.n, 0.0F);
        a.log_prob[r] = 0;
      } else {
        a.log_prob[r] = kernels_.cross_entropy(logits, a.n, target, a.dloss);
      }
    }
  });
}

namespace {

// By squaring: the same bits whatever libm is installed.
double power(double x, Index n) {
  double result = 1;
  for (; n > 0; n /= 2, x *= x) {
    if (n % 2 != 0) result *= x;
  }
  return result;
}

}  // namespace

void CpuGradients::adamw(const AdamWArgs& a, ThreadPool& pool) {
  KOGIA_CHECK(a.step >= 1 && (a.moments == DType::f32 || a.moments == DType::bf16));
  const double beta1 = static_cast<double>(a.beta1), beta2 = static_cast<double>(a.beta2);
  const double lr = static_cast<double>(a.lr);
  const AdamWSlice all = {.bf16 = a.moments == DType::bf16,
                          .grad_scale = a.grad_scale,
                          .rate1 = static_cast<float>(1 - beta1),
                          .beta2 = a.beta2,
                          .rate2 = static_cast<float>(1 - beta2),
                          .keep = static_cast<float>(1 - lr * static_cast<double>(a.weight_decay)),
                          .lr = static_cast<float>(lr / (1 - power(beta1, a.step))),
                          .root2 = static_cast<float>(1 / std::sqrt(1 - power(beta2, a.step))),
                          .eps = a.eps};
  const Index moment_bytes = all.bf16 ? 2 : 4;
  constexpr Index kPiece = 1024;
  for_rows(pool, ceil_div(a.n, kPiece), 4 * kPiece, [&](Index begin, Index end) {
    AdamWSlice s = all;
    const Index first = begin * kPiece;
    s.w = a.w + first;
    s.grad = a.grad + first;
    s.m = a.m + first * moment_bytes;
    s.v = a.v + first * moment_bytes;
    s.n = std::min(a.n, end * kPiece) - first;
    kernels_.adamw(s);
  });
}

double CpuGradients::sum_squares(std::span<const float> x, ThreadPool& pool) {
  const Index n = static_cast<Index>(x.size()), pieces = ceil_div(n, kSquares);
  scratch_.reset();
  double* sums = scratch_.allocate<double>(pieces);
  for_rows(pool, pieces, kSquares, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index first = i * kSquares;
      sums[i] = kernels_.sum_squares(x.data() + first, std::min(kSquares, n - first));
    }
  });
  double sum = 0;
  for (Index i = 0; i < pieces; ++i) sum += sums[i];
  return sum;
}

void CpuGradients::add(const AddArgs& args, ThreadPool& pool) {
  KOGIA_CHECK(args.rows >= 0 && args.n >= 0);
  for_rows(pool, args.rows, args.n, [&](Index begin, Index end) {
    AddArgs a = args;
    a.x += begin * a.x_stride;
    a.y += begin * a.y_stride;
    a.rows = end - begin;
    kernels_.add(a);
  });
}

void CpuGradients::fp8(const Fp8Args& args, ThreadPool& pool) {
  KOGIA_CHECK(args.rows >= 0 && args.cols >= 0);
  if (args.blocks.empty()) {
    const Index n_tiles = ceil_div(args.cols, kFp8Tile);
    for_rows(pool, args.rows, 4 * args.cols, [&](Index begin, Index end) {
      Fp8Args a = args;
      a.x += begin * a.x_stride;
      if (a.y != nullptr) a.y += begin * a.y_stride;
      if (a.codes != nullptr) a.codes += begin * a.cols;
      if (a.scales != nullptr) a.scales += begin * n_tiles;
      a.rows = end - begin;
      kernels_.fp8_rows(a);
    });
    return;
  }
  KOGIA_CHECK(args.y != nullptr && args.codes == nullptr && args.scales == nullptr);
  check_blocks(args.blocks);
  for_rows(pool, static_cast<Index>(args.blocks.size()), 4 * kTokenBlock * args.cols,
           [&](Index begin, Index end) {
             for (Index b = begin; b < end; ++b) {
               const TokenBlock& block = args.blocks[static_cast<std::size_t>(b)];
               Fp8Args a = args;
               a.x += block.begin * a.x_stride;
               a.y += block.begin * a.y_stride;
               a.rows = block.n;
               kernels_.fp8_columns(a);
             }
           });
}

void CpuGradients::fp8_decode(const Fp8DecodeArgs& args, ThreadPool& pool) {
  KOGIA_CHECK(args.rows >= 0 && args.cols >= 0);
  const Index n_tiles = ceil_div(args.cols, kFp8Tile);
  for_rows(pool, args.rows, args.cols, [&](Index begin, Index end) {
    Fp8DecodeArgs a = args;
    a.codes += begin * a.cols;
    a.scales += begin * n_tiles;
    a.y += begin * a.y_stride;
    a.rows = end - begin;
    kernels_.fp8_decode(a);
  });
}

}  // namespace kogia
