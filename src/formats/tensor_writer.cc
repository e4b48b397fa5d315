#include "formats/tensor_writer.h"

#include <algorithm>

#include "base/error.h"
#include "formats/tensor_table.h"

namespace kogia {

void TensorWriter::declare(std::string name, DType dtype, std::vector<Index> shape) {
  KOGIA_CHECK(shape.empty() || shape.back() % info(dtype).block_values == 0);
  const auto n_bytes = checked_bytes(dtype, shape);
  KOGIA_CHECK(n_bytes && *n_bytes > 0);
  tensors_.push_back({std::move(name), dtype, std::move(shape), *n_bytes});
}

Index TensorWriter::n_declared_bytes() const {
  Index n = 0;
  for (const Declared& t : tensors_) n += t.n_bytes;
  return n;
}

void TensorWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    KOGIA_CHECK(current_ < tensors_.size());
    const Declared& t = tensors_[current_];
    if (written_ == 0) begin_tensor(current_);
    const auto n = std::min(bytes.size(), static_cast<std::size_t>(t.n_bytes - written_));
    append_to_tensor(bytes.first(n));
    bytes = bytes.subspan(n);
    written_ += static_cast<Index>(n);
    if (written_ == t.n_bytes) {
      end_tensor(current_);
      ++current_;
      written_ = 0;
    }
  }
}

}  // namespace kogia
