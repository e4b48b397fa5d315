// Hashes: those of their definitions, in one piece or in parts.

#include "base/hash.h"

#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/sha256.h"

namespace kogia::test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string sha(std::string_view text) {
  std::string hex;
  for (const unsigned byte : sha256(bytes_of(text))) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

// NIST's examples, and lengths on both sides of where the padding takes a second block.
TEST(Sha256, IsThatOfTheStandard) {
  EXPECT_EQ(sha(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha(std::string(55, 'a')),
            "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(sha(std::string(64, 'a')),
            "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  EXPECT_EQ(sha(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
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
