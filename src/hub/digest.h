#pragma once
// The hashes by which the hub names its files.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/index.h"

namespace kogia::hub {

/// The hash of a file as its blob name tells it: SHA-256 of the bytes (64 digits), or git's SHA-1
/// of "blob SIZE\0" and the bytes (40 digits).
class Digest {
 public:
  /// `blob`: see is_blob(); `size`: of the whole file.
  Digest(std::string_view blob, Index size);
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void update(std::span<const std::byte> bytes);
  /// In hexadecimal digits, once.
  std::string finish();

 private:
  struct Free {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, Free> context_;
};

}  // namespace kogia::hub
