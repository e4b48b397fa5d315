// Tensor types of GGUF by number: those we read, and the names of those we do not.

#include "formats/gguf_types.h"

#include <algorithm>
#include <array>

#include "formats/gguf_reader.h"

namespace kogia {
namespace {

struct Numbered {
  std::uint32_t number;
  DType dtype;
};
constexpr std::array kTypes = {
    Numbered{0, DType::f32},     Numbered{1, DType::f16},     Numbered{2, DType::q4_0},
    Numbered{3, DType::q4_1},    Numbered{6, DType::q5_0},    Numbered{7, DType::q5_1},
    Numbered{8, DType::q8_0},    Numbered{10, DType::q2_k},   Numbered{11, DType::q3_k},
    Numbered{12, DType::q4_k},   Numbered{13, DType::q5_k},   Numbered{14, DType::q6_k},
    Numbered{20, DType::iq4_nl}, Numbered{23, DType::iq4_xs}, Numbered{39, DType::mxfp4},
    Numbered{24, DType::i8},     Numbered{25, DType::i16},    Numbered{26, DType::i32},
    Numbered{27, DType::i64},    Numbered{28, DType::f64},    Numbered{30, DType::bf16}};

struct Unread {
  std::uint32_t number;
  std::string_view name;
};
constexpr std::array kUnread = {
    Unread{4, "Q4_2"},        Unread{5, "Q4_3"},        Unread{9, "Q8_1"},
    Unread{15, "Q8_K"},       Unread{16, "IQ2_XXS"},    Unread{17, "IQ2_XS"},
    Unread{18, "IQ3_XXS"},    Unread{19, "IQ1_S"},      Unread{21, "IQ3_S"},
    Unread{22, "IQ2_S"},      Unread{29, "IQ1_M"},      Unread{31, "Q4_0_4_4"},
    Unread{32, "Q4_0_4_8"},   Unread{33, "Q4_0_8_8"},   Unread{34, "TQ1_0"},
    Unread{35, "TQ2_0"},      Unread{36, "IQ4_NL_4_4"}, Unread{37, "IQ4_NL_4_8"},
    Unread{38, "IQ4_NL_8_8"}, Unread{40, "NVFP4"},      Unread{41, "Q1_0"}};

}  // namespace

std::optional<DType> gguf_dtype(std::uint32_t number) {
  const auto at = std::ranges::find(kTypes, number, &Numbered::number);
  return at == kTypes.end() ? std::nullopt : std::optional(at->dtype);
}

std::string_view gguf_unread_type(std::uint32_t number) {
  const auto at = std::ranges::find(kUnread, number, &Unread::number);
  return at == kUnread.end() ? "unknown" : at->name;
}

std::optional<std::uint32_t> gguf_type_number(DType dtype) {
  const auto at = std::ranges::find(kTypes, dtype, &Numbered::dtype);
  return at == kTypes.end() ? std::nullopt : std::optional(at->number);
}

}  // namespace kogia
