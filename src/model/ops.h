#pragma once
// The device's operations as the model's code writes them: matrices in, matrices out of the arena.

#include <array>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/expert_load.h"
#include "model/rope.h"
#include "model/trained.h"
#include "tensor/arena.h"

namespace kogia {

class Tape;
class Watch;

/// A matrix product's weight: W [out, in] and perhaps a bias [out].
struct Linear {
  std::unique_ptr<Matrix> w;
  std::vector<float> bias;
  std::unique_ptr<TrainedMatrix> trained;  // null: it is not
};

/// The gain of an RMSNorm.
struct Norm {
  std::vector<float> weight;
  float eps = 1e-6f;
  float* grad = nullptr;  // [n], where it is trained
};

/// Rows that tokens are looked up in. Each use of the table has a gradient of its own.
struct Embedding {
  const Matrix* table = nullptr;
  float* grad = nullptr;  // [vocab, hidden], where it is trained
};

/// One matrix product y = x Wᵀ (+ bias) (+ residual). tokens: the row of the batch that each row of
/// x belongs to, where that is not its own number.
struct Product {
  ConstMat x;
  const Linear* l = nullptr;
  Mat y;
  const float* residual = nullptr;
  std::span<const std::int32_t> tokens = {};
};

/// Keys, values and queries of a batch. data of v is null where values live inside the keys.
struct Attended {
  CacheView cache;
  ConstMat q, k, v;
  Index n_heads = 0;
  float scale = 1;
  std::span<const SequenceRows> keys;  // rows of k and v; of whole texts where gradients are wanted
  std::span<const SequenceRows> queries;  // rows of q
};

/// Heads side by side in the rows of a matrix: head h of row r at data + r * row_stride + h *
/// head_stride.
struct Heads {
  float* data = nullptr;
  Index rows = 0, n_heads = 0, row_stride = 0, head_stride = 0;

  Heads shifted(Index offset) const {
    return {data + offset, rows, n_heads, row_stride, head_stride};
  }
};
inline Heads heads_of(Mat x, Index n_heads) {
  return {x.data, x.rows, n_heads, x.stride, x.cols / n_heads};
}

/// Operations of matrices as the device takes them, for those who run them and those who run them
/// again.
RmsNormArgs rms_norm_args(ConstMat x, const Norm& norm, Mat y);
SiluMulArgs silu_mul_args(ConstMat gate, ConstMat up, Mat y);
GatherRowsArgs gather_rows_args(ConstMat x, std::span<const std::int32_t> index, Mat y);

/// One forward pass's access to the device. Results live in the arena: a caller that wants them
/// back early opens an Arena::Scope around.
class Ops {
 public:
  Ops(Device& device, Arena& arena, Tape* tape = nullptr)
      : device(device), arena(arena), tape(tape) {}

  /// Memory for what the backward pass, if there will be one, reads too.
  Arena& lasting();

  Mat embed(const Embedding& table, std::span<const std::int32_t> ids);

  /// Independent products in one dispatch.
  void run(std::span<const Product> products);

  Mat linear(ConstMat x, const Linear& l) { return linears<1>(x, {&l})[0]; }

  /// x += a Wᵀ
  void add_linear(Mat x, ConstMat a, const Linear& l) {
    const Product product{.x = a, .l = &l, .y = x, .residual = x.data};
    run({&product, 1});
  }

  /// Several products of one x in one dispatch.
  template <std::size_t N>
  std::array<Mat, N> linears(ConstMat x, const std::array<const Linear*, N>& weights) {
    std::array<Mat, N> y;
    std::array<Product, N> products;
    for (std::size_t i = 0; i < N; ++i) {
      y[i] = arena.matrix(x.rows, weights[i]->w->rows());
      products[i] = {.x = x, .l = weights[i], .y = y[i]};
    }
    run(products);
    return y;
  }

  Mat rms_norm(ConstMat x, const Norm& norm) {
    const Mat y = arena.matrix(x.rows, x.cols);
    norm_into(x, norm, y);
    return y;
  }
  /// Normalises the columns that the view shows, in place.
  void rms_norm_in_place(Mat x, const Norm& norm) { norm_into(x, norm, x); }
  void norm_into(ConstMat x, const Norm& norm, Mat y);

  /// Rotates the first rope.dims() values of each head.
  void rotate(Heads x, const Rope& rope, const RopeTables& tables);

  /// silu(gate) ⊙ up, written over gate.
  Mat silu_mul(Mat gate, ConstMat up);

  /// y[i] = x[index[i]]; where gradients are wanted, no row may be named twice.
  void gather_rows(ConstMat x, std::span<const std::int32_t> index, Mat y);
  /// y = x
  void copy(ConstMat x, Mat y);
  /// y[i] = x[index[i]], each row top_k times: row_of[t * top_k + k] are those made of row t.
  void spread_rows(ConstMat x, std::span<const std::int32_t> index,
                   std::span<const std::int32_t> row_of, Mat y);

  /// Writes keys and values into the cache; v without data: values live inside the keys.
  void append(CacheView cache, ConstMat k, ConstMat v, std::span<const SequenceRows> sequences);
  /// Attends to the cache, where a.k and a.v have been written.
  void attention(const Attended& a, Mat out);
  /// Keys of sequences back from the cache, end to end; k: what was written there, of the same rows
  /// where gradients are wanted.
  void cached_keys(CacheView cache, std::span<const SequenceRows> sequences, ConstMat k, Mat y);

  /// `first`: where the rows of each expert will begin, sorted by expert; filled in.
  void route(const RouteArgs& args, Index layer, std::span<std::int32_t> first);
  /// The rows of h will be multiplied by matrices and combined with these weights.
  void weigh(ConstMat h, std::span<const std::int32_t> row_of, const float* weights);
  void combine(const CombineArgs& args);

  Device& device;
  Arena& arena;
  Tape* tape;                                // null: nobody wants gradients
  Watch* watch = nullptr;                    // null: nobody looks for what is no number
  std::vector<ExpertLoad>* loads = nullptr;  // where route() adds a layer's, if anybody asks
  Index expert_bytes = 0;  // of the routed experts that were read, for those who measure
};

}  // namespace kogia
