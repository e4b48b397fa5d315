#include "device/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "device/cpu/pack_panels.h"
#include "device/reference/matrix.h"
#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

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

}  // namespace

PackedMatrix::PackedMatrix(const MatrixSource& source, const PackOptions& options,
                           const PackedView& layout, std::shared_ptr<const std::byte> packed)
    : Matrix(layout.rows, layout.cols, source.dtype, options.compute),
      view_(layout),
      packed_(std::move(packed)),
      transpose_(options.transpose) {
  view_.data = packed_.get();
  fill_table();
  if (borrowed()) {
    source_ = source;
  } else {
    n_bytes_ = view_.n_panels() * view_.panel_bytes;
  }
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
    const std::int8_t* values = view_.codes == Codes::q4 ? nibble_values(dtype_) : nullptr;
    for (int i = 0; i < 64; ++i) {
      const int value = values != nullptr ? values[i % n] : i % n + view_.lowest;
      table_[i] = f32_to_bf16(static_cast<float>(value));
    }
  }
  view_.table = table_;
}

void PackedMatrix::pack(Index begin, Index end, std::byte* to) const {
  KOGIA_CHECK(borrowed() && begin >= 0 && end <= view_.n_panels());
  pack_panels(source_, transpose_, view_, begin, end, to);
}

void PackedMatrix::decode_row(Index r, float* dst) const {
  if (borrowed()) {
    KOGIA_CHECK(!transpose_);
    return reference::decode_row(source_, r, dst);
  }
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
  if (view_.codes != Codes::fp8) return bf16_to_f32(table_[code]);
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
