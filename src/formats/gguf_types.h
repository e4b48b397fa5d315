#pragma once
// Tensor types of GGUF by number.

#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/dtype.h"

namespace kogia {

std::optional<DType> gguf_dtype(std::uint32_t number);
/// The name of a type that gguf_dtype() does not know; "unknown" for a number nobody has given.
std::string_view gguf_unread_type(std::uint32_t number);

}  // namespace kogia
