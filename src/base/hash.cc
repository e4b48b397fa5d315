#include "base/hash.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

namespace kogia {
namespace {

Hash128 words_of(XXH128_hash_t hash) { return {{hash.low64, hash.high64}}; }

}  // namespace

std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

std::string Hash128::hex() const { return fmt::format("{:016x}{:016x}", words[1], words[0]); }

struct Hasher128::State {
  XXH3_state_t xxh;
};

Hasher128::Hasher128() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher128::~Hasher128() = default;

void Hasher128::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
}

Hash128 Hasher128::finish() const { return words_of(XXH3_128bits_digest(&state_->xxh)); }

Hash128 hash_bytes_128(std::span<const std::byte> bytes) {
  return words_of(XXH3_128bits(bytes.data(), bytes.size()));
}

}  // namespace kogia
