#pragma once
// Gradients of a forward pass. While a tape is there, Ops writes down what it does, and backward()
// walks it from the end, each operation adding to the gradients of what it read.
//
// The gradient of the value at address p of the pass's arena lies at the same place of a mirror of
// that arena, so views need no bookkeeping. An address may be used again in a pass (a scope that
// ended): who made a value takes its gradient and leaves zeros, so that between passes, and between
// two values at one address, the mirror is all zeros.
//
// What an operation needs of its operands is kept when it runs, for the arena's memory will be used
// again: once, if several need it, or not at all if it can be made again from what is kept
// (normed rows, SwiGLU, gathered rows): with the same bits, for the same operation makes it.
//
// Sums over tokens: see TokenBlock. The tape knows which rows of the batch are one packed row.

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/ops.h"
#include "tensor/arena.h"

namespace kogia {

struct TapeOptions {
  /// Normed rows (and those of them that are gathered for experts), and SwiGLU, are made again in
  /// the backward pass instead of kept.
  bool recompute_norms = true;
  bool recompute_swiglu = true;
  /// Operands of SwiGLU are kept as E4M3 holds them, as those of FP8's products are by themselves
  /// (arXiv:2412.19437 §3.3.3).
  bool fp8 = false;
  /// Weight of the balance loss of each text (arXiv:2412.19437 §2.1.2): the complement of selection
  /// biases.
  float sequence_loss = 0;
  /// Weight of the same loss of all rows of a micro-batch together, the classic auxiliary loss
  /// (arXiv:2101.03961): alone among all losses it depends on how a batch is cut.
  float batch_loss = 0;
};

/// How many tokens of a pass each expert of a layer got, in the order of the layers.
struct ExpertLoad {
  Index layer = 0;
  std::vector<Index> tokens;  // [n_routed_experts]
};

/// Threads: one, that of the device's caller.
class Tape {
 public:
  Tape(Device& device, const TapeOptions& options) : device_(device), options_(options) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Forgets the pass before. `arena` is that of the pass to come.
  void begin(Arena& arena);
  /// The rows of the matrices that follow: packed row i begins at begins[i]. `row_weight` is the
  /// share of a row in the means of balance losses.
  void set_rows(std::span<const Index> begins, std::span<const SequenceRows> sequences,
                Index n_rows, float row_weight);
  /// Gradients of everything recorded, added to those of the weights.
  void backward();

  const std::vector<ExpertLoad>& expert_loads() const { return expert_loads_; }
  /// What balance losses add to the loss, over all layers of the pass.
  double balance_loss() const { return balance_loss_; }
  /// Memory of what is kept for the backward pass.
  Index kept_bytes() const { return kept_.used_bytes(); }

  // What Ops and the loss record, after it ran unless said otherwise. -----------------------------

  void embed(const Embedding& table, std::span<const std::int32_t> ids, Mat y);
  void products(std::span<const Product> products);
  /// Before it runs, for y may be x.
  void rms_norm(ConstMat x, const Norm& norm, Mat y);
  void rotate(const RopeArgs& args);
  /// Before it runs, for the result is written over gate.
  void silu_mul(Mat gate, ConstMat up);
  /// y[i] = x[index[i]]; index may name a row once only.
  void gather_rows(ConstMat x, std::span<const std::int32_t> index, Mat y);
  /// The same where it names each row top_k times: row_of[t * top_k + k] are those made of row t.
  void spread_rows(ConstMat x, std::span<const std::int32_t> index,
                   std::span<const std::int32_t> row_of, Mat y);
  void copy(ConstMat x, Mat y);
  void attention(const Attended& a, Mat out);
  void route(const RouteArgs& args, Index layer, std::span<const std::int32_t> first);
  void combine(const CombineArgs& args);

  /// The gradient of the values that m shows. Zeros where nothing has been added.
  Mat grad(ConstMat m) { return {grad(m.data), m.rows, m.cols, m.stride}; }
  std::span<const TokenBlock> blocks() const { return *blocks_; }

 private:
  struct Kept;
  /// Part of a kept matrix.
  struct Part {
    std::size_t id = 0;
    Index offset = 0, rows = 0, cols = 0;  // offset in floats, from its begin
  };
  using Blocks = std::vector<TokenBlock>;
  using Sequences = std::vector<SequenceRows>;

  float* grad(const float* p);
  Part keep(ConstMat m);
  /// As E4M3 holds it, in a quarter of the memory.
  Part keep_fp8(ConstMat m);
  void remember(ConstMat m, std::function<void(Mat)> make);
  void overwritten(ConstMat m);
  ConstMat restore(const Part& part);
  /// In scratch memory, as E4M3 holds it.
  Mat rounded_fp8(ConstMat x, std::span<const TokenBlock> blocks);
  Blocks blocks_of(std::span<const std::int32_t> tokens) const;
  std::shared_ptr<const Blocks> scaled_blocks(Index rows) const;
  void balance(const RouteArgs& args, Part logits, Mat dlogits);
  std::span<const std::int32_t> keep_ids(std::span<const std::int32_t> ids);
  void record(std::function<void()> node) { nodes_.push_back(std::move(node)); }

  Device& device_;
  TapeOptions options_;
  Arena* arena_ = nullptr;
  Arena kept_, scratch_;
  std::vector<std::shared_ptr<std::byte>> mirror_;  // of the arena's blocks
  std::vector<std::function<void()>> nodes_;

  /// A matrix that was kept, or how to make it.
  struct Kept {
    ConstMat copy;  // null data: made by `make`
    std::function<void(Mat)> make;
    Index rows = 0, cols = 0;
    bool fp8 = false;
  };
  std::vector<Kept> keeps_;
  /// What of the arena still holds a kept matrix.
  struct Known {
    ConstMat where;
    std::size_t id;
  };
  std::vector<Known> known_;
  /// Matrices made again lately.
  struct Made {
    std::size_t id;
    std::vector<float> values;
  };
  std::list<Made> made_;

  Index n_rows_ = 0;
  float row_weight_ = 0;
  std::shared_ptr<const Sequences> sequences_;
  double balance_loss_ = 0;
  std::vector<std::int32_t> packed_row_;  // of each row
  std::shared_ptr<const Blocks> blocks_ = std::make_shared<Blocks>();
  std::vector<ExpertLoad> expert_loads_;
};

}  // namespace kogia
