#pragma once
// Files for readers, right and wrong, byte by byte; and what every reader must survive.

#include <bit>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace kogia::test {

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}
inline std::string text_of(std::string_view text) {
  return bytes_of(std::uint64_t{text.size()}) + std::string(text);
}

inline std::string safetensors_file(const std::string& header, const std::string& data = {}) {
  return bytes_of(std::uint64_t{header.size()}) + header + data;
}

/// "GGUF", version, counts, then keys and tensors as given.
inline std::string gguf_file(std::uint64_t n_tensors, std::uint64_t n_keys, const std::string& body,
                             std::uint32_t version = 3) {
  return "GGUF" + bytes_of(version) + bytes_of(n_tensors) + bytes_of(n_keys) + body;
}
inline std::string gguf_key(std::string_view key, std::uint32_t type, const std::string& value) {
  return text_of(key) + bytes_of(type) + value;
}
inline std::string gguf_array(std::uint32_t type, std::uint64_t n, const std::string& items) {
  return bytes_of(type) + bytes_of(n) + items;
}
/// ne fastest first
inline std::string gguf_tensor(std::string_view name, const std::vector<std::uint64_t>& ne,
                               std::uint32_t type, std::uint64_t offset) {
  std::string out = text_of(name) + bytes_of(static_cast<std::uint32_t>(ne.size()));
  for (const std::uint64_t n : ne) out += bytes_of(n);
  return out + bytes_of(type) + bytes_of(offset);
}
inline std::string pad_to_32(std::string file) {
  file.resize((file.size() + 31) / 32 * 32);
  return file;
}

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

/// The message of the Error that `action` throws; a failure if it throws none.
inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

/// Each file cut short is refused; 500 damaged ones are read or refused. Anything else ends the
/// test.
inline void survive_damage(const std::string& file,
                           const std::function<void(const std::string&)>& read) {
  for (std::size_t n = 0; n < file.size(); ++n) {
    EXPECT_THROW(read(file.substr(0, n)), Error) << "cut to " << n << " bytes";
  }
  for (std::uint64_t i = 0; i < 500; ++i) {
    const Philox random(7, i);
    std::string damaged = file;
    for (std::uint64_t k = 0; k <= random.below(4, 0); ++k) {
      damaged[random.below(file.size(), 2 * k + 1)] =
          static_cast<char>(random.below(256, 2 * k + 2));
    }
    try {
      read(damaged);
    } catch (const Error&) {
    }
  }
}

}  // namespace kogia::test
