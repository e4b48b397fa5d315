#include "device/reference/matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/page_memory.h"
#include "tensor/convert.h"

namespace kogia::reference {
namespace {

bool is_fp8(DType dtype) { return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2; }

/// Rows as the source has them, in the caller's memory or the file's.
class SourceMatrix final : public Matrix {
 public:
  /// `packed`: what `source` points into; null: borrowed. Transposed only where borrowed.
  SourceMatrix(const MatrixSource& source, DType dtype, Compute compute, bool transpose,
               std::shared_ptr<const std::byte> packed, Index n_bytes)
      : Matrix(transpose ? source.cols : source.rows, transpose ? source.rows : source.cols, dtype,
               compute),
        source_(source),
        transpose_(transpose),
        packed_(std::move(packed)) {
    n_bytes_ = n_bytes;
  }
  const MatrixSource& source() const { return source_; }
  bool transpose() const { return transpose_; }

 private:
  MatrixSource source_;
  bool transpose_;
  std::shared_ptr<const std::byte> packed_;
};

const SourceMatrix& as_source(const Matrix* w) {
  KOGIA_CHECK(w != nullptr);
  return static_cast<const SourceMatrix&>(*w);
}

void check_source(const MatrixSource& s) {
  KOGIA_CHECK(s.rows >= 0 && s.cols >= 0 && (s.data != nullptr || s.rows * s.cols == 0));
  KOGIA_CHECK(s.scale == nullptr ||
              (s.scale_cols == ceil_div(s.cols, s.block_cols) && s.first_row >= 0));
}

double round_trip(float x, float inverse, float d) {
  return static_cast<double>(std::nearbyint(x * inverse)) * static_cast<double>(d);
}

// Rows of x that are multiplied together, so that a decoded weight is used often.
constexpr Index kTileRows = 16;

void linear_tile(const LinearArgs& a, const MatrixSource& w, DType dtype, Compute compute, Index r0,
                 Index o0, Index o1) {
  const Index n = std::min(kTileRows, a.rows - r0), k = w.cols;
  // Columns first, [cols, kTileRows]: the compiler then adds several rows at once.
  std::vector<double> x(static_cast<std::size_t>(k * kTileRows)), row(static_cast<std::size_t>(k));
  for (Index r = 0; r < n; ++r) {
    round_activations(compute, dtype, a.x + (r0 + r) * a.x_stride, row.data(), k);
    for (Index i = 0; i < k; ++i)
      x[static_cast<std::size_t>(i * kTileRows + r)] = row[static_cast<std::size_t>(i)];
  }
  std::vector<float> weights(static_cast<std::size_t>(k));
  for (Index o = o0; o < o1; ++o) {
    decode_row(w, o, weights.data());
    double sum[kTileRows] = {};
    const double* xi = x.data();
    for (const float weight : weights) {
      for (Index r = 0; r < kTileRows; ++r) sum[r] += xi[r] * static_cast<double>(weight);
      xi += kTileRows;
    }
    for (Index r = 0; r < n; ++r) {
      const Index at = (r0 + r) * a.y_stride + o;
      if (a.bias != nullptr) sum[r] += static_cast<double>(a.bias[o]);
      if (a.residual != nullptr) sum[r] += static_cast<double>(a.residual[at]);
      a.y[at] = static_cast<float>(sum[r]);
    }
  }
}

}  // namespace

Compute default_compute(DType weights) {
  if (weights == DType::bf16 || is_fp8(weights)) return Compute::bf16;
  return is_block(weights) ? Compute::int8 : Compute::f32;
}

bool supports(DType weights, Compute compute) {
  const bool plain = weights == DType::f32 || weights == DType::f16 || weights == DType::bf16;
  if (!plain && !is_fp8(weights) && !is_block(weights)) return false;
  if (compute == Compute::int8 || compute == Compute::int16) return is_block(weights);
  return compute != Compute::fp8 || is_fp8(weights);
}

void decode_row(const MatrixSource& s, Index r, float* dst) {
  dequantize_row(s.dtype, s.data + r * row_bytes(s.dtype, s.cols), dst, s.cols);
  if (s.scale == nullptr) return;
  const Index scale_row = (s.first_row + r) / s.block_rows;
  const Index value_bytes = info(s.scale_dtype).block_bytes;
  for (Index c = 0; c < s.cols; c += s.block_cols) {
    float scale = 0;
    const Index at = scale_row * s.scale_cols + c / s.block_cols;
    dequantize_row(s.scale_dtype, s.scale + at * value_bytes, &scale, 1);
    for (Index i = c; i < std::min(s.cols, c + s.block_cols); ++i) dst[i] *= scale;
  }
}

void round_activations(Compute compute, DType weights, const float* x, double* rounded, Index n) {
  const bool as_is = compute == Compute::f32 ||
                     (compute == Compute::bf16 && (weights == DType::f32 || weights == DType::f16));
  if (as_is) {
    std::copy_n(x, n, rounded);
  } else if (compute == Compute::bf16) {
    for (Index i = 0; i < n; ++i) rounded[i] = static_cast<double>(round_bf16(x[i]));
  } else {
    const bool whole = compute == Compute::int8 || compute == Compute::int16;
    const Index block = whole ? 32 : 128;
    for (Index b = 0; b < n; b += block) {
      const Index end = std::min(n, b + block);
      float top = 0;
      for (Index i = b; i < end; ++i) top = std::max(top, std::fabs(x[i]));
      if (whole) {
        const float most = compute == Compute::int8 ? 127 : 32767;
        const float d = top / most, inverse = top > 0 ? most / top : 0;
        for (Index i = b; i < end; ++i) rounded[i] = round_trip(x[i], inverse, d);
      } else {
        const float s = std::max(top, 1e-4F) / 448;
        for (Index i = b; i < end; ++i) {
          rounded[i] =
              static_cast<double>(e4m3_to_f32(f32_to_e4m3(x[i] / s))) * static_cast<double>(s);
        }
      }
    }
  }
}

void check_packable(const MatrixSource& source, const PackOptions& options) {
  check_source(source);
  if (!supports(source.dtype, options.compute)) {
    throw_error(ErrorCode::kUnsupported, "weights stored as {} cannot be multiplied in {}",
                name(source.dtype), name(options.compute));
  }
}

namespace {

Index scale_bytes(const MatrixSource& s) {
  if (s.scale == nullptr) return 0;
  return ceil_div(s.first_row + s.rows, s.block_rows) * row_bytes(s.scale_dtype, s.scale_cols);
}

/// Columns [first, first + n) of the source as rows of f32.
void transpose_rows(const MatrixSource& s, Index first, Index n, float* to) {
  std::vector<float> row(static_cast<std::size_t>(s.cols));
  for (Index r = 0; r < s.rows; ++r) {
    decode_row(s, r, row.data());
    for (Index c = 0; c < n; ++c) to[c * s.rows + r] = row[static_cast<std::size_t>(first + c)];
  }
}

}  // namespace

PackedForm packed_form(const MatrixSource& s, const PackOptions& options, std::optional<int>) {
  check_packable(s, options);
  const Index step =
      options.transpose ? s.rows * static_cast<Index>(sizeof(float)) : row_bytes(s.dtype, s.cols);
  return {.name = fmt::format("rows-1 {} [{}, {}]{}", name(s.dtype), s.rows, s.cols,
                              options.transpose ? " transposed" : ""),
          .n_bytes = options.transpose ? s.cols * step : s.rows * step + scale_bytes(s),
          .step_bytes = step};
}

void pack_rows(const MatrixSource& s, const PackOptions& options, const PackedForm& form,
               Index first, Index n, std::byte* to) {
  if (options.transpose) return transpose_rows(s, first, n, reinterpret_cast<float*>(to));
  std::copy_n(s.data + first * form.step_bytes, n * form.step_bytes, to);
  if (first + n == s.rows) std::copy_n(s.scale, scale_bytes(s), to + n * form.step_bytes);
}

std::unique_ptr<Matrix> adopt(const MatrixSource& source, const PackOptions& options,
                              const PackedForm& form, std::shared_ptr<const std::byte> packed) {
  check_packable(source, options);
  MatrixSource s = source;
  if (options.transpose) s = {.rows = source.cols, .cols = source.rows};
  s.data = packed.get();
  if (s.scale != nullptr) s.scale = packed.get() + s.rows * row_bytes(s.dtype, s.cols);
  return std::make_unique<SourceMatrix>(s, source.dtype, options.compute, /*transpose=*/false,
                                        std::move(packed), form.n_bytes);
}

std::unique_ptr<Matrix> borrow(const MatrixSource& source, const PackOptions& options) {
  check_packable(source, options);
  return std::make_unique<SourceMatrix>(source, source.dtype, options.compute, options.transpose,
                                        nullptr, 0);
}

std::unique_ptr<Matrix> pack(const MatrixSource& source, const PackOptions& options) {
  const PackedForm form = packed_form(source, options);
  const auto memory = allocate_pages(form.n_bytes);
  pack_rows(source, options, form, 0, options.transpose ? source.cols : source.rows, memory.get());
  return adopt(source, options, form, memory);
}

void embed(const EmbedArgs& a, ThreadPool& pool) {
  const SourceMatrix& table = as_source(a.table);
  pool.parallel_for(static_cast<Index>(a.ids.size()), 16, [&](Index begin, Index end, int) {
    for (Index i = begin; i < end; ++i) {
      const Index id = a.ids[static_cast<std::size_t>(i)];
      KOGIA_CHECK(id >= 0 && id < table.rows());
      decode_row(table.source(), id, a.y + i * table.cols());
    }
  });
}

void linear(std::span<const LinearArgs> products, ThreadPool& pool) {
  for (const LinearArgs& a : products) {
    const SourceMatrix& w = as_source(a.w);
    MatrixSource source = w.source();
    std::vector<float> values;
    if (w.transpose()) {
      values.resize(static_cast<std::size_t>(w.rows() * w.cols()));
      transpose_rows(source, 0, w.rows(), values.data());
      source = {.rows = w.rows(),
                .cols = w.cols(),
                .data = reinterpret_cast<const std::byte*>(values.data())};
    }
    // A transposed block format is decoded; how x is rounded stays its own.
    const DType rounding = w.dtype();
    constexpr Index kTileOuts = 64;
    const Index row_tiles = ceil_div(a.rows, kTileRows), out_tiles = ceil_div(w.rows(), kTileOuts);
    pool.run(row_tiles * out_tiles, [&](Index task, int) {
      const Index o0 = task % out_tiles * kTileOuts;
      linear_tile(a, source, rounding, w.compute(), task / out_tiles * kTileRows, o0,
                  std::min(w.rows(), o0 + kTileOuts));
    });
  }
}

}  // namespace kogia::reference
