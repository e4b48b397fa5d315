#pragma once
// Names of pages of the cache.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace kogia {

/// Names a page by everything before it: tenant, and all tokens up to its end. It is a SHA-256, cut
/// to 128 bits: who chooses tokens cannot choose them such that they are taken for another's.
struct PageKey {
  std::uint64_t words[2] = {};

  /// 32 digits.
  std::string hex() const;
  friend bool operator==(const PageKey&, const PageKey&) = default;
};

struct PageKeyHash {
  std::size_t operator()(const PageKey& key) const {
    return static_cast<std::size_t>(key.words[0]);
  }
};

/// What stands before the first page of a tenant.
PageKey page_key_root(std::string_view tenant);
/// The key of the page that follows the one of `before` and holds `ids`.
PageKey page_key(const PageKey& before, std::span<const TokenId> ids);

}  // namespace kogia
