#pragma once
// GGUF files built up key by key and tensor by tensor, sense or not.

#include <string>
#include <string_view>
#include <vector>

#include "formats/file_builders.h"

namespace kogia::test {

/// The types of values by their numbers in the file.
enum GgufType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

struct GgufBytes {
  std::uint32_t version = 3;
  std::uint64_t n_keys = 0, n_tensors = 0;  // may be set to lie
  std::string keys, tensors, data;

  GgufBytes& key(std::string_view name, std::uint32_t type, const std::string& value) {
    keys += gguf_key(name, type, value);
    ++n_keys;
    return *this;
  }
  template <class T>
  GgufBytes& array(std::string_view name, std::uint32_t type, const std::vector<T>& items) {
    std::string all;
    for (const T& item : items) {
      if constexpr (requires { item.size(); })
        all += text_of(item);
      else
        all += bytes_of(item);
    }
    return key(name, kArray, gguf_array(type, items.size(), all));
  }
  GgufBytes& text(std::string_view name, std::string_view value) {
    return key(name, kString, text_of(value));
  }
  GgufBytes& tensor(std::string_view name, const std::vector<std::uint64_t>& ne, std::uint32_t type,
                    std::uint64_t offset) {
    tensors += gguf_tensor(name, ne, type, offset);
    ++n_tensors;
    return *this;
  }
  /// The data begins at a multiple of `alignment`.
  std::string bytes(std::size_t alignment = 32) const {
    std::string out = gguf_file(n_tensors, n_keys, keys + tensors, version);
    if (n_tensors > 0) out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

}  // namespace kogia::test
