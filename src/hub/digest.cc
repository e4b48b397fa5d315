#include "hub/digest.h"

#include <array>

#include <openssl/evp.h>

#include "base/error.h"

namespace kogia::hub {
namespace {

EVP_MD_CTX* context_of(void* context) { return static_cast<EVP_MD_CTX*>(context); }

void require(int ok) {
  if (ok != 1) throw_error(ErrorCode::kIo, "OpenSSL cannot hash (SHA-256 or SHA-1 is disabled)");
}

}  // namespace

void Digest::Free::operator()(void* context) const { EVP_MD_CTX_free(context_of(context)); }

Digest::Digest(std::string_view blob, Index size) : context_(EVP_MD_CTX_new()) {
  const bool git = blob.size() == 40;
  require(context_ != nullptr);
  require(EVP_DigestInit_ex(context_of(context_.get()), git ? EVP_sha1() : EVP_sha256(), nullptr));
  if (!git) return;
  const std::string head = fmt::format("blob {}", size);
  update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));  // with its zero byte
}

Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::update(std::span<const std::byte> bytes) {
  require(EVP_DigestUpdate(context_of(context_.get()), bytes.data(), bytes.size()));
}

std::string Digest::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned n = 0;
  require(EVP_DigestFinal_ex(context_of(context_.get()), digest.data(), &n));
  std::string out;
  for (unsigned i = 0; i < n; ++i) out += fmt::format("{:02x}", digest[i]);
  return out;
}

}  // namespace kogia::hub
