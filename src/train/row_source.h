#pragma once
// Where the rows of a run come from.

#include <span>
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
  /// By id, bytes of the text that a token stands for (0: of none, as the end of text is), for bits
  /// per byte. Empty: not known.
  virtual std::span<const Index> token_bytes() const { return {}; }
};

}  // namespace kogia
