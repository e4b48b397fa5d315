#pragma once
// A fast hash that tells changed bytes from unchanged ones; not against who changes them on
// purpose.

#include <cstddef>
#include <cstdint>
#include <span>

namespace kogia {

/// XXH3, 64 bits: the same on every machine.
std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed = 0);

}  // namespace kogia
