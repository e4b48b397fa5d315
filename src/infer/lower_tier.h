#pragma once
// What may stand under the prefix tree: a larger and slower place for pages.

#include <cstdint>
#include <span>
#include <string_view>

#include "infer/prefix_tree.h"

namespace kogia {

/// Threads: one at a time.
class LowerTier {
 public:
  virtual ~LowerTier() = default;
  /// Brings what follows the tree's match of `ids` into the tree, as far as whole pages are here
  /// and memory has room.
  virtual void restore(PrefixTree& tree, std::string_view tenant, std::span<const TokenId> ids) = 0;
  /// Keeps pages from first_page on; `ids` are all tokens up to the end of the last of them.
  virtual void save(std::string_view tenant, std::span<const TokenId> ids,
                    std::span<const std::int32_t> pages, Index first_page) = 0;
};

}  // namespace kogia
