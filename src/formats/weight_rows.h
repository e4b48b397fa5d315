#pragma once
// The rows of a checkpoint's tensor as f32, whatever it is stored in.

#include <string>

#include "formats/checkpoint.h"

namespace kogia {

/// A tensor as rows: all but the last dimension together. An FP8 weight of a Hugging Face folder is
/// multiplied with X_scale_inv of its blocks.
/// Errors   FP8 without scales, or with scales of another shape, throws Error naming the tensor
/// Threads  read() is const and may be called from several
class WeightRows {
 public:
  /// `block_rows` and `block_cols` of the configuration's weight_block_size.
  WeightRows(const Checkpoint& checkpoint, const TensorEntry& entry, Index block_rows = 128,
             Index block_cols = 128);
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  const TensorEntry& entry() const { return entry_; }
  /// The scales beside an FP8 weight; null for others.
  const TensorEntry* scale() const { return scale_; }

  /// Row `row` as it is stored.
  const std::byte* stored(Index row) const { return entry_.view.data + row * row_bytes_; }
  /// Bytes of a stored row.
  Index stored_bytes() const { return row_bytes_; }
  /// Decodes a row. Throws Error naming row and column of the first value that is NaN, infinite, or
  /// beyond what f16 scales hold.
  void read(Index row, float* out) const;

 private:
  const TensorEntry& entry_;
  const TensorEntry* scale_ = nullptr;
  Index rows_ = 1, cols_ = 1, row_bytes_ = 0;
  Index block_rows_, block_cols_;
};

/// The weight_block_size of config.json, or 128 x 128.
struct BlockSize {
  Index rows = 128, cols = 128;
};
BlockSize fp8_block_size(const Checkpoint& checkpoint);

}  // namespace kogia
