#pragma once
// Borrowed views of tensors and matrices. None of them owns memory.

#include <cstddef>
#include <type_traits>
#include <vector>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

/// A tensor as a file stores it: row-major, slowest dimension first (Hugging Face order; a GGUF
/// reader reverses its `ne`). `data` may be unaligned for the type.
struct TensorView {
  DType dtype = DType::f32;
  std::vector<Index> shape;
  const std::byte* data = nullptr;
  Index n_bytes = 0;

  Index n_values() const {
    Index n = 1;
    for (Index d : shape) n *= d;
    return n;
  }
};

/// A dense matrix of T with a row stride in elements.
template <class T>
struct MatView {
  T* data = nullptr;
  Index rows = 0, cols = 0, stride = 0;

  MatView() = default;
  MatView(T* d, Index r, Index c) : data(d), rows(r), cols(c), stride(c) {}
  MatView(T* d, Index r, Index c, Index s) : data(d), rows(r), cols(c), stride(s) {}
  T* row(Index r) const { return data + r * stride; }
  /// Columns [begin, begin + n).
  MatView columns(Index begin, Index n) const { return {data + begin, rows, n, stride}; }
  operator MatView<const T>() const  // NOLINT: a view that may write is a view that may read
    requires(!std::is_const_v<T>)
  {
    return {data, rows, cols, stride};
  }
};
using Mat = MatView<float>;
using ConstMat = MatView<const float>;

}  // namespace kogia
