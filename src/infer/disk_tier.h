#pragma once
// Between the prefix tree in memory and the pages on disk.

#include <span>
#include <string_view>

#include "infer/engine.h"
#include "infer/lower_tier.h"
#include "infer/page_store.h"

namespace kogia {

/// Threads: one at a time.
class DiskTier final : public LowerTier {
 public:
  DiskTier(Engine& engine, PageStore& store) : engine_(engine), store_(store) {}

  void restore(PrefixTree& tree, std::string_view tenant, std::span<const TokenId> ids) override;
  void save(std::string_view tenant, std::span<const TokenId> ids,
            std::span<const std::int32_t> pages, Index first_page) override;

 private:
  std::int32_t load_page(PrefixTree& tree, const PageKey& key, const PageKey& before,
                         std::span<const TokenId> ids);

  Engine& engine_;
  PageStore& store_;
};

}  // namespace kogia
