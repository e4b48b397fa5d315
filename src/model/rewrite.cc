#include "model/rewrite.h"

#include <algorithm>
#include <cmath>
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

void check_finite(const RowPiece& p, Index row, const float* x) {
  constexpr float kLargestF16 = 65504;
  for (Index c = 0; c < source_cols(p); ++c) {
    if (std::fabs(x[c]) <= kLargestF16) continue;
    throw Error(ErrorCode::kInvalid,
                fmt::format("{}: {}: the weight at row {}, column {} is {}, expected a finite one "
                            "of at most {}",
                            p.source->file, p.source->name, row, c, x[c], kLargestF16),
                "the checkpoint is damaged, or was trained to nothing");
  }
}

void read_source_row(const RowPiece& p, Index row, bool finite, float* out) {
  dequantize_row(p.source->view.dtype, stored_row(p, row), out, source_cols(p));
  if (p.scale != nullptr) apply_scale(p, row, out);
  if (finite) check_finite(p, row, out);
}

/// Rows [first, first + n) of a piece, `cols` wide.
void read_piece(const RowPiece& p, Index first, Index n, Index cols, bool finite, float* out) {
  if (p.order != Order::kTransposed) {
    for (Index i = 0; i < n; ++i) {
      read_source_row(p, source_row(p, first + i), finite, out + i * cols);
    }
    return;
  }
  std::vector<float> row(static_cast<std::size_t>(source_cols(p)));
  for (Index c = 0; c < cols; ++c) {
    read_source_row(p, p.first_row + c, finite, row.data());
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

/// FP8 of the source whose blocks and factors are those that are written.
bool is_fp8_as_written(const TargetTensor& t) {
  if (t.pieces.size() != 1) return false;
  const RowPiece& p = t.pieces.front();
  return p.order == Order::kAsStored && p.scale != nullptr &&
         p.n_rows * source_cols(p) == p.source->view.n_values() &&
         p.scale->view.dtype == DType::f32 && p.block_rows == kFp8Block &&
         p.block_cols == kFp8Block;
}

bool is_copied(const TargetTensor& t) {
  if (t.is_fp8()) return t.source_dtype() == t.dtype && is_fp8_as_written(t);
  return t.values.empty() && std::ranges::all_of(t.pieces, [&](const RowPiece& p) {
           return p.source->view.dtype == t.dtype && p.order != Order::kTransposed &&
                  p.scale == nullptr;
         });
}

void read_target_rows(const TargetTensor& t, Index first_row, Index n_rows, bool finite,
                      float* out) {
  if (!t.values.empty()) {
    std::copy_n(t.values.data() + first_row * t.cols(), n_rows * t.cols(), out);
    return;
  }
  for_pieces(t, first_row, n_rows, [&](const RowPiece& p, Index at, Index n, Index before) {
    read_piece(p, at, n, t.cols(), finite, out + before * t.cols());
  });
}

void encode_fp8_band(const RowsToEncode& rows) {
  const Index cols = rows.target.cols();
  auto* codes = reinterpret_cast<std::uint8_t*>(rows.out);
  for (Index c = 0; c < cols; c += kFp8Block) {
    rows.scales[c / kFp8Block] = encode_fp8_block(rows.x + c, cols, rows.n_rows,
                                                  std::min(kFp8Block, cols - c), codes + c, cols);
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
    const Index band = t.is_fp8() ? kFp8Block : 1;  // rows that are encoded together
    const Index slab = std::max<Index>(kSlabBytes / (widest * band), 1) * band;
    const Index task = t.is_fp8() ? band : std::max<Index>(kTaskBytes / widest, 1);
    scales_.resize(static_cast<std::size_t>(t.is_fp8() ? ceil_div(rows, band) * bands(t) : 0));
    const bool copied = is_copied(t);
    for (Index begin = 0; begin < rows; begin += slab) {
      throw_if_interrupted();
      const Index n = std::min(slab, rows - begin);
      buffer_.resize(static_cast<std::size_t>(n * bytes));
      pool_.parallel_for(n, task, [&](Index first, Index end, int) {
        std::byte* out = buffer_.data() + first * bytes;
        copied ? copy(t, begin + first, end - first, out)
               : encode(t, begin + first, end - first, out);
      });
      append(buffer_);
      release(t, begin, n);
    }
    if (t.is_fp8()) append_scales(t, copied);
  }

 private:
  static constexpr Index kSlabBytes = Index{32} << 20;
  static constexpr Index kTaskBytes = Index{1} << 20;

  static Index bands(const TargetTensor& t) { return ceil_div(t.cols(), kFp8Block); }

  static void copy(const TargetTensor& t, Index first, Index n, std::byte* out) {
    const auto bytes = static_cast<std::size_t>(row_bytes(t.dtype, t.cols()));
    for_pieces(t, first, n, [&](const RowPiece& p, Index at, Index count, Index before) {
      for (Index i = 0; i < count; ++i) {
        std::memcpy(out + static_cast<std::size_t>(before + i) * bytes,
                    stored_row(p, source_row(p, at + i)), bytes);
      }
    });
  }
  void encode(const TargetTensor& t, Index first, Index n, std::byte* out) {
    std::vector<float> x(static_cast<std::size_t>(n * t.cols()));
    read_target_rows(t, first, n, options_.finite, x.data());
    float* scales = t.is_fp8() ? scales_.data() + first / kFp8Block * bands(t) : nullptr;
    options_.encode({.target = t,
                     .first_row = first,
                     .n_rows = n,
                     .x = x.data(),
                     .out = out,
                     .scales = scales});
  }
  void append(std::span<const std::byte> bytes) {
    writer_.append(bytes);
    done_ += static_cast<Index>(bytes.size());
    if (options_.on_progress) options_.on_progress(done_, total_);
  }
  void append_scales(const TargetTensor& t, bool copied) {
    if (!copied) return append(std::as_bytes(std::span(scales_)));
    const TensorView& scale = t.pieces.front().scale->view;
    append({scale.data, static_cast<std::size_t>(scale.n_bytes)});
  }
  /// The pages of the source that rows [first, first + n) came from count as memory of this program
  /// no longer. A transposed piece is needed whole until its last row.
  void release(const TargetTensor& t, Index first, Index n) const {
    for_pieces(t, first, n, [&](const RowPiece& p, Index at, Index count, Index) {
      const Index bytes = row_bytes(p.source->view.dtype, source_cols(p));
      if (p.order != Order::kTransposed) {
        source_.release(stored_row(p, p.first_row + at), count * bytes);
      } else if (at + count == p.n_rows) {
        source_.release(stored_row(p, p.first_row), t.cols() * bytes);
      }
    });
  }

  const Checkpoint& source_;
  TensorWriter& writer_;
  const RewriteOptions& options_;
  ThreadPool pool_;
  Index total_, done_ = 0;
  std::vector<std::byte> buffer_;
  std::vector<float> scales_;  // of the FP8 target that is being written
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
  read_target_rows(t, first_row, n_rows, false, out);
}

void encode_plain(const RowsToEncode& rows) {
  if (rows.target.is_fp8()) return encode_fp8_band(rows);
  const DType dtype = rows.target.dtype;
  const Index cols = rows.target.cols(), bytes = row_bytes(dtype, cols);
  for (Index i = 0; i < rows.n_rows; ++i) {
    encode_row(dtype, rows.x + i * cols, nullptr, rows.out + i * bytes, cols);
  }
}

void write_tensors(const Checkpoint& source, const std::vector<TargetTensor>& targets,
                   TensorWriter& writer, const RewriteOptions& options) {
  for (const TargetTensor& t : targets) {
    writer.declare(t.name, t.dtype, t.shape);
    if (!t.is_fp8()) continue;
    const Index down = ceil_div(t.rows(), kFp8Block), across = ceil_div(t.cols(), kFp8Block);
    writer.declare(t.name + "_scale_inv", DType::f32, {down, across});
  }
  writer.begin();
  Rewriter rewriter(source, writer, options);
  for (const TargetTensor& t : targets) rewriter.write(t);
}

}  // namespace kogia
