// Packing is one pass over the source and one over the panels. A code costs some cycles:
// the four columns of a slot are put into a 32-bit word of their row at once.

#include "device/cpu/pack_panels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "device/cpu/block_codes.h"
#include "device/reference/matrix.h"
#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

static_assert(std::endian::native == std::endian::little, "words of codes are stored as they are");

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

Rounding rounding_of(Compute compute, DType weights) {
  switch (compute) {
    case Compute::f32:
      break;
    case Compute::bf16:
      return weights == DType::f32 || weights == DType::f16 ? Rounding::none : Rounding::bf16;
    case Compute::int16:
      return Rounding::int16;
    case Compute::int8:
      return Rounding::int8;
    case Compute::fp8:
      return Rounding::e4m3;
  }
  return Rounding::none;
}

/// Whether the products look codes up. Those of whole numbers multiply them as they are.
bool looks_up(const PackOptions& options, bool pair_products) {
  return pair_products && options.compute != Compute::int8 && options.compute != Compute::int16;
}

Codes codes_of_format(const MatrixSource& s, bool transpose, bool look_up) {
  if (s.dtype == DType::bf16) return Codes::bf16;
  if (s.dtype == DType::f16) return Codes::f16;
  if (transpose) return Codes::f32;
  if (is_block(s.dtype)) return block_shape(s.dtype, look_up).codes;
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

Index groups_per_record(const PackedView& v) {
  if (v.scale == ScaleType::f32) return 1;
  // Two scales of two bytes fill a cache line of 16 outputs.
  if (v.scale == ScaleType::f16) return v.has_min ? 1 : 2;
  return 256 / v.group;
}

template <class T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

/// One panel being written.
struct Panel {
  const PackedView& layout;
  std::byte* to;

  std::byte* at(const std::byte* place) const { return to + (place - to); }
  GroupAt group(Index g) const {
    const std::byte* record = to + g / layout.groups_per_record * layout.record_bytes;
    return group_at(layout, record, g % layout.groups_per_record);
  }
};

/// Codes of one row and a group of kColumns, each below 2^kBits, into a plane from slot first_slot
/// on.
template <int kBits, Index kColumns>
void put_plane(const std::uint8_t* codes, Index first_slot, Index lane, std::byte* plane) {
  constexpr Index kSlots = 8 / kBits;  // of a byte
  std::uint32_t words[std::max<Index>(1, kColumns / 4 / kSlots)] = {};
  for (Index s = 0; s < kColumns / 4; ++s) {
    const std::uint8_t* c = codes + s / 2 * 8 + s % 2 * 2;  // bytes t of words h: c[4t + h]
    const std::uint32_t word =
        static_cast<std::uint32_t>(c[0]) | static_cast<std::uint32_t>(c[4]) << 8 |
        static_cast<std::uint32_t>(c[1]) << 16 | static_cast<std::uint32_t>(c[5]) << 24;
    words[s / kSlots] |= word << (s % kSlots * kBits);
  }
  for (std::size_t i = 0; i < std::size(words); ++i) {
    std::byte* to = plane + static_cast<Index>(i) * 64 + 4 * lane;
    std::uint32_t word;
    std::memcpy(&word, to, sizeof(word));
    store(to, word | words[i] << (first_slot * kBits));
  }
}

template <Codes kCodes>
void put_codes(const Panel& panel, const GroupAt& at, Index lane, const std::uint8_t* codes) {
  constexpr PlaneBits kBits = plane_bits(kCodes);
  constexpr Index kColumns = group_columns(kCodes);
  if constexpr (kBits.high == 0) {
    put_plane<kBits.low, kColumns>(codes, 0, lane, panel.at(at.low));
  } else {
    std::uint8_t low[kColumns], high[kColumns];
    for (Index c = 0; c < kColumns; ++c) {
      low[c] = codes[c] & ((1 << kBits.low) - 1);
      high[c] = static_cast<std::uint8_t>(codes[c] >> kBits.low);
    }
    const Index first_slot = at.i % panel.layout.groups_per_plane * kColumns / 4;
    put_plane<kBits.low, kColumns>(low, 0, lane, panel.at(at.low));
    put_plane<kBits.high, kColumns>(high, first_slot, lane, panel.at(at.high));
  }
}

/// Of group g of a block.
void put_scale(const Panel& panel, const GroupAt& at, Index lane, const BlockCodes& block,
               Index g) {
  const PackedView& v = panel.layout;
  std::byte* head = panel.at(at.record);
  const Index n = v.groups_per_record;
  if (v.scale == ScaleType::f16) {
    store(head + at.i * 32 + 2 * lane, block.d);
    if (v.has_min) store(head + (n + at.i) * 32 + 2 * lane, block.dmin);
    return;
  }
  if (v.scale == ScaleType::f32) return store(head + 4 * lane, block.scale);
  store(head + 2 * lane, block.d);
  head += 32;
  if (v.has_min) {
    store(head + 2 * lane, static_cast<std::uint16_t>(block.dmin ^ 0x8000));  // negative
    head += 32;
  }
  if (v.scale == ScaleType::nibbles) {
    head[at.i * 16 + lane] = static_cast<std::byte>(block.s[g] | block.m[g] << 4);
    return;
  }
  head[at.i * 16 + lane] = static_cast<std::byte>(block.s[g]);
  if (v.has_min) head[(n + at.i) * 16 + lane] = static_cast<std::byte>(block.m[g]);
}

/// Codes of a block as panels have them: without sign, of q8 in two's complement, of s8 a sign and
/// a magnitude.
template <Codes kCodes>
void panel_codes(const BlockCodes& block, const DTypeInfo& format, int lowest,
                 std::uint8_t* codes) {
  for (Index i = 0; i < format.block_values; ++i) {
    const int code = block.code[i];
    const bool magnitude = kCodes == Codes::s8 && code < 0;
    codes[i] = static_cast<std::uint8_t>(magnitude ? 0x80 - code : code - lowest);
  }
}

/// Of nibbles that stand for other numbers.
template <Codes kCodes>
void panel_nibbles(const BlockCodes& block, const DTypeInfo& format, const std::int8_t* values,
                   int lowest, std::uint8_t* codes) {
  std::uint8_t panel_code[16];
  for (int i = 0; i < 16; ++i) {
    panel_code[i] = static_cast<std::uint8_t>(kCodes == Codes::q4 ? i : values[i] - lowest);
  }
  for (Index i = 0; i < format.block_values; ++i) codes[i] = panel_code[block.code[i]];
}

template <Codes kCodes>
void pack_blocks(const MatrixSource& s, Index row, Index lane, const Panel& panel) {
  constexpr Index kColumns = group_columns(kCodes);
  const DTypeInfo& format = info(s.dtype);
  const std::byte* from = s.data + row * row_bytes(s.dtype, s.cols);
  const Index groups = format.block_values / kColumns;
  const std::int8_t* values = nibble_values(s.dtype);
  BlockCodes block = {};
  std::uint8_t codes[256];
  for (Index b = 0; b < s.cols / format.block_values; ++b, from += format.block_bytes) {
    take_apart(s.dtype, from, block);
    if (values == nullptr) {
      panel_codes<kCodes>(block, format, panel.layout.lowest, codes);
    } else {
      panel_nibbles<kCodes>(block, format, values, panel.layout.lowest, codes);
    }
    for (Index g = 0; g < groups; ++g) {
      const GroupAt at = panel.group(b * groups + g);
      put_codes<kCodes>(panel, at, lane, codes + g * kColumns);
      put_scale(panel, at, lane, block, g);
    }
  }
}

void pack_fp8(const MatrixSource& s, Index row, Index lane, const Panel& panel) {
  const PackedView& v = panel.layout;
  const auto* from = reinterpret_cast<const std::uint8_t*>(s.data) + row * s.cols;
  for (Index g = 0; g < v.n_groups; ++g) {
    std::uint8_t codes[group_columns(Codes::fp8)] = {};
    std::copy_n(from + g * v.group, std::min(v.group, s.cols - g * v.group), codes);
    put_codes<Codes::fp8>(panel, panel.group(g), lane, codes);
  }
  if (s.scale == nullptr) return;
  const Index first = (s.first_row + row) / s.block_rows * s.scale_cols;
  const Index value_bytes = info(s.scale_dtype).block_bytes;
  for (Index b = 0; b < ceil_div(s.cols, s.block_cols); ++b) {
    float scale = 0;
    dequantize_row(s.scale_dtype, s.scale + (first + b) * value_bytes, &scale, 1);
    store(panel.at(panel.group(b * v.groups_per_record).record) + 4 * lane, scale);
  }
}

void put_value(const Panel& panel, Index lane, Index col, float value) {
  const PackedView& v = panel.layout;
  std::byte* group = panel.at(panel.group(col / v.group).low);
  const Index c = col % v.group;
  if (v.codes == Codes::bf16) {
    store(group + c / 2 * 64 + 4 * lane + c % 2 * 2, f32_to_bf16(value));
  } else if (v.codes == Codes::f16) {
    store(group + c * 32 + 2 * lane, f32_to_f16(value));
  } else {
    store(group + c * 64 + 4 * lane, value);
  }
}

/// bf16 as it is: pairs of columns are words of the source.
void pack_pairs(const MatrixSource& s, Index row, Index lane, const Panel& panel) {
  const std::byte* from = s.data + row * s.cols * 2;
  for (Index g = 0; g < panel.layout.n_groups; ++g) {
    const Index first = g * panel.layout.group, n = std::min(panel.layout.group, s.cols - first);
    std::byte* to = panel.at(panel.group(g).low) + 4 * lane;
    for (Index c = 0; c + 1 < n; c += 2) std::memcpy(to + c * 32, from + 2 * (first + c), 4);
    if (n % 2 == 1) std::memcpy(to + (n - 1) * 32, from + 2 * (first + n - 1), 2);
  }
}

void pack_values(const MatrixSource& s, Index row, Index lane, const Panel& panel) {
  std::vector<float> values(static_cast<std::size_t>(s.cols));
  reference::decode_row(s, row, values.data());
  for (Index c = 0; c < s.cols; ++c) {
    put_value(panel, lane, c, values[static_cast<std::size_t>(c)]);
  }
}

/// A row of the source is a column of the panels.
void pack_transposed(const MatrixSource& s, const PackedView& layout, Index begin, Index end,
                     std::byte* to) {
  std::vector<float> values(static_cast<std::size_t>(s.cols));
  for (Index r = 0; r < s.rows; ++r) {
    reference::decode_row(s, r, values.data());
    for (Index p = begin; p < end; ++p) {
      const Panel panel = {layout, to + (p - begin) * layout.panel_bytes};
      const float* from = values.data() + p * kPanelRows;
      const Index n = std::min(kPanelRows, s.cols - p * kPanelRows);
      for (Index lane = 0; lane < n; ++lane) put_value(panel, lane, r, from[lane]);
    }
  }
}

using PackRow = void (*)(const MatrixSource&, Index row, Index lane, const Panel& panel);
PackRow packer_of(const MatrixSource& s, Codes codes) {
  switch (codes) {
    case Codes::q2:
      return pack_blocks<Codes::q2>;
    case Codes::q3:
      return pack_blocks<Codes::q3>;
    case Codes::q4:
      return pack_blocks<Codes::q4>;
    case Codes::q5:
      return pack_blocks<Codes::q5>;
    case Codes::q6:
      return pack_blocks<Codes::q6>;
    case Codes::q8:
      return pack_blocks<Codes::q8>;
    case Codes::s8:
      return pack_blocks<Codes::s8>;
    case Codes::fp8:
      return pack_fp8;
    case Codes::bf16:
      if (s.dtype == DType::bf16) return pack_pairs;
      break;
    case Codes::f16:
    case Codes::f32:
      break;
  }
  return pack_values;
}

}  // namespace

int panel_variant(const MatrixSource& source, const PackOptions& options, bool pair_products) {
  const bool in_pairs = pair_products && options.compute == Compute::bf16 && !options.transpose;
  return in_pairs && source.dtype == DType::q8_0 && !has_minus_128(source) ? 1 : 0;
}

PackedView panel_layout(const MatrixSource& source, const PackOptions& options, bool pair_products,
                        int variant) {
  const bool look_up = looks_up(options, pair_products);
  PackedView v;
  v.rows = options.transpose ? source.cols : source.rows;
  v.cols = options.transpose ? source.rows : source.cols;
  v.codes = codes_of_format(source, options.transpose, look_up);
  v.group = group_columns(v.codes);
  v.rounding = rounding_of(options.compute, source.dtype);
  if (v.rounding == Rounding::bf16 && pair_products && v.codes != Codes::f32) {
    v.products = Products::bf16;
  } else if (v.rounding == Rounding::int8 && in_planes(v.codes)) {
    v.products = Products::int8;
  } else if (v.rounding == Rounding::int16 && in_planes(v.codes) && pair_products) {
    v.products = Products::int16;
  }
  // Both are exact; the look-up that signs and magnitudes allow is twice as fast as conversions.
  if (v.products == Products::bf16 && v.codes == Codes::q8 && variant == 1) v.codes = Codes::s8;
  if (v.codes == Codes::fp8) {
    if (source.scale != nullptr) v.scale = ScaleType::f32;
    if (source.scale != nullptr) v.groups_per_record = source.block_cols / v.group;
  } else if (in_planes(v.codes)) {
    const BlockShape shape = block_shape(source.dtype, look_up);
    v.scale = shape.scale;
    v.has_min = shape.has_min;
    v.lowest = shape.lowest;
    KOGIA_CHECK(!v.has_min || v.lowest == 0);  // kernels for minima count on it
    v.groups_per_record = groups_per_record(v);
  }
  v.n_groups = ceil_div(v.cols, v.group);
  const PlaneBits bits = plane_bits(v.codes);
  v.groups_per_plane = bits.high == 0 ? 1 : std::max<Index>(1, 32 / bits.high / v.group);
  v.low_bytes = v.group * kPanelRows * bits.low / 8;
  v.group_bytes = v.low_bytes + v.group * kPanelRows * bits.high / 8;
  // So that vectors of codes lie on cache lines.
  v.codes_offset = round_up(head_bytes(v), 64);
  v.record_bytes = v.codes_offset + v.groups_per_record * v.group_bytes;
  v.panel_bytes =
      ceil_div(v.n_groups, v.groups_per_record) * v.codes_offset + v.n_groups * v.group_bytes;
  return v;
}

std::string panel_layout_name(const MatrixSource& source, const PackedView& v) {
  return fmt::format("panels-{} {} [{}, {}] codes {} scale {}{} groups {}x{} panel {}",
                     kPanelsVersion, name(source.dtype), v.rows, v.cols, static_cast<int>(v.codes),
                     static_cast<int>(v.scale), v.has_min ? " min" : "", v.groups_per_record,
                     v.group, v.panel_bytes);
}

std::string repacked_as(const MatrixSource& source, const PackedView& v) {
  if (v.codes == Codes::f32) return source.dtype == DType::f32 ? "" : "f32";
  if (nibble_values(source.dtype) == nullptr || v.codes == Codes::q4) return "";
  const PlaneBits bits = plane_bits(v.codes);
  return fmt::format("{}-bit codes", bits.low + bits.high);
}

void pack_panels(const MatrixSource& source, bool transpose, const PackedView& layout, Index begin,
                 Index end, std::byte* to) {
  if (transpose) {
    std::memset(to, 0, static_cast<std::size_t>((end - begin) * layout.panel_bytes));
    return pack_transposed(source, layout, begin, end, to);
  }
  const PackRow pack_row = packer_of(source, layout.codes);
  for (Index p = begin; p < end; ++p, to += layout.panel_bytes) {
    std::memset(to, 0, static_cast<std::size_t>(layout.panel_bytes));
    const Panel panel = {layout, to};
    const Index first = p * kPanelRows, n = std::min(kPanelRows, layout.rows - first);
    for (Index lane = 0; lane < n; ++lane) pack_row(source, first + lane, lane, panel);
  }
}

}  // namespace kogia
