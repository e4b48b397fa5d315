#pragma once
// Random numbers by counter: a pure function of what they are for, never of the order of calls.
//
// Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC
// 2011).

#include <array>
#include <concepts>
#include <cstdint>

namespace kogia {

/// One stream of numbers, named by what it is for: Philox(seed, prompt, sample). The same words
/// give the same numbers on every machine; streams whose words differ are independent for all
/// purposes. Threads: immutable.
class Philox {
 public:
  using Block = std::array<std::uint32_t, 4>;
  using Key = std::array<std::uint32_t, 2>;

  template <std::convertible_to<std::uint64_t>... Words>
  explicit constexpr Philox(std::uint64_t seed, Words... words) : key_(split(seed)) {
    (absorb(static_cast<std::uint64_t>(words)), ...);
  }

  /// The bare generator: 128 random bits from a 128-bit counter and a 64-bit key.
  static constexpr Block block(Block counter, Key key) {
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
      const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
      counter = {high(b) ^ counter[1] ^ key[0], low(b), high(a) ^ counter[3] ^ key[1], low(a)};
      key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
    }
    return counter;
  }

  /// The counter-th 128 bits of this stream.
  constexpr Block bits(std::uint64_t counter) const {
    return block({low(counter), high(counter), 0, 0}, key_);
  }
  constexpr std::uint64_t bits64(std::uint64_t counter) const {
    const Block b = bits(counter);
    return std::uint64_t{b[1]} << 32 | b[0];
  }
  /// In [0, 1), a multiple of 2^-53.
  constexpr double uniform(std::uint64_t counter) const {
    return static_cast<double>(bits64(counter) >> 11) * 0x1p-53;
  }
  /// In [0, n), n > 0. The bias is below n / 2^64.
  constexpr std::uint64_t below(std::uint64_t n, std::uint64_t counter) const {
    const unsigned __int128 product = static_cast<unsigned __int128>(bits64(counter)) * n;
    return static_cast<std::uint64_t>(product >> 64);
  }
  /// Mean 0, deviation 1, within ±4.9: the sum of eight 16-bit uniforms, so near a normal variable
  /// and, made of whole numbers, the same bits on every machine (a libm's log and cos are not).
  constexpr float normal(std::uint64_t counter) const {
    std::uint32_t sum = 0;
    for (const std::uint32_t word : bits(counter)) sum += (word & 0xFFFF) + (word >> 16);
    constexpr double kDeviation = 53510.4417;  // sqrt(8 * (65536^2 - 1) / 12)
    return static_cast<float>((static_cast<double>(sum) - 8 * 32767.5) / kDeviation);
  }

 private:
  static constexpr std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
  static constexpr std::uint32_t high(std::uint64_t x) {
    return static_cast<std::uint32_t>(x >> 32);
  }
  static constexpr Key split(std::uint64_t x) { return {low(x), high(x)}; }
  // Counters of keys have the top word set, those of numbers have it zero, so the two never meet.
  constexpr void absorb(std::uint64_t word) {
    const Block b = block({low(word), high(word), 0, 0x6B6F6769}, key_);
    key_ = {b[0], b[1]};
  }

  Key key_;
};

}  // namespace kogia
