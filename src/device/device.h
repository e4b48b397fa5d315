#pragma once
// What a device must offer: weights in a form of its own, the operations of a forward pass
// (operations.h) and those of a backward one (gradients.h), and nothing of models.
//
// Every operation is a plain struct of pointers and sizes. Activations are f32; what a weight or a
// cache stores is its own business. Each operation has a scalar twin in device/reference/ that is
// plainly right, and every device is held to it by a property test.
//
// Determinism (docs/design): an output row depends only on its own input row, the weights and, in
// attention, its own sequence's cache: bitwise, whatever the number of rows, the other rows, the
// segmentation of the batch or the number of threads. The order of a sum is fixed by its length.
//
// Threads: a device is used from one thread at a time; it parallelises inside.
// Wrong shapes are CHECKed.

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/index.h"
#include "device/gradients.h"
#include "device/operations.h"
#include "tensor/dtype.h"

namespace kogia {

// ---------------------------------------------------------------------------------------------------
// Weights

/// The arithmetic of a matrix product y = x Wᵀ. The value of a weight never changes; what differs
/// is how x is rounded and which instructions multiply.
///   f32   x as it is, weights decoded to f32
///   bf16  x rounded to bf16. Plain weights: bf16 products, f32 sums (f32 and f16 weights stay
///         f32 and use f32 arithmetic). GGUF blocks: whole numbers exact in bf16, block scales
///         applied in f32. FP8: codes exact in bf16, block scales in f32 every 128 columns.
///   int16 GGUF blocks only: x quantised per row and block (32 columns) to 16 bits, integer
///         products, f32 sums: nearer to f32 than bf16 is
///   int8  the same to 8 bits
///   fp8   FP8 weights only: x quantised per row and 128 columns to e4m3, products exact
enum class Compute { f32, bf16, int16, int8, fp8 };
std::string_view name(Compute compute);

/// A matrix as a checkpoint stores it: [rows = out, cols = in], row-major, borrowed.
struct MatrixSource {
  DType dtype = DType::f32;
  Index rows = 0, cols = 0;
  const std::byte* data = nullptr;  // rows * row_bytes(dtype, cols) bytes, any alignment

  // FP8 block scales (value = code * scale); null for every other format.
  // scale[(first_row + r) / block_rows, c / block_cols], scale_cols values per scale row.
  const std::byte* scale = nullptr;
  DType scale_dtype = DType::f32;  // f32, bf16 or f8_e8m0
  Index scale_cols = 0, block_rows = 128, block_cols = 128;
  Index first_row = 0;  // of this slice inside the tensor that the scales describe
};

/// A weight matrix in a device's own layout. Const after packing; shared by every caller.
class Matrix {
 public:
  virtual ~Matrix() = default;
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  DType dtype() const { return dtype_; }  // of the source
  Compute compute() const { return compute_; }
  Index n_bytes() const { return n_bytes_; }  // in that layout; 0 where the source is borrowed

 protected:
  Matrix(Index rows, Index cols, DType dtype, Compute compute)
      : rows_(rows), cols_(cols), dtype_(dtype), compute_(compute) {}
  Index rows_, cols_;
  DType dtype_;
  Compute compute_;
  Index n_bytes_ = 0;
};

struct PackOptions {
  Compute compute = Compute::f32;
  /// Pack Wᵀ: the result is [cols, rows] of the source. Used for the absorbed key projection; block
  /// formats are decoded (exactly, to f32) since their blocks do not survive a transposition.
  bool transpose = false;
};

/// How a device lays a matrix out.
struct PackedForm {
  std::string name;           // equal names and equal sources: equal bytes, in another run too
  Index n_bytes = 0;          // of the whole matrix
  Index row_step = 1;         // pack_rows() begins at multiples of this,
  Index step_bytes = 0;       // which take this much each; the last one what is left
  int variant = 0;            // of the layouts for this format, the one that fits the values
  std::string repacked = {};  // "8-bit codes": a wider form that it is kept in; empty: its own
};

// ---------------------------------------------------------------------------------------------------

/// What a device can do at most with all its threads, measured: machines differ, and one that is
/// shared differs from hour to hour.
struct MachineLimits {
  std::optional<double> read_gb_s = {};  // from memory, by the best of several patterns
  std::string_view read_pattern = {};    // which one that was
  // Multiply-adds on registers alone, two operations each. Unset: there is no such instruction.
  std::optional<double> f32_gflop_s = {}, bf16_gflop_s = {}, int16_gop_s = {}, int8_gop_s = {};

  /// The peak that products of this arithmetic can reach: that of f32 where its own instruction is
  /// missing. Operations on FP8 weights are bf16's.
  std::optional<double> peak_gflop_s(Compute compute) const;
};

/// A place where kernels run.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // "cpu/avx512"
  virtual int n_threads() const = 0;
  /// What `--compute` unset means for weights of this format.
  virtual Compute default_compute(DType weights) const = 0;

  // A weight is packed once: its form is asked for, memory is found for it (the program's own, or
  // that of a file that keeps it), its rows are written there, and the device adopts it.

  /// The form of a matrix. Without `variant` it may look at the values of the whole source; with
  /// it, of a matrix packed before, it does not touch them. Threads: any.
  virtual PackedForm packed_form(const MatrixSource& source, const PackOptions& options,
                                 std::optional<int> variant = {}) const = 0;
  /// Writes rows [first, first + n) of the packed matrix (of Wᵀ where transposed) to `to`, which
  /// stands first / row_step * step_bytes from its begin. They end at a multiple of form.row_step
  /// or with the matrix. Of the source no other rows are read. Threads: any.
  virtual void pack_rows(const MatrixSource& source, const PackOptions& options,
                         const PackedForm& form, Index first, Index n, std::byte* to) const = 0;
  /// The matrix in memory (at a multiple of 64) that pack_rows() wrote, or writes before it is
  /// used. Nothing is read of the source. Whatever the bytes are, they can make results wrong and
  /// nothing worse.
  virtual std::unique_ptr<Matrix> adopt(const MatrixSource& source, const PackOptions& options,
                                        const PackedForm& form,
                                        std::shared_ptr<const std::byte> packed) const = 0;
  /// A matrix that stays where it is: the source must outlive it. linear() packs a stretch of it
  /// wherever it needs one, so its results have the bits of the packed matrix's, and take longer.
  virtual std::unique_ptr<Matrix> borrow(const MatrixSource& source,
                                         const PackOptions& options) const = 0;
  /// All of this on the calling thread, in memory of its own; the source may go away afterwards.
  std::unique_ptr<Matrix> pack(const MatrixSource& source, const PackOptions& options) const;

  virtual Index cache_page_bytes(const CacheSpec& spec) const = 0;

  virtual void embed(const EmbedArgs& args) = 0;
  virtual void linear(std::span<const LinearArgs> products) = 0;
  virtual void rms_norm(const RmsNormArgs& args) = 0;
  virtual void rope(const RopeArgs& args) = 0;
  virtual void cache_append(const CacheAppendArgs& args) = 0;
  virtual void cache_read(const CacheReadArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void silu_mul(const SiluMulArgs& args) = 0;
  virtual void route(const RouteArgs& args) = 0;
  virtual void gather_rows(const GatherRowsArgs& args) = 0;
  virtual void combine(const CombineArgs& args) = 0;
  virtual void log_prob(const LogProbArgs& args) = 0;

  // What training needs besides. A device that only runs models leaves them alone: then they throw.
  virtual void linear_wgrad(std::span<const LinearWgradArgs> products);
  virtual void rms_norm_vjp(const RmsNormVjpArgs& args);
  virtual void silu_mul_vjp(const SiluMulVjpArgs& args);
  virtual void attention_vjp(const AttentionVjpArgs& args);
  virtual void combine_vjp(const CombineVjpArgs& args);
  virtual void route_vjp(const RouteVjpArgs& args);
  virtual void balance_loss(const BalanceLossArgs& args);
  virtual void embed_vjp(const EmbedVjpArgs& args);
  virtual void cross_entropy(const CrossEntropyArgs& args);
  virtual void adamw(const AdamWArgs& args);
  /// Σ x² in f64, in an order that depends on the length alone.
  virtual double sum_squares(std::span<const float> x);
  virtual void add(const AddArgs& args);
  virtual void fp8(const Fp8Args& args);
  virtual void fp8_decode(const Fp8DecodeArgs& args);

  /// Takes about a second, and memory that is given back; products alone take a sixth of a second
  /// and no memory. The default knows no limits.
  virtual MachineLimits measure_limits() { return {}; }
  virtual MachineLimits measure_product_limits() { return {}; }

  /// Runs independent jobs on the device's host threads (loading, sampling).
  virtual void parallel(Index n, const std::function<void(Index)>& job) = 0;
};

}  // namespace kogia
