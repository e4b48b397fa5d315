#pragma once
// SHA-256 (FIPS 180-4), for short keys made of what strangers choose: nobody finds two inputs of
// one hash. Large files are hashed by hash.h.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kogia {

std::array<std::uint8_t, 32> sha256(std::span<const std::byte> bytes);

}  // namespace kogia
