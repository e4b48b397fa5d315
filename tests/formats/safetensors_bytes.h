#pragma once
// safetensors files made by hand.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kogia::test {

/// The 8 bytes that a file begins with.
inline std::string header_length(std::uint64_t n) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(n >> 8 * i & 0xFF));
  return bytes;
}

/// A file of this header and `n_data` bytes 0, 1, 2, ...
inline std::string safetensors(std::string_view header, std::size_t n_data) {
  std::string bytes = header_length(header.size()) + std::string(header);
  for (std::size_t i = 0; i < n_data; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace kogia::test
