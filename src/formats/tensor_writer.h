#pragma once
// Checkpoints written as a stream: all tensors are declared, then their bytes follow in that order.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

/// Call declare() for each tensor, begin(), append() until every declared byte is there, commit().
/// Without commit() nothing appears at the target.
///
/// Errors  what the disk refuses throws Error naming the file; a wrong order of calls, or more or
///         fewer bytes than declared, is a KOGIA_CHECK
class TensorWriter {
 public:
  virtual ~TensorWriter() = default;

  /// `shape` slowest first; rows are whole blocks.
  void declare(std::string name, DType dtype, std::vector<Index> shape);
  /// Bytes of all declared tensors.
  Index n_declared_bytes() const;
  /// Throws Error where the disk has no room for them.
  virtual void begin() = 0;
  /// Bytes of the tensors end to end; padding between them is added here.
  void append(std::span<const std::byte> bytes);
  virtual void commit() = 0;

 protected:
  struct Declared {
    std::string name;
    DType dtype;
    std::vector<Index> shape;
    Index n_bytes;
  };
  virtual void begin_tensor(std::size_t index) = 0;
  virtual void append_to_tensor(std::span<const std::byte> bytes) = 0;
  virtual void end_tensor(std::size_t index) = 0;
  bool all_written() const { return current_ == tensors_.size(); }

  std::vector<Declared> tensors_;

 private:
  std::size_t current_ = 0;  // the tensor whose bytes come next
  Index written_ = 0;        // bytes of it
};

}  // namespace kogia
