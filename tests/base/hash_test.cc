// Hashes: those of their definitions, in one piece or in parts.

#include "base/hash.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace kogia::test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Hash128, OfPartsIsThatOfTheWhole) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 7 % 251);
  const Hash128 whole = hash_bytes_128(bytes_of(text));
  for (const std::size_t step : {1u, 63u, 1024u, 4999u}) {
    Hasher128 hasher;
    for (std::size_t at = 0; at < text.size(); at += step) {
      hasher.update(bytes_of(std::string_view(text).substr(at, step)));
    }
    EXPECT_EQ(hasher.finish(), whole) << step;
  }
  text[4000] ^= 1;
  EXPECT_NE(hash_bytes_128(bytes_of(text)), whole);
}

// XXH3's own test value.
TEST(Hash128, IsXxh3) { EXPECT_EQ(hash_bytes_128({}).hex(), "99aa06d3014798d86001c324468d497f"); }

}  // namespace
}  // namespace kogia::test
