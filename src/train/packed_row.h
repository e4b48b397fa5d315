#pragma once
// What a step learns from: rows of equal length, filled with texts.

#include <cstdint>
#include <vector>

#include "base/index.h"

namespace kogia {

/// Texts end to end. Text i is ids[document_begin[i] .. document_begin[i + 1]): one of n tokens
/// predicts n − 1 of them, and nothing of the texts beside it.
struct PackedRow {
  std::vector<std::int32_t> ids;
  std::vector<Index> document_begin;  // ascending, the first is 0

  Index document_end(std::size_t i) const {
    return i + 1 < document_begin.size() ? document_begin[i + 1] : static_cast<Index>(ids.size());
  }
};

}  // namespace kogia
