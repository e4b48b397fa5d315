#pragma once
// Gradients of a forward pass. While a tape is there, Ops writes down what it does, and backward()
// walks it from the end, each operation adding to the gradients of what it read.
//
// The gradient of the value at address p of the pass's arena lies at p itself, once the forward
// pass is over and none of its values is needed any more: views need no bookkeeping, and gradients
// no memory. An address may be used again in a pass (a scope that ended): who made a value takes
// its gradient and leaves zeros, so that at the begin of the backward pass, and between two values
// at one address, the arena is all zeros.
//
// What an operation needs of its operands is kept when it runs, for the arena's memory will be used
// again: once, if several need it, or not at all if it can be made again from what is kept
// (normed rows, SwiGLU, gathered rows, keys and values of latent attention), for the same operation
// makes it.
//
// Sums over tokens: see TokenBlock. The tape knows which rows of the batch are one packed row.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/ops.h"
#include "tensor/arena.h"

namespace kogia {

/// How operands wait for the backward pass.
enum class Keeping {
  kF32,
  /// As bf16 holds them.
  kBf16,
  /// Those of FP8's products and of SwiGLU as E4M3 holds them, all others in bf16
  /// (arXiv:2412.19437 §3.3.3).
  kFp8,
};

struct TapeOptions {
  Keeping keeping = Keeping::kF32;
  /// What is made again instead of kept: normed rows (and those of them that are gathered for
  /// experts); SwiGLU; keys and values of expanded latent attention, of f32 and FP8 the queries
  /// too. Where rounded operands wait, the first two are always made of these, and of FP8 all are
  /// (arXiv:2412.19437 §3.2.3), so that a choice changes no bit.
  bool recompute_norms = true;
  bool recompute_swiglu = true;
  bool recompute_up_projection = true;
  /// Weight of the balance loss of each text (arXiv:2412.19437 §2.1.2): the complement of selection
  /// biases.
  float sequence_loss = 0;
  /// Weight of the same loss of all rows of a micro-batch together, the classic auxiliary loss
  /// (arXiv:2101.03961): alone among all losses it depends on how a batch is cut.
  float batch_loss = 0;
};

/// Threads: one, that of the device's caller.
class Tape {
  using Blocks = std::vector<TokenBlock>;
  using Sequences = std::vector<SequenceRows>;

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
  void backward(Watch* watch = nullptr);

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
  void route(const RouteArgs& args);
  /// The weights that combine() will give the rows: h [n, ·] is what the last product before it
  /// reads, row_of and weights are combine()'s.
  void weigh(ConstMat h, std::span<const std::int32_t> row_of, const float* weights);
  void combine(const CombineArgs& args);

  // For what several operations make together. ----------------------------------------------------

  /// Part of a kept matrix.
  struct Part {
    std::size_t id = 0;
    Index offset = 0, rows = 0, cols = 0;  // offset in values, from its begin
  };
  /// A product as it is remembered.
  struct Recorded {
    const Linear* l;
    bool fp8;  // all three of its products are E4M3's
    Part x;
    Mat dx, dy;
    bool clears;  // y was made by it; else it was added to
    std::shared_ptr<const Blocks> blocks;
  };
  /// The values of m as they are now, for the backward pass.
  Part keep(ConstMat m);
  /// The same of what a product or SwiGLU reads.
  Part keep_operand(ConstMat m);
  /// In a node of the backward pass, and until it ends.
  ConstMat restore(const Part& part);
  /// The same into memory of the caller's; `part` is all of a kept matrix.
  void restore(const Part& part, Mat out);
  /// A gradient of m that is there before the backward pass: who calls fills it now.
  Mat early_gradient(ConstMat m);
  /// m will not be kept by who needs it, but made again.
  void remember(ConstMat m, std::function<void(Mat)> make);
  /// What was made exactly, as keep() would have it (and as a bf16 cache has it).
  void round_as_kept(Mat m);
  bool remakes_norms() const {
    return options_.recompute_norms || options_.keeping != Keeping::kF32;
  }
  bool remakes_up_projection() const {
    return options_.recompute_up_projection || options_.keeping == Keeping::kFp8;
  }
  bool remakes_queries() const {
    return remakes_up_projection() && options_.keeping != Keeping::kBf16;
  }
  Device& device() { return device_; }
  /// For those who make something again: they open an Arena::Scope around.
  Arena& scratch() { return scratch_; }
  /// For what both passes read.
  Arena& lasting() { return lasting_; }

  std::span<const TokenBlock> blocks() const { return *blocks_; }

 private:
  /// Every bit of it.
  Part keep_exact(ConstMat m);
  Part keep_bf16(ConstMat m);
  Part keep_fp8(ConstMat m);
  /// Where m is kept already, in one of these ways.
  enum class How { kExact, kBf16, kFp8, kMade };
  std::optional<Part> known(ConstMat m, std::initializer_list<How> ways) const;
  Part add_kept(ConstMat m, How how, ConstMat copy, std::function<void(Mat)> make);
  void overwritten(ConstMat m);
  /// Memory of a matrix that is made again.
  struct Values {
    std::unique_ptr<float[]> data;
    Index size = 0;
  };
  Values values_for(Index n);
  /// After a node of the backward pass: what it and those before it had no need of, is forgotten.
  void forget_made(std::size_t node);
  /// y = x as E4M3 holds it; y may be x.
  Mat round_fp8(ConstMat x, std::span<const TokenBlock> blocks, Mat y);
  void gradients_of_weights(std::span<const Recorded> products);
  void gradients_of_inputs(std::span<const Recorded> products);
  Blocks blocks_of(std::span<const std::int32_t> tokens) const;
  std::shared_ptr<const Blocks> scaled_blocks(Index rows) const;
  void clear_arena();
  void balance(const RouteArgs& args, Part logits, Mat dlogits);
  std::span<const std::int32_t> keep_ids(std::span<const std::int32_t> ids);
  /// `grad`: of the weight that the operation uses, if it has one.
  void record(const char* op, const float* grad, std::function<void()> run);
  bool finite() const;

  Device& device_;
  TapeOptions options_;
  Arena* arena_ = nullptr;
  Arena kept_, lasting_, scratch_;
  struct Node {
    const char* op;
    const float* near;  // gradient of its weight, or of the last before it
    std::function<void()> run;
  };
  std::vector<Node> nodes_;

  /// A matrix that was kept, or how to make it.
  struct Kept {
    How how = How::kExact;
    ConstMat copy;  // of kExact; all else is made by `make`
    std::function<void(Mat)> make;
    Index rows = 0, cols = 0;
    std::size_t first_use = 0;  // no node before it needs this
  };
  std::vector<Kept> keeps_;
  /// What of the arena still holds a kept matrix.
  struct Known {
    ConstMat where;
    std::size_t id;
  };
  std::vector<Known> known_;
  /// Matrices made again that nodes to come may need, and memory for more.
  struct Made {
    std::size_t id;
    Values values;
  };
  std::vector<Made> made_;
  std::vector<Values> spare_;

  Index n_rows_ = 0;
  float row_weight_ = 0;
  std::shared_ptr<const Sequences> sequences_;
  double balance_loss_ = 0;
  std::vector<std::int32_t> packed_row_;  // of each row
  std::shared_ptr<const Blocks> blocks_ = std::make_shared<Blocks>();
};

}  // namespace kogia
