#include "model/rewrite.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/thread_pool.h"
#include "tensor/convert.h"
#include "tensor/quantize.h"

namespace kogia {
namespace {

using Order = RowPiece::Order;

Index source_cols(const RowPiece& p) { return p.source->view.shape.back(); }

/// The row of the source that a target row of an untransposed piece is.
Index source_row(const RowPiece& p, Index row) {
  const Index half = p.head_rows / 2;
  switch (p.order) {
    case Order::kPairsFromHalves: {
      const Index head = row / p.head_rows, i = row % p.head_rows;
      return p.first_row + head * p.head_rows + i % 2 * half + i / 2;
    }
    case Order::kHalvesFromPairs: {
      const Index head = row / p.head_rows, i = row % p.head_rows;
      return p.first_row + head * p.head_rows + i % half * 2 + i / half;
    }
    default:
      return p.first_row + row;
  }
}

const std::byte* stored_row(const RowPiece& p, Index row) {
  return p.source->view.data + row * row_bytes(p.source->view.dtype, source_cols(p));
}

/// Multiplies a decoded FP8 row with the factors of its blocks.
void apply_scale(const RowPiece& p, Index row, float* x) {
  const TensorView& scale = p.scale->view;
  const Index cols = source_cols(p), blocks = scale.shape.back();
  std::vector<float> factors(static_cast<std::size_t>(blocks));
  dequantize_row(scale.dtype, scale.data + row / p.block_rows * row_bytes(scale.dtype, blocks),
                 factors.data(), blocks);
  for (Index c = 0; c < cols; ++c) x[c] *= factors[static_cast<std::size_t>(c / p.block_cols)];
}

void read_source_row(const RowPiece& p, Index row, float* out) {
  dequantize_row(p.source->view.dtype, stored_row(p, row), out, source_cols(p));
  if (p.scale != nullptr) apply_scale(p, row, out);
}

/// Rows [first, first + n) of a piece, `cols` wide.
void read_piece(const RowPiece& p, Index first, Index n, Index cols, float* out) {
  if (p.order != Order::kTransposed) {
    for (Index i = 0; i < n; ++i) read_source_row(p, source_row(p, first + i), out + i * cols);
    return;
  }
  std::vector<float> row(static_cast<std::size_t>(source_cols(p)));
  for (Index c = 0; c < cols; ++c) {
    read_source_row(p, p.first_row + c, row.data());
    for (Index i = 0; i < n; ++i) out[i * cols + c] = row[static_cast<std::size_t>(first + i)];
  }
}

/// Calls f(piece, first row of it, number of rows, rows done before) for rows [first, first + n).
template <class F>
void for_pieces(const TargetTensor& t, Index first, Index n, F&& f) {
  Index begin = 0;
  for (const RowPiece& p : t.pieces) {
    const Index from = std::max(first, begin), to = std::min(first + n, begin + p.n_rows);
    if (from < to) f(p, from - begin, to - from, from - first);
    begin += p.n_rows;
  }
}

bool is_copied(const TargetTensor& t) {
  return t.values.empty() && std::ranges::all_of(t.pieces, [&](const RowPiece& p) {
           return p.source->view.dtype == t.dtype && p.order != Order::kTransposed &&
                  p.scale == nullptr;
         });
}

void encode_plain(const TargetTensor& t, Index n_rows, const float* x, std::byte* out) {
  const Index bytes = row_bytes(t.dtype, t.cols());
  for (Index i = 0; i < n_rows; ++i) {
    encode_row(t.dtype, x + i * t.cols(), nullptr, out + i * bytes, t.cols());
  }
}

/// Makes the bytes of one target after the other.
class Rewriter {
 public:
  Rewriter(const Checkpoint& source, TensorWriter& writer, const RewriteOptions& options)
      : source_(source),
        writer_(writer),
        options_(options),
        pool_(options.n_threads),
        total_(writer.n_declared_bytes()) {}

  void write(const TargetTensor& t) {
    const Index bytes = row_bytes(t.dtype, t.cols()), rows = t.rows();
    const Index widest = std::max(bytes, t.cols() * 4);
    const Index slab = std::clamp<Index>(kSlabBytes / widest, 1, rows);
    const bool copied = is_copied(t);
    for (Index begin = 0; begin < rows; begin += slab) {
      throw_if_interrupted();
      const Index n = std::min(slab, rows - begin);
      buffer_.resize(static_cast<std::size_t>(n * bytes));
      const Index task = std::clamp<Index>(kTaskBytes / widest, 1, n);
      pool_.parallel_for(n, task, [&](Index first, Index end, int) {
        std::byte* out = buffer_.data() + first * bytes;
        copied ? copy(t, begin + first, end - first, out)
               : encode(t, begin + first, end - first, out);
      });
      append();
    }
    release(t);
  }

 private:
  static constexpr Index kSlabBytes = Index{32} << 20;
  static constexpr Index kTaskBytes = Index{1} << 20;

  static void copy(const TargetTensor& t, Index first, Index n, std::byte* out) {
    const auto bytes = static_cast<std::size_t>(row_bytes(t.dtype, t.cols()));
    for_pieces(t, first, n, [&](const RowPiece& p, Index at, Index count, Index before) {
      for (Index i = 0; i < count; ++i) {
        std::memcpy(out + static_cast<std::size_t>(before + i) * bytes,
                    stored_row(p, source_row(p, at + i)), bytes);
      }
    });
  }
  void encode(const TargetTensor& t, Index first, Index n, std::byte* out) const {
    std::vector<float> x(static_cast<std::size_t>(n * t.cols()));
    read_rows(t, first, n, x.data());
    options_.encode ? options_.encode(t, first, n, x.data(), out)
                    : encode_plain(t, n, x.data(), out);
  }
  void append() {
    writer_.append(buffer_);
    done_ += static_cast<Index>(buffer_.size());
    if (options_.on_progress) options_.on_progress(done_, total_);
  }
  /// The pages of the source count as memory of this program no longer.
  void release(const TargetTensor& t) const {
    for (const RowPiece& p : t.pieces) {
      const Index rows = p.order == Order::kTransposed ? t.cols() : p.n_rows;
      source_.release(stored_row(p, p.first_row),
                      rows * row_bytes(p.source->view.dtype, source_cols(p)));
    }
  }

  const Checkpoint& source_;
  TensorWriter& writer_;
  const RewriteOptions& options_;
  ThreadPool pool_;
  Index total_, done_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace

Index TargetTensor::rows() const {
  Index n = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

DType TargetTensor::source_dtype() const {
  return pieces.empty() ? DType::f32 : pieces.front().source->view.dtype;
}

void read_rows(const TargetTensor& t, Index first_row, Index n_rows, float* out) {
  if (!t.values.empty()) {
    std::copy_n(t.values.data() + first_row * t.cols(), n_rows * t.cols(), out);
    return;
  }
  for_pieces(t, first_row, n_rows, [&](const RowPiece& p, Index at, Index n, Index before) {
    read_piece(p, at, n, t.cols(), out + before * t.cols());
  });
}

void write_tensors(const Checkpoint& source, const std::vector<TargetTensor>& targets,
                   TensorWriter& writer, const RewriteOptions& options) {
  for (const TargetTensor& t : targets) writer.declare(t.name, t.dtype, t.shape);
  writer.begin();
  Rewriter rewriter(source, writer, options);
  for (const TargetTensor& t : targets) rewriter.write(t);
}

}  // namespace kogia
