#pragma once
// GGUF, as a file has it:
//
//   "GGUF", version u32 (2 or 3), tensor count u64, key count u64
//   keys     name, type u32, value; a string is a u64 length and bytes, an array a type, count,
//   items tensors  name, rank u32, ne u64 x rank (fastest first), type u32, offset u64 from the
//   data's begin data     begins at the next multiple of general.alignment (32)

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/gguf.h"

namespace kogia {

/// Far above any real vocabulary (a few MiB), far below what would exhaust a machine.
inline constexpr std::size_t kMaxGgufHeader = std::size_t{256} << 20;

struct GgufContents {
  GgufMetadata metadata;
  std::vector<GgufStoredKey> stored_keys;  // views of `bytes`
  std::vector<TensorEntry> tensors;
};

/// Reads and checks one file that lies in memory; views point into `bytes`.
/// Memory: at most about eight times what keys and tensor descriptions take in the file, and they
/// may take kMaxGgufHeader.
GgufContents parse_gguf(std::span<const std::byte> bytes, const std::string& file);

/// The number GGUF gives to a tensor type; nullopt for types GGUF does not have.
std::optional<std::uint32_t> gguf_type_number(DType dtype);

}  // namespace kogia
