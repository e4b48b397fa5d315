#pragma once
// The tensors of a checkpoint, by name, and the arithmetic of their sizes without overflow.

#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/checkpoint.h"

namespace kogia {

/// a · b, or nullopt where it does not fit; both at least 0.
std::optional<Index> checked_multiply(Index a, Index b);
/// Bytes of a tensor; nullopt on overflow. The last dimension is whole blocks (the caller has
/// checked).
std::optional<Index> checked_bytes(DType dtype, std::span<const Index> shape);

class TensorTable {
 public:
  /// Throws kInvalid naming both files if the name is there already.
  void add(TensorEntry entry);
  const TensorEntry* find(std::string_view name) const;
  const std::vector<TensorEntry>& all() const { return entries_; }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<TensorEntry> entries_;
  std::unordered_map<std::string, std::size_t, Hash, std::equal_to<>> by_name_;
};

}  // namespace kogia
