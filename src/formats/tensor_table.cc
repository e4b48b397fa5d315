#include "formats/tensor_table.h"

#include "base/error.h"

namespace kogia {

std::optional<Index> checked_multiply(Index a, Index b) {
  Index product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

std::optional<Index> checked_bytes(DType dtype, std::span<const Index> shape) {
  Index n = 1;
  for (const Index d : shape) {
    const auto product = checked_multiply(n, d);
    if (!product) return std::nullopt;
    n = *product;
  }
  return checked_multiply(n / info(dtype).block_values, info(dtype).block_bytes);
}

void TensorTable::add(TensorEntry entry) {
  const auto [at, is_new] = by_name_.try_emplace(entry.name, entries_.size());
  if (!is_new) {
    throw_error(ErrorCode::kInvalid, "tensor {} is in {} and again in {}", entry.name,
                entries_[at->second].file, entry.file);
  }
  entries_.push_back(std::move(entry));
}

const TensorEntry* TensorTable::find(std::string_view name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &entries_[at->second];
}

}  // namespace kogia
