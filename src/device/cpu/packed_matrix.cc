#include "device/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "device/cpu/block_codes.h"
#include "device/reference/matrix.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

bool is_fp8(DType dtype) { return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2; }

Index code_bits(Codes codes) {
  switch (codes) {
    case Codes::nibble:
      return 4;
    case Codes::int8:
    case Codes::fp8:
      return 8;
    case Codes::bf16:
      return 16;
    case Codes::f32:
      break;
  }
  return 32;
}

Rounding rounding_of(Compute compute, DType weights) {
  switch (compute) {
    case Compute::f32:
      break;
    case Compute::bf16:
      return weights == DType::f32 || weights == DType::f16 ? Rounding::none : Rounding::bf16;
    case Compute::int8:
      return Rounding::int8;
    case Compute::fp8:
      return Rounding::e4m3;
  }
  return Rounding::none;
}

Codes codes_of_format(const MatrixSource& s, bool transpose) {
  if (s.dtype == DType::bf16) return Codes::bf16;
  if (transpose) return Codes::f32;
  if (is_block(s.dtype)) return block_shape(s.dtype).nibble ? Codes::nibble : Codes::int8;
  // Scales of odd blocks do not fit the groups: such weights are kept as their values.
  if (is_fp8(s.dtype) && (s.scale == nullptr || s.block_cols % 32 == 0)) return Codes::fp8;
  return Codes::f32;
}

}  // namespace

PackedMatrix::PackedMatrix(const MatrixSource& source, const PackOptions& options,
                           bool bf16_products)
    : Matrix(options.transpose ? source.cols : source.rows,
             options.transpose ? source.rows : source.cols, source.dtype, options.compute) {
  choose_layout(source, options.transpose, bf16_products);
  allocate();
  fill_table();
  if (view_.codes == Codes::nibble || view_.codes == Codes::int8) {
    pack_blocks(source);
  } else if (view_.codes == Codes::fp8) {
    pack_fp8(source);
  } else {
    pack_values(source, options.transpose);
  }
}

void PackedMatrix::choose_layout(const MatrixSource& source, bool transpose, bool bf16_products) {
  PackedView& v = view_;
  v.rows = rows_;
  v.cols = cols_;
  v.codes = codes_of_format(source, transpose);
  v.rounding = rounding_of(compute_, dtype_);
  v.bf16_products = bf16_products && v.rounding == Rounding::bf16 && v.codes != Codes::f32;
  if (v.codes == Codes::nibble || v.codes == Codes::int8) {
    const BlockShape shape = block_shape(dtype_);
    v.group = shape.group;
    v.scale = shape.f16 ? ScaleType::f16 : ScaleType::f32;
    v.has_min = shape.has_min;
    lowest_ = shape.lowest;
  } else if (v.codes == Codes::fp8 && source.scale != nullptr) {
    v.scale = ScaleType::f32;
    v.groups_per_record = source.block_cols / v.group;
  }
  v.n_groups = ceil_div(cols_, v.group);
  v.group_bytes = v.group * kPanelRows * code_bits(v.codes) / 8;
  // So that vectors of codes lie on cache lines.
  v.codes_offset = round_up(v.scale_bytes() * (v.has_min ? 2 : 1), 64);
  v.record_bytes = v.codes_offset + v.groups_per_record * v.group_bytes;
  v.panel_bytes = ceil_div(v.n_groups, v.groups_per_record) * v.record_bytes;
}

void PackedMatrix::allocate() {
  n_bytes_ = view_.n_panels() * view_.panel_bytes;
  const std::size_t n = static_cast<std::size_t>(n_bytes_);
  bytes_.reset(static_cast<std::byte*>(::operator new[](n, std::align_val_t{64})));
  std::memset(bytes_.get(), 0, n);
  view_.data = bytes_.get();
}

void PackedMatrix::fill_table() {
  if (view_.codes == Codes::nibble) {
    // Twice, since the kernels' look-ups do not clear the bit above a nibble.
    for (int i = 0; i < 32; ++i) table_[i] = f32_to_bf16(static_cast<float>(i % 16 + lowest_));
  } else if (view_.codes == Codes::fp8) {
    for (int i = 0; i < 128; ++i) {
      const auto code = static_cast<std::uint8_t>(i);
      table_[i] = f32_to_bf16(dtype_ == DType::f8_e4m3 ? e4m3_to_f32(code) : e5m2_to_f32(code));
    }
  }
  view_.table = table_;
}

void PackedMatrix::pack_blocks(const MatrixSource& s) {
  const DTypeInfo& format = info(s.dtype);
  const Index n_blocks = s.cols / format.block_values, row_size = row_bytes(s.dtype, s.cols);
  BlockCodes block = {};
  for (Index r = 0; r < s.rows; ++r) {
    for (Index b = 0; b < n_blocks; ++b) {
      take_apart(s.dtype, s.data + r * row_size + b * format.block_bytes, block);
      const Index first = b * format.block_values;
      for (Index i = 0; i < format.block_values; i += 8) {
        std::byte* chunk = bytes_.get() + chunk_at(r, first + i);
        for (Index c = 0; c < 8; ++c) {
          put_code(chunk, r % kPanelRows, c, block.code[i + c] - lowest_);
        }
      }
      for (Index g = 0; g < format.block_values / view_.group; ++g) {
        put_scale(r, first / view_.group + g, block.scale[g], block.min[g]);
      }
    }
  }
}

void PackedMatrix::pack_fp8(const MatrixSource& s) {
  for (Index r = 0; r < s.rows; ++r) {
    for (Index c = 0; c < s.cols; ++c) {
      put_code(bytes_.get() + chunk_at(r, c), r % kPanelRows, c % 8,
               std::to_integer<int>(s.data[r * s.cols + c]));
    }
    if (s.scale == nullptr) continue;
    const Index first = (s.first_row + r) / s.block_rows * s.scale_cols;
    const Index value_bytes = info(s.scale_dtype).block_bytes;
    for (Index b = 0; b < ceil_div(s.cols, s.block_cols); ++b) {
      float scale = 0;
      dequantize_row(s.scale_dtype, s.scale + (first + b) * value_bytes, &scale, 1);
      put_scale(r, b, scale, 0);
    }
  }
}

void PackedMatrix::pack_values(const MatrixSource& s, bool transpose) {
  std::vector<float> row(static_cast<std::size_t>(s.cols));
  for (Index r = 0; r < s.rows; ++r) {
    reference::decode_row(s, r, row.data());
    for (Index c = 0; c < s.cols; ++c) {
      const float value = row[static_cast<std::size_t>(c)];
      transpose ? put_value(c, r, value) : put_value(r, c, value);
    }
  }
}

void PackedMatrix::decode_row(Index r, float* dst) const {
  for (Index g = 0; g < view_.n_groups; ++g) {
    const float scale = view_.scale == ScaleType::none ? 1 : scale_at(r, g, /*min=*/false);
    const float min = view_.has_min ? scale_at(r, g, /*min=*/true) : 0;
    for (Index c = g * view_.group; c < std::min(cols_, (g + 1) * view_.group); ++c) {
      float value = value_at(r, c);
      if (view_.scale != ScaleType::none) value = value * scale;
      if (view_.has_min) value = value + min;
      dst[c] = value;
    }
  }
}

// --- where things lie --------------------------------------------------------------------------

Index PackedMatrix::chunk_at(Index row, Index col) const {
  const std::byte* group = view_.group_codes(row / kPanelRows, col / view_.group);
  return (group - bytes_.get()) +
         col % view_.group / 8 * (8 * kPanelRows * code_bits(view_.codes) / 8);
}

void PackedMatrix::put_code(std::byte* chunk, Index lane, Index c, int code) const {
  if (view_.codes == Codes::nibble) {
    const int shift = static_cast<int>(c / 2 * 4);
    chunk[(2 * lane + c % 2) * 2 + shift / 8] |= static_cast<std::byte>(code << shift % 8);
  } else {
    chunk[c / 4 * 64 + 4 * lane + c % 4] = static_cast<std::byte>(code);
  }
}

void PackedMatrix::put_value(Index row, Index col, float value) {
  std::byte* chunk = bytes_.get() + chunk_at(row, col);
  const Index lane = row % kPanelRows, c = col % 8;
  if (view_.codes == Codes::bf16) {
    const std::uint16_t bits = f32_to_bf16(value);
    std::memcpy(chunk + c / 2 * 64 + 4 * lane + c % 2 * 2, &bits, sizeof(bits));
  } else {
    std::memcpy(chunk + c * 64 + 4 * lane, &value, sizeof(value));
  }
}

void PackedMatrix::put_scale(Index row, Index record, float scale, float min) {
  std::byte* at = bytes_.get() + row / kPanelRows * view_.panel_bytes + record * view_.record_bytes;
  const Index lane = row % kPanelRows;
  const auto put = [&](std::byte* to, float value) {
    if (view_.scale == ScaleType::f16) {
      const std::uint16_t half = f32_to_f16(value);
      std::memcpy(to + 2 * lane, &half, sizeof(half));
    } else {
      std::memcpy(to + 4 * lane, &value, sizeof(value));
    }
  };
  put(at, scale);
  if (view_.has_min) put(at + view_.scale_bytes(), min);
}

float PackedMatrix::value_at(Index row, Index col) const {
  const std::byte* chunk = bytes_.get() + chunk_at(row, col);
  const Index lane = row % kPanelRows, c = col % 8;
  if (view_.codes == Codes::f32) {
    float value;
    std::memcpy(&value, chunk + c * 64 + 4 * lane, sizeof(value));
    return value;
  }
  if (view_.codes == Codes::bf16) {
    std::uint16_t bits;
    std::memcpy(&bits, chunk + c / 2 * 64 + 4 * lane + c % 2 * 2, sizeof(bits));
    return bf16_to_f32(bits);
  }
  if (view_.codes == Codes::nibble) {
    const int shift = static_cast<int>(c / 2 * 4);
    const int byte = std::to_integer<int>(chunk[(2 * lane + c % 2) * 2 + shift / 8]);
    return static_cast<float>((byte >> shift % 8 & 15) + lowest_);
  }
  const auto byte = std::to_integer<std::uint8_t>(chunk[c / 4 * 64 + 4 * lane + c % 4]);
  if (view_.codes == Codes::int8) return static_cast<float>(static_cast<std::int8_t>(byte));
  return dtype_ == DType::f8_e4m3 ? e4m3_to_f32(byte) : e5m2_to_f32(byte);
}

float PackedMatrix::scale_at(Index row, Index group, bool min) const {
  const std::byte* at = view_.record(row / kPanelRows, group) + (min ? view_.scale_bytes() : 0);
  const Index lane = row % kPanelRows;
  if (view_.scale == ScaleType::f16) {
    std::uint16_t half;
    std::memcpy(&half, at + 2 * lane, sizeof(half));
    return f16_to_f32(half);
  }
  float value;
  std::memcpy(&value, at + 4 * lane, sizeof(value));
  return value;
}

}  // namespace kogia
