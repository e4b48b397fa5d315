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

/// Whether two's complement is needed: a byte of sign and magnitude has no -128. Looks at all.
bool has_minus_128(const MatrixSource& s) {
  constexpr Index kScaleBytes = 2;
  const Index block_bytes = info(DType::q8_0).block_bytes;
  const Index n = s.rows * row_bytes(s.dtype, s.cols) / block_bytes;
  for (Index b = 0; b < n; ++b) {
    const std::byte* codes = s.data + b * block_bytes + kScaleBytes;
    bool found = false;
    for (Index i = 0; i < block_bytes - kScaleBytes; ++i) found |= codes[i] == std::byte{0x80};
    if (found) return true;
  }
  return false;
}

bool in_planes(Codes codes) { return codes <= Codes::fp8; }

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
  if (s.dtype == DType::f16) return Codes::f16;
  if (transpose) return Codes::f32;
  if (is_block(s.dtype)) return block_shape(s.dtype).codes;
  // Scales of odd blocks do not fit the groups: such weights are kept as their values.
  if (is_fp8(s.dtype) && (s.scale == nullptr || s.block_cols % 32 == 0)) return Codes::fp8;
  return Codes::f32;
}

Index head_bytes(const PackedView& v) {
  const Index n = v.groups_per_record, parts = v.has_min ? 2 : 1;
  switch (v.scale) {
    case ScaleType::none:
      break;
    case ScaleType::f16:
      return n * 32 * parts;
    case ScaleType::f32:
      return 64;
    case ScaleType::parts:
      return (32 + n * 16) * parts;
    case ScaleType::nibbles:
      return 64 + n * 16;
  }
  return 0;
}

/// Where a code stands in its plane: the 16-bit word 2r + h of the vector, and the bit in it.
struct Slot {
  Index byte;
  int shift;
};
Slot slot_of(Index bits, Index col, Index lane) {
  const Index slot = col / 8 * 2 + col % 4 / 2, bit = slot * bits % 8 + col % 8 / 4 * 8;
  return {slot * bits / 8 * 64 + 2 * (2 * lane + col % 2) + bit / 8, static_cast<int>(bit % 8)};
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
template <class T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

}  // namespace

PackedMatrix::PackedMatrix(const MatrixSource& source, const PackOptions& options,
                           bool bf16_products)
    : Matrix(options.transpose ? source.cols : source.rows,
             options.transpose ? source.rows : source.cols, source.dtype, options.compute) {
  choose_layout(source, options.transpose, bf16_products);
  allocate();
  fill_table();
  if (view_.codes == Codes::fp8) {
    pack_fp8(source);
  } else if (in_planes(view_.codes)) {
    pack_blocks(source);
  } else {
    pack_values(source, options.transpose);
  }
}

void PackedMatrix::choose_layout(const MatrixSource& source, bool transpose, bool bf16_products) {
  PackedView& v = view_;
  v.rows = rows_;
  v.cols = cols_;
  v.codes = codes_of_format(source, transpose);
  v.group = group_columns(v.codes);
  v.rounding = rounding_of(compute_, dtype_);
  if (v.rounding == Rounding::bf16 && bf16_products && v.codes != Codes::f32) {
    v.products = Products::bf16;
  } else if (v.rounding == Rounding::int8 && in_planes(v.codes)) {
    v.products = Products::int8;
  }
  // Both are exact; the look-up that signs and magnitudes allow is twice as fast as conversions.
  if (v.products == Products::bf16 && dtype_ == DType::q8_0 && v.codes == Codes::q8 &&
      !has_minus_128(source)) {
    v.codes = Codes::s8;
  }
  if (v.codes == Codes::fp8) {
    if (source.scale != nullptr) v.scale = ScaleType::f32;
    if (source.scale != nullptr) v.groups_per_record = source.block_cols / v.group;
  } else if (in_planes(v.codes)) {
    const BlockShape shape = block_shape(dtype_);
    v.scale = shape.scale;
    v.has_min = shape.has_min;
    v.lowest = shape.lowest;
    // Two scales of two bytes fill a cache line of 16 outputs.
    v.groups_per_record = v.scale != ScaleType::f16 ? 256 / v.group : v.has_min ? 1 : 2;
  }
  v.n_groups = ceil_div(cols_, v.group);
  const PlaneBits bits = plane_bits(v.codes);
  v.groups_per_plane = bits.high == 0 ? 1 : std::max<Index>(1, 32 / bits.high / v.group);
  v.low_bytes = v.group * kPanelRows * bits.low / 8;
  v.group_bytes = v.low_bytes + v.group * kPanelRows * bits.high / 8;
  // So that vectors of codes lie on cache lines.
  v.codes_offset = round_up(head_bytes(v), 64);
  v.record_bytes = v.codes_offset + v.groups_per_record * v.group_bytes;
  v.panel_bytes =
      ceil_div(v.n_groups, v.groups_per_record) * v.codes_offset + v.n_groups * v.group_bytes;
}

void PackedMatrix::allocate() {
  n_bytes_ = view_.n_panels() * view_.panel_bytes;
  const std::size_t n = static_cast<std::size_t>(n_bytes_);
  bytes_.reset(static_cast<std::byte*>(::operator new[](n, std::align_val_t{64})));
  std::memset(bytes_.get(), 0, n);
  view_.data = bytes_.get();
}

void PackedMatrix::fill_table() {
  if (view_.codes == Codes::fp8) {
    for (int i = 0; i < 128; ++i) {
      const auto code = static_cast<std::uint8_t>(i);
      table_[i] = f32_to_bf16(dtype_ == DType::f8_e4m3 ? e4m3_to_f32(code) : e5m2_to_f32(code));
    }
  } else if (view_.codes == Codes::s8) {
    for (int i = 0; i < 128; ++i) table_[i] = f32_to_bf16(static_cast<float>(i));
  } else if (in_planes(view_.codes)) {
    // Again and again, since the kernels' look-ups do not clear what is above a code.
    const PlaneBits bits = plane_bits(view_.codes);
    const int n = 1 << (bits.low + bits.high);
    for (int i = 0; i < 64; ++i) table_[i] = f32_to_bf16(static_cast<float>(i % n + view_.lowest));
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
      for (Index g = 0; g < format.block_values / view_.group; ++g) {
        const GroupAt at = group_of(r, b * format.block_values / view_.group + g);
        for (Index c = 0; c < view_.group; ++c) {
          put_code(at, r % kPanelRows, c, block.code[g * view_.group + c] - view_.lowest);
        }
        put_scale(at, r % kPanelRows, block, g);
      }
    }
  }
}

void PackedMatrix::pack_fp8(const MatrixSource& s) {
  for (Index r = 0; r < s.rows; ++r) {
    for (Index g = 0; g < view_.n_groups; ++g) {
      const GroupAt at = group_of(r, g);
      const std::byte* codes = s.data + r * s.cols + g * view_.group;
      for (Index c = 0; c < std::min(view_.group, s.cols - g * view_.group); ++c) {
        put_code(at, r % kPanelRows, c, std::to_integer<int>(codes[c]));
      }
    }
    if (s.scale == nullptr) continue;
    const Index first = (s.first_row + r) / s.block_rows * s.scale_cols;
    const Index value_bytes = info(s.scale_dtype).block_bytes;
    for (Index b = 0; b < ceil_div(s.cols, s.block_cols); ++b) {
      float scale = 0;
      dequantize_row(s.scale_dtype, s.scale + (first + b) * value_bytes, &scale, 1);
      store(at(group_of(r, b * view_.groups_per_record).record) + 4 * (r % kPanelRows), scale);
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
  const Index lane = r % kPanelRows;
  for (Index g = 0; g < view_.n_groups; ++g) {
    const GroupAt at = group_of(r, g);
    const ScaleMin by = scale_at(at, lane);
    for (Index c = 0; c < std::min(view_.group, cols_ - g * view_.group); ++c) {
      float value = value_at(at, lane, c);
      if (view_.scale != ScaleType::none) value = value * by.scale;
      if (view_.has_min) value = value + by.min;
      dst[g * view_.group + c] = value;
    }
  }
}

// --- where things lie --------------------------------------------------------------------------

GroupAt PackedMatrix::group_of(Index row, Index group) const {
  const std::byte* record =
      view_.panel(row / kPanelRows) + group / view_.groups_per_record * view_.record_bytes;
  return group_at(view_, record, group % view_.groups_per_record);
}

Index PackedMatrix::high_column(const GroupAt& at, Index c) const {
  return at.i % view_.groups_per_plane * view_.group + c;
}

void PackedMatrix::put_code(const GroupAt& to, Index lane, Index c, int code) {
  const PlaneBits bits = plane_bits(view_.codes);
  if (view_.codes == Codes::s8 && code < 0) code = 0x80 - code;
  const Slot low = slot_of(bits.low, c, lane);
  at(to.low)[low.byte] |= static_cast<std::byte>((code & ((1 << bits.low) - 1)) << low.shift);
  if (bits.high == 0) return;
  const Slot high = slot_of(bits.high, high_column(to, c), lane);
  at(to.high)[high.byte] |= static_cast<std::byte>(code >> bits.low << high.shift);
}

void PackedMatrix::put_scale(const GroupAt& to, Index lane, const BlockCodes& block, Index g) {
  std::byte* head = at(to.record);
  const Index n = view_.groups_per_record;
  if (view_.scale == ScaleType::f16) {
    store(head + to.i * 32 + 2 * lane, block.d);
    if (view_.has_min) store(head + (n + to.i) * 32 + 2 * lane, block.dmin);
    return;
  }
  store(head + 2 * lane, block.d);
  head += 32;
  if (view_.has_min) {
    store(head + 2 * lane, static_cast<std::uint16_t>(block.dmin ^ 0x8000));  // negative
    head += 32;
  }
  if (view_.scale == ScaleType::nibbles) {
    head[to.i * 16 + lane] = static_cast<std::byte>(block.s[g] | block.m[g] << 4);
    return;
  }
  head[to.i * 16 + lane] = static_cast<std::byte>(block.s[g]);
  if (view_.has_min) head[(n + to.i) * 16 + lane] = static_cast<std::byte>(block.m[g]);
}

void PackedMatrix::put_value(Index row, Index col, float value) {
  std::byte* group = at(group_of(row, col / view_.group).low);
  const Index lane = row % kPanelRows, c = col % view_.group;
  if (view_.codes == Codes::bf16) {
    store(group + c / 2 * 64 + 4 * lane + c % 2 * 2, f32_to_bf16(value));
  } else if (view_.codes == Codes::f16) {
    store(group + c * 32 + 2 * lane, f32_to_f16(value));
  } else {
    store(group + c * 64 + 4 * lane, value);
  }
}

float PackedMatrix::value_at(const GroupAt& at, Index lane, Index c) const {
  if (view_.codes == Codes::f32) return load<float>(at.low + c * 64 + 4 * lane);
  if (view_.codes == Codes::f16) return f16_to_f32(load<std::uint16_t>(at.low + c * 32 + 2 * lane));
  if (view_.codes == Codes::bf16) {
    return bf16_to_f32(load<std::uint16_t>(at.low + c / 2 * 64 + 4 * lane + c % 2 * 2));
  }
  const PlaneBits bits = plane_bits(view_.codes);
  const auto code_at = [](const std::byte* plane, int n, const Slot& slot) {
    return std::to_integer<int>(plane[slot.byte]) >> slot.shift & ((1 << n) - 1);
  };
  int code = code_at(at.low, bits.low, slot_of(bits.low, c, lane));
  if (bits.high != 0) {
    code |= code_at(at.high, bits.high, slot_of(bits.high, high_column(at, c), lane)) << bits.low;
  }
  if (view_.codes == Codes::q8) return static_cast<float>(static_cast<std::int8_t>(code));
  const auto byte = static_cast<std::uint8_t>(code);
  if (view_.codes == Codes::s8) {
    return static_cast<float>((byte & 0x80) != 0 ? 0x80 - code : code);
  }
  if (view_.codes != Codes::fp8) return static_cast<float>(code + view_.lowest);
  return dtype_ == DType::f8_e4m3 ? e4m3_to_f32(byte) : e5m2_to_f32(byte);
}

PackedMatrix::ScaleMin PackedMatrix::scale_at(const GroupAt& at, Index lane) const {
  const std::byte* head = at.record;
  const Index n = view_.groups_per_record;
  const auto half = [lane](const std::byte* from) {
    return f16_to_f32(load<std::uint16_t>(from + 2 * lane));
  };
  if (view_.scale == ScaleType::none) return {};
  if (view_.scale == ScaleType::f32) return {load<float>(head + 4 * lane), 0};
  if (view_.scale == ScaleType::f16) {
    return {half(head + at.i * 32), view_.has_min ? half(head + (n + at.i) * 32) : 0};
  }
  const float d = half(head), minus_dmin = view_.has_min ? half(head + 32) : 0;
  const std::byte* parts = head + (view_.has_min ? 64 : 32) + lane;
  const auto s = std::to_integer<std::uint8_t>(parts[at.i * 16]);
  if (view_.scale == ScaleType::nibbles) {
    return {d * static_cast<float>(s & 15), minus_dmin * static_cast<float>(s >> 4)};
  }
  const auto m = view_.has_min ? std::to_integer<std::uint8_t>(parts[(n + at.i) * 16]) : 0;
  return {d * static_cast<float>(static_cast<std::int8_t>(s)), minus_dmin * static_cast<float>(m)};
}

}  // namespace kogia
