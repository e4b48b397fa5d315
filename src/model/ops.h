#pragma once
// The device's operations as the model's code writes them: matrices in, matrices out of the arena.

#include <array>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "model/rope.h"
#include "tensor/arena.h"

namespace kogia {

/// A matrix product's weight: W [out, in] and perhaps a bias [out].
struct Linear {
  std::unique_ptr<Matrix> w;
  std::vector<float> bias;
};

/// The gain of an RMSNorm.
struct Norm {
  std::vector<float> weight;
  float eps = 1e-6f;
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

/// One forward pass's access to the device. Results live in the arena: a caller that wants them
/// back early opens an Arena::Scope around.
class Ops {
 public:
  Ops(Device& device, Arena& arena) : device(device), arena(arena) {}

  Mat embed(const Matrix& table, std::span<const std::int32_t> ids) {
    Mat y = arena.matrix(static_cast<Index>(ids.size()), table.cols());
    device.embed({.table = &table, .ids = ids, .y = y.data});
    return y;
  }

  /// Describes y = x Wᵀ (+ bias) without running it, so that several can share a dispatch.
  static LinearArgs product(ConstMat x, const Linear& l, Mat y, const float* residual = nullptr) {
    return {.x = x.data,
            .x_stride = x.stride,
            .w = l.w.get(),
            .bias = l.bias.empty() ? nullptr : l.bias.data(),
            .residual = residual,
            .y = y.data,
            .y_stride = y.stride,
            .rows = x.rows};
  }

  Mat linear(ConstMat x, const Linear& l) {
    const Mat y = arena.matrix(x.rows, l.w->rows());
    const LinearArgs args = product(x, l, y);
    device.linear({&args, 1});
    return y;
  }

  /// x += a Wᵀ
  void add_linear(Mat x, ConstMat a, const Linear& l) {
    const LinearArgs args = product(a, l, x, x.data);
    device.linear({&args, 1});
  }

  /// Several products of one x in one dispatch.
  template <std::size_t N>
  std::array<Mat, N> linears(ConstMat x, const std::array<const Linear*, N>& weights) {
    std::array<Mat, N> y;
    std::array<LinearArgs, N> args;
    for (std::size_t i = 0; i < N; ++i) {
      y[i] = arena.matrix(x.rows, weights[i]->w->rows());
      args[i] = product(x, *weights[i], y[i]);
    }
    device.linear(args);
    return y;
  }

  Mat rms_norm(ConstMat x, const Norm& norm) {
    const Mat y = arena.matrix(x.rows, x.cols);
    norm_into(x, norm, y);
    return y;
  }
  /// Normalises the columns that the view shows, in place.
  void rms_norm_in_place(Mat x, const Norm& norm) { norm_into(x, norm, x); }

  /// Rotates the first rope.dims() values of each head.
  void rotate(Heads x, const Rope& rope, const RopeTables& tables) {
    device.rope({.x = x.data,
                 .row_stride = x.row_stride,
                 .head_stride = x.head_stride,
                 .rows = x.rows,
                 .n_heads = x.n_heads,
                 .n_rot = rope.dims(),
                 .cos = tables.cos,
                 .sin = tables.sin,
                 .layout = rope.layout()});
  }

  /// silu(gate) ⊙ up, written over gate.
  Mat silu_mul(Mat gate, ConstMat up) {
    device.silu_mul({.gate = gate.data,
                     .up = up.data,
                     .y = gate.data,
                     .rows = gate.rows,
                     .n = gate.cols,
                     .gate_stride = gate.stride,
                     .up_stride = up.stride,
                     .y_stride = gate.stride});
    return gate;
  }

  /// y[i] = x[index[i]]
  void gather_rows(ConstMat x, std::span<const std::int32_t> index, Mat y) {
    device.gather_rows({.x = x.data,
                        .x_stride = x.stride,
                        .index = index,
                        .y = y.data,
                        .y_stride = y.stride,
                        .n = y.cols});
  }

  void norm_into(ConstMat x, const Norm& norm, Mat y) {
    device.rms_norm({.x = x.data,
                     .x_stride = x.stride,
                     .weight = norm.weight.data(),
                     .y = y.data,
                     .y_stride = y.stride,
                     .rows = x.rows,
                     .n = x.cols,
                     .eps = norm.eps});
  }

  Device& device;
  Arena& arena;
  Index expert_bytes = 0;  // of the routed experts that were read, for those who measure
};

}  // namespace kogia
