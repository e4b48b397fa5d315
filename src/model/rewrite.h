#pragma once
// A checkpoint written again in another container or another type: a list of target tensors, each
// with where its rows come from, and the stream that makes them.
//
//   plan_gguf / plan_folder / plan_same
//                    what the target holds, every tensor in the type it has in the source
//   (the caller)     sets TargetTensor::dtype, by name, shape and use
//   write_tensors    declares, encodes, appends; memory holds a few megabytes a thread
//
// The only stream that writes a checkpoint from a checkpoint: `kogia convert` and `kogia quantize`
// are plans on it.

#include <functional>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/tensor_writer.h"
#include "model/tensor_map.h"

namespace kogia {

/// Rows of a tensor of the source that become rows of a target. Rows are those of a tensor whose
/// leading dimensions are folded; a vector is one row.
struct RowPiece {
  enum class Order {
    kAsStored,
    kPairsFromHalves,  // within each head of head_rows rows: the rotary layout of llama's GGUFs
    kHalvesFromPairs,
    kTransposed,  // the target's n_rows rows are the columns of as many source rows as it has
                  // columns
  };
  const TensorEntry* source = nullptr;
  Index first_row = 0, n_rows = 0;  // first of the source, number in the target
  Order order = Order::kAsStored;
  Index head_rows = 0;
  const TensorEntry* scale = nullptr;  // of an FP8 source: factors of its blocks
  Index block_rows = 128, block_cols = 128;
};

struct TargetTensor {
  std::string name;
  std::vector<Index> shape;  // slowest first
  DType dtype = DType::f32;  // as in the source; bf16 for FP8
  TensorUse use = TensorUse::kMatrix;
  std::vector<RowPiece> pieces;
  std::vector<float> values = {};  // instead of pieces: made here (rope_freqs), f32

  Index rows() const;
  Index cols() const { return shape.back(); }
  /// E4M3 in blocks, with factors in a tensor of their own: NAME_scale_inv.
  bool is_fp8() const { return dtype == DType::f8_e4m3; }
  DType source_dtype() const;  // f32 for values
};

/// The tensors of a GGUF (llama.cpp's names, experts stacked, kv_b split, q and k of llama
/// permuted, llama3's scaling as rope_freqs) or of a folder (official names), from a checkpoint of
/// either kind and any generation. `mtp` asks for the multi-token prediction layers, where the
/// source has them. Errors  a tensor that is missing, of another shape, of no floating type, or
/// that the
///         configuration does not know, throws Error naming it
std::vector<TargetTensor> plan_gguf(const Checkpoint& source, const ModelConfig& config, bool mtp);
std::vector<TargetTensor> plan_folder(const Checkpoint& source, const ModelConfig& config,
                                      bool mtp);
/// The tensors of a GGUF as they are named and shaped in it, whatever they are for (all uses are
/// kMatrix) and of whatever type.
/// Errors  an empty tensor throws Error naming it
std::vector<TargetTensor> plan_same(const Checkpoint& source);
/// The source holds the tensors of its multi-token prediction layers.
bool has_mtp(const Checkpoint& source, const ModelConfig& config);

/// FP8 that is written has a factor (f32) for each 128 x 128 weights, as DeepSeek's.
inline constexpr Index kFp8Block = 128;

/// Rows of a target on their way into its type.
struct RowsToEncode {
  const TargetTensor& target;
  Index first_row, n_rows;  // of FP8 one band of blocks: kFp8Block rows, fewer at the end
  const float* x;           // [n_rows, cols]
  std::byte* out;
  float* scales;  // of FP8: the factors of the band's blocks; else null
};
/// Called by several threads at once.
using EncodeRows = std::function<void(const RowsToEncode& rows)>;
/// Without importance: encode_row() and encode_fp8_block() of each.
void encode_plain(const RowsToEncode& rows);

struct RewriteOptions {
  int n_threads = 0;  // 0: all cores
  std::function<void(Index done_bytes, Index total_bytes)> on_progress = {};
  EncodeRows encode = encode_plain;
  /// Refuse what is encoded and NaN, infinite, or beyond what f16 scales hold: Error naming tensor,
  /// row and column of the source.
  bool finite = false;
};

/// Declares the targets and writes them; the caller commits. Rows that keep their type and order
/// are copied to the bit. An FP8 target is followed by its NAME_scale_inv; E4M3 in blocks of 128 x
/// 128 with f32 factors is copied. The same bytes for any number of threads.
/// Ctrl-C  is looked for between slabs of rows (throws)
void write_tensors(const Checkpoint& source, const std::vector<TargetTensor>& targets,
                   TensorWriter& writer, const RewriteOptions& options);

/// One row of a target as f32, for a look at its values.
void read_rows(const TargetTensor& target, Index first_row, Index n_rows, float* out);

}  // namespace kogia
