#pragma once
// Fast hashes that tell changed bytes from unchanged ones; not against who changes them on
// purpose.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace kogia {

/// XXH3, 64 bits: the same on every machine.
std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed = 0);

/// 128 bits, where so many things are told apart that 64 might meet.
struct Hash128 {
  std::uint64_t words[2] = {};

  /// 32 digits.
  std::string hex() const;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

/// XXH3, 128 bits, of bytes that come in parts.
class Hasher128 {
 public:
  Hasher128();
  ~Hasher128();
  Hasher128(const Hasher128&) = delete;
  Hasher128& operator=(const Hasher128&) = delete;

  void update(std::span<const std::byte> bytes);
  /// Of all bytes so far.
  Hash128 finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Hash128 hash_bytes_128(std::span<const std::byte> bytes);

}  // namespace kogia
