#pragma once
// Where the rows of a run come from.

#include <vector>

#include "train/packed_row.h"

namespace kogia {

class RowSource {
 public:
  virtual ~RowSource() = default;
  /// Rows [first, first + n) of all rows of the run, in its order: the same whenever they are asked
  /// for.
  virtual std::vector<PackedRow> rows(Index first, Index n) = 0;
  /// The first n (0: all) rows of texts that are never learnt from; empty where none is held out.
  virtual std::vector<PackedRow> validation_rows(Index n) = 0;
  /// Bytes of text that a token of those is, in the mean: for bits per byte. 0: not known.
  virtual double validation_bytes_per_token() const = 0;
};

}  // namespace kogia
