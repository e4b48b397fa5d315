#include "infer/page_key.h"

#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/error.h"

namespace kogia {
namespace {

// A root and a page are never hashed from the same bytes.
constexpr std::byte kRoot{0}, kPage{1};

PageKey key_of(std::span<const std::byte> bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  KOGIA_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, EVP_sha256(), nullptr) == 1);
  PageKey key;
  std::memcpy(key.words, digest, sizeof(key.words));
  return key;
}

void append(std::vector<std::byte>& bytes, std::span<const std::byte> more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

}  // namespace

std::string PageKey::hex() const { return fmt::format("{:016x}{:016x}", words[0], words[1]); }

PageKey page_key_root(std::string_view tenant) {
  std::vector<std::byte> bytes{kRoot};
  append(bytes, std::as_bytes(std::span(tenant)));
  return key_of(bytes);
}

PageKey page_key(const PageKey& before, std::span<const TokenId> ids) {
  std::vector<std::byte> bytes{kPage};
  bytes.reserve(1 + sizeof(before.words) + ids.size_bytes());
  append(bytes, std::as_bytes(std::span(before.words)));
  append(bytes, std::as_bytes(ids));
  return key_of(bytes);
}

}  // namespace kogia
