#pragma once
// The operations that a device must offer: all that a forward pass needs, and nothing of models.
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
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/index.h"
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
// Cache

/// What one layer keeps for a token. Latent attention (MLA, absorbed) has n_kv_heads 1 and v_dim 0:
/// the values are the first `latent_v_dim` numbers of the key row.
struct CacheSpec {
  Index n_kv_heads = 1;
  Index k_dim = 0;            // per head
  Index v_dim = 0;            // per head; 0: values live inside the keys
  Index latent_v_dim = 0;     // when v_dim is 0
  DType dtype = DType::bf16;  // f32 or bf16

  Index values_per_token() const { return n_kv_heads * (k_dim + v_dim); }
};

/// Tokens of a page, and keys of an attention block: softmax partials are merged block by block in
/// order of position, so this is part of the arithmetic.
inline constexpr Index kPageTokens = 64;

/// One layer of a paged cache: page p of this layer begins at base + p * page_stride.
/// The layout inside the page is the device's: cache_page_bytes(spec) bytes.
struct CacheView {
  CacheSpec spec;
  std::byte* base = nullptr;
  Index page_stride = 0;  // bytes
};

/// Rows of a batch that belong to one sequence: rows [row_begin, row_begin + n_rows) hold the
/// tokens at positions first_pos, first_pos + 1, …; page i of `pages` holds the 64 positions from
/// 64 i on.
struct SequenceRows {
  Index row_begin = 0, n_rows = 0;
  Index first_pos = 0;
  const std::int32_t* pages = nullptr;
};

// ---------------------------------------------------------------------------------------------------
// Operations

/// y[i,:] = table[ids[i],:]   (decoded to f32)
struct EmbedArgs {
  const Matrix* table = nullptr;  // [vocab, hidden]
  std::span<const std::int32_t> ids;
  float* y = nullptr;  // [ids.size(), cols]
};

/// y = x Wᵀ (+ bias) (+ residual). One call takes several independent products (q, k and v; the
/// heads of an absorbed projection; the experts of a layer with rows sorted by expert), so that
/// they share one dispatch. y may equal residual; y must not overlap x.
struct LinearArgs {
  const float* x = nullptr;
  Index x_stride = 0;  // floats from row to row, >= cols
  const Matrix* w = nullptr;
  const float* bias = nullptr;      // [w->rows()]
  const float* residual = nullptr;  // like y, same stride
  float* y = nullptr;
  Index y_stride = 0;  // >= w->rows()
  Index rows = 0;      // 0 is legal
};

/// y = x / rms(x) ⊙ weight, rms(x) = sqrt(mean(x²) + eps)                          arXiv:1910.07467
struct RmsNormArgs {
  const float* x = nullptr;
  Index x_stride = 0;
  const float* weight = nullptr;  // [n]
  float* y = nullptr;             // may be x
  Index y_stride = 0;
  Index rows = 0, n = 0;
  float eps = 1e-6f;
};

enum class RopeLayout {
  kInterleaved,  // pairs (2i, 2i+1): DeepSeek, GGUF llama
  kHalves,       // pairs (i, i + n/2): Hugging Face llama and qwen
};

/// Rotates the first n_rot values of each head of each row in place:
/// (a, b) -> (a cos − b sin, a sin + b cos).
struct RopeArgs {
  float* x = nullptr;  // row r, head h at x + r * row_stride + h * head_stride
  Index row_stride = 0, head_stride = 0;
  Index rows = 0, n_heads = 0, n_rot = 0;
  const float* cos = nullptr;  // [rows, n_rot / 2]
  const float* sin = nullptr;
  RopeLayout layout = RopeLayout::kInterleaved;
  bool inverse = false;
};

/// Writes keys and values of a batch into the cache, rounded to its dtype.
struct CacheAppendArgs {
  CacheView cache;
  const float* k = nullptr;  // [rows, n_kv_heads, k_dim], rows k_stride apart
  Index k_stride = 0;
  const float* v = nullptr;  // [rows, n_kv_heads, v_dim]; null when v_dim is 0
  Index v_stride = 0;
  std::span<const SequenceRows> sequences;
};

/// Reads key rows back as f32: positions [0, n_positions) of one sequence (expanded MLA, sessions).
struct CacheReadArgs {
  CacheView cache;
  const std::int32_t* pages = nullptr;
  Index n_positions = 0;
  float* k = nullptr;  // [n_positions, n_kv_heads * k_dim]
  float* v = nullptr;  // [n_positions, n_kv_heads * v_dim], or null
};

/// Causal softmax attention over a paged cache that already holds this batch's own rows.
///   out[r,h] = Σ_t softmax_t(scale · q[r,h]·k[t,h']) v[t,h']
///   where t <= position of r and h' = h / (n_heads / n_kv_heads)
/// Keys are walked in blocks of kPageTokens by position and merged in that order. Where the cache
/// is bf16 and the device has bf16 dot products, q and the weights exp(s − max of the block) are
/// rounded to bf16 (an even k_dim given); sums are f32.
struct AttentionArgs {
  CacheView cache;
  const float* q = nullptr;  // [rows, n_heads, k_dim], rows q_stride apart
  Index q_stride = 0;
  float* out = nullptr;  // [rows, n_heads, v_dim or latent_v_dim], rows out_stride apart
  Index out_stride = 0;
  Index n_heads = 0;
  float scale = 1;
  std::span<const SequenceRows> sequences;
};

/// y = silu(gate) ⊙ up,  silu(g) = g σ(g)                                          arXiv:2002.05202
struct SiluMulArgs {
  const float* gate = nullptr;
  const float* up = nullptr;
  float* y = nullptr;  // may be gate or up
  Index rows = 0, n = 0;
  Index gate_stride = 0, up_stride = 0, y_stride = 0;
};

enum class RouterScore { kSoftmax, kSigmoid };
enum class GroupScore { kMax, kTop2Sum };  // V2; V3

/// Chooses the experts of each token.
///   s = score(logits)
///   choice = s + bias, of which the topk_group best groups are kept
///   experts = top-k of choice
///   weights = s[experts], normalised (÷ (Σ + 1e-20)) or not, times scale
/// The bias picks, it never weighs. Equal scores: lower id first. Best choice first.
struct RouteArgs {
  const float* logits = nullptr;  // [rows, n_experts]
  const float* bias = nullptr;    // [n_experts] or null
  Index rows = 0, n_experts = 0, top_k = 0;
  Index n_group = 1, topk_group = 1;
  RouterScore score = RouterScore::kSoftmax;
  GroupScore group_score = GroupScore::kMax;
  bool normalise = false;
  float scale = 1;
  std::int32_t* experts = nullptr;  // [rows, top_k]
  float* weights = nullptr;         // [rows, top_k]
};

/// y[i,:] = x[index[i],:]
struct GatherRowsArgs {
  const float* x = nullptr;
  Index x_stride = 0;
  std::span<const std::int32_t> index;
  float* y = nullptr;
  Index y_stride = 0, n = 0;
};

/// y[t,:] += Σ_k weights[t,k] · expert_rows[row_of[t * top_k + k],:], added in slot order of k.
struct CombineArgs {
  const float* expert_rows = nullptr;
  Index expert_stride = 0;
  std::span<const std::int32_t> row_of;  // [rows * top_k]
  const float* weights = nullptr;        // [rows, top_k]
  Index rows = 0, top_k = 0, n = 0;
  float* y = nullptr;
  Index y_stride = 0;
};

/// log softmax(logits[r,:])[ids[r]]; the sum in f64.
struct LogProbArgs {
  const float* logits = nullptr;
  Index stride = 0, n = 0;  // n: vocabulary
  std::span<const std::int32_t> ids;
  float* log_prob = nullptr;  // [ids.size()]
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

  /// Takes about a second, and memory that is given back. The default knows no limits.
  virtual MachineLimits measure_limits() { return {}; }

  /// Runs independent jobs on the device's host threads (loading, sampling).
  virtual void parallel(Index n, const std::function<void(Index)>& job) = 0;
};

}  // namespace kogia
