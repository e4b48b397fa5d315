#pragma once
// From named tensors of a checkpoint to packed weights: shapes checked, jobs collected, then packed
// side by side.

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "model/model.h"
#include "model/ops.h"
#include "model/weight_packer.h"

namespace kogia {

/// The two names of a weight, without ".weight" or ".bias".
struct TensorName {
  std::string hf, gguf;
};

/// Rows [first, first + n) of the matrix that a tensor holds once its leading dimensions are
/// folded.
struct RowSlice {
  Index first = 0, n = 0;
};

/// Collects what a model wants of a checkpoint. Each call checks that the tensor is there and has
/// the shape that the configuration asks for, and remembers a packing job; pack() runs the jobs.
/// Errors: the first missing or mis-shaped tensor is thrown, named with both shapes; finish() names
/// tensors that nothing asked for.
class Binder {
 public:
  Binder(const Checkpoint& checkpoint, Device& device, const ModelConfig& config,
         const LoadOptions& options);

  bool gguf() const { return checkpoint_.kind() == CheckpointKind::kGguf; }
  bool has(const TensorName& name) const;

  /// W [rows, cols]; `arithmetic` overrides the configured one (the router is always f32).
  /// `uses`: how often a model that is trained uses it, each with a gradient of its own.
  void linear(const TensorName& name, Index rows, Index cols, Linear& out,
              std::optional<Compute> arithmetic = {}, Index uses = 1);
  /// The same with its bias [rows].
  void linear_with_bias(const TensorName& name, Index rows, Index cols, Linear& out);
  /// A slice of the rows of a tensor that folds to [total_rows, cols]; packed transposed if asked.
  void slice(const TensorName& name, std::vector<Index> shape, RowSlice rows, bool transpose,
             Linear& out);
  /// f32 copy of a vector [n] of any plain dtype.
  void vector(const TensorName& name, Index n, std::vector<float>& out);
  /// A tensor whose name has no ".weight" after it (HF) or its own suffix: exact names.
  void exact_vector(const TensorName& full_name, Index n, std::vector<float>& out);
  void norm(const TensorName& name, Index n, Norm& out, double eps);
  /// For embed() alone: read in place, not packed.
  void embedding(const TensorName& name, Index rows, Index cols, std::unique_ptr<Matrix>& out);
  /// Where use `use` of so many adds to the gradient of a tensor; null if the model is not trained.
  float* gradient(const TensorName& name, Index use, Index uses);

  /// From here on plain matrices (but for those with an arithmetic of their own) are rounded to
  /// Q8_0 and multiplied in int8, if so: see LoadOptions::guess_in_int8.
  void guess(bool on) { guesses_ = on; }
  bool guesses(const TensorName& name, Index cols) const {
    return guesses(checkpoint_.require(file_name(name, ".weight")).view.dtype, cols);
  }

  /// Marks tensors as known although nothing loads them: exact names, or prefixes that end in '.'.
  void ignore(const std::string& name_or_prefix);

  /// Throws if the checkpoint holds tensors that were neither asked for nor ignored.
  void finish() const;
  /// Makes the matrices, as the options say: kept, packed or borrowed.
  void pack();
  /// Source bytes per "dtype (arithmetic)", for a summary.
  const std::map<std::string, Index>& formats() const { return formats_; }
  /// Memory of the packed matrices; after pack().
  Index n_packed_bytes() const { return n_packed_bytes_; }
  /// f32 throughout is what somebody wants, or what weights of f32 and f16 want. (That the device
  /// multiplies bf16 in f32 is no sign of it.)
  bool asks_for_f32() const;

 private:
  std::string file_name(const TensorName& name, const char* suffix) const;
  const TensorEntry& take(const std::string& name, const std::vector<Index>& shape);
  MatrixSource source(const TensorEntry& entry, Index rows, Index cols);
  void attach_scale(const TensorEntry& entry, MatrixSource& source, Index total_rows);
  Compute arithmetic_for(DType dtype) const;
  bool guesses(DType dtype, Index cols) const;
  void add_job(const TensorEntry& entry, const MatrixSource& source, PackOptions options,
               std::unique_ptr<Matrix>& out, bool guess = false);
  void add_matrix(const TensorEntry& entry, const MatrixSource& source, PackOptions options,
                  Linear& out, Index uses = 1, bool guess = false);

  const Checkpoint& checkpoint_;
  Device& device_;
  const ModelConfig& config_;
  const LoadOptions& options_;
  std::vector<PackJob> jobs_;
  std::set<std::string, std::less<>> taken_;
  std::vector<std::string> ignored_;
  bool guesses_ = false;
  Index n_packed_bytes_ = 0;
  std::map<std::string, Index> formats_;
};

}  // namespace kogia
