#include "model/loss.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "model/tape.h"
#include "model/tape_rows.h"
#include "model/watch.h"

namespace kogia {
namespace {

// Rows whose logits are there together: few enough for the cache, enough to read the head once for.
constexpr Index kChunkRows = 512;

/// Blocks [begin, end) of `blocks`, counted from row `first`.
std::vector<TokenBlock> moved(std::span<const TokenBlock> blocks, std::size_t begin,
                              std::size_t end, Index first) {
  std::vector<TokenBlock> out;
  for (std::size_t i = begin; i < end; ++i) out.push_back({blocks[i].begin - first, blocks[i].n});
  return out;
}

/// Of each row the first of the largest.
void choose(Device& device, ConstMat logits, std::int32_t* choices) {
  for_each_row(device, logits.rows, logits.cols, [&](Index r) {
    const float* const row = logits.row(r);
    choices[r] = static_cast<std::int32_t>(std::max_element(row, row + logits.cols) - row);
  });
}

}  // namespace

TrainLoss cross_entropy(Ops& ops, ConstMat hidden, const Linear& head, Index use,
                        std::span<const std::int32_t> targets, float weight,
                        std::span<std::int32_t> choices) {
  KOGIA_CHECK(static_cast<Index>(targets.size()) == hidden.rows);
  std::vector<TokenBlock> whole;  // without a tape, any stretches will do
  if (ops.tape == nullptr) {
    for (Index r = 0; r < hidden.rows; r += kTokenBlock) {
      whole.push_back({r, std::min(kTokenBlock, hidden.rows - r)});
    }
  }
  const std::span<const TokenBlock> blocks = ops.tape != nullptr ? ops.tape->blocks() : whole;
  TrainLoss loss;
  for (std::size_t begin = 0; begin < blocks.size();) {
    std::size_t end = begin + 1;
    const Index first = blocks[begin].begin;
    while (end < blocks.size() && blocks[end].begin + blocks[end].n - first <= kChunkRows) ++end;
    const Index rows = blocks[end - 1].begin + blocks[end - 1].n - first;
    const Arena::Scope scope(ops.arena);
    const ConstMat x{hidden.row(first), rows, hidden.cols, hidden.stride};
    const Mat logits = ops.arena.matrix(rows, head.w->rows());
    const LinearArgs product{.x = x.data,
                             .x_stride = x.stride,
                             .w = head.w.get(),
                             .y = logits.data,
                             .y_stride = logits.stride,
                             .rows = rows};
    ops.device.linear({&product, 1});
    if (ops.watch != nullptr) ops.watch->made(logits, "head's product");
    if (!choices.empty()) choose(ops.device, logits, choices.data() + first);
    const auto chunk =
        targets.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    float* const log_prob = ops.arena.allocate<float>(rows);
    ops.device.cross_entropy({.logits = logits.data,
                              .stride = logits.stride,
                              .n = logits.cols,
                              .targets = chunk,
                              .dloss = weight,
                              .log_prob = log_prob});
    for (Index r = 0; r < rows; ++r) {
      if (chunk[static_cast<std::size_t>(r)] < 0) continue;
      loss.sum -= static_cast<double>(log_prob[r]);
      ++loss.n;
    }
    if (ops.tape != nullptr) {
      const TrainedMatrix& t = *head.trained;
      const auto own = moved(blocks, begin, end, first);
      const LinearWgradArgs to_weights{.x = x.data,
                                       .x_stride = x.stride,
                                       .dy = logits.data,
                                       .dy_stride = logits.stride,
                                       .n = logits.cols,
                                       .cols = x.cols,
                                       .blocks = own,
                                       .dw = t.grad + use * t.use_stride,
                                       .dw_stride = t.stride};
      ops.device.linear_wgrad({&to_weights, 1});
      const Mat dx = ops.tape->early_gradient(x);
      const LinearArgs back{.x = logits.data,
                            .x_stride = logits.stride,
                            .w = t.transposed.get(),
                            .y = dx.data,
                            .y_stride = dx.stride,
                            .rows = rows};
      ops.device.linear({&back, 1});
    }
    begin = end;
  }
  return loss;
}

}  // namespace kogia
