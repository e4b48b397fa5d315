#include "tensor/dtype.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"

namespace kogia {
namespace {

// In the order of the enumeration.
constexpr std::array<DTypeInfo, 26> kInfos = {{
    {"f64", 1, 8},        {"f32", 1, 4},      {"bf16", 1, 2},     {"f16", 1, 2},
    {"f8_e4m3", 1, 1},    {"f8_e5m2", 1, 1},  {"f8_e8m0", 1, 1},  {"i64", 1, 8},
    {"i32", 1, 4},        {"i16", 1, 2},      {"i8", 1, 1},       {"u8", 1, 1},
    {"boolean", 1, 1},    {"q4_0", 32, 18},   {"q4_1", 32, 20},   {"q5_0", 32, 22},
    {"q5_1", 32, 24},     {"q8_0", 32, 34},   {"q2_k", 256, 84},  {"q3_k", 256, 110},
    {"q4_k", 256, 144},   {"q5_k", 256, 176}, {"q6_k", 256, 210}, {"iq4_nl", 32, 18},
    {"iq4_xs", 256, 136}, {"mxfp4", 32, 17},
}};
static_assert(static_cast<std::size_t>(DType::mxfp4) + 1 == kInfos.size());

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

const DTypeInfo& info(DType dtype) {
  const auto i = static_cast<std::size_t>(dtype);
  KOGIA_CHECK(i < kInfos.size());
  return kInfos[i];
}

bool is_floating(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::f16:
    case DType::bf16:
    case DType::f8_e4m3:
    case DType::f8_e5m2:
      return true;
    default:
      return is_block(dtype);
  }
}

Index row_bytes(DType dtype, Index values) {
  const DTypeInfo& type = info(dtype);
  KOGIA_CHECK(values >= 0 && values % type.block_values == 0);
  return values / type.block_values * type.block_bytes;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kInfos.size(); ++i) {
    if (same_ignoring_case(name, kInfos[i].name)) return static_cast<DType>(i);
  }
  return std::nullopt;
}

}  // namespace kogia
