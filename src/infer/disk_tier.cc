#include "infer/disk_tier.h"

namespace kogia {
namespace {

std::span<const TokenId> tokens_of_page(std::span<const TokenId> ids, Index page) {
  return ids.subspan(static_cast<std::size_t>(page * kPageTokens), kPageTokens);
}

}  // namespace

// -1: it is not there, damaged, or memory is full.
std::int32_t DiskTier::load_page(PrefixTree& tree, const PageKey& key, const PageKey& before,
                                 std::span<const TokenId> ids) {
  if (!store_.contains(key)) return -1;
  PagePool& pool = engine_.pages();
  std::int32_t page = pool.take();
  if (page < 0 && tree.evict_one()) page = pool.take();
  if (page < 0) return -1;
  if (store_.load(key, before, ids, engine_.cache().page(page))) return page;
  pool.release(page);
  return -1;
}

void DiskTier::restore(PrefixTree& tree, std::string_view tenant, std::span<const TokenId> ids) {
  const Index n_pages = static_cast<Index>(ids.size()) / kPageTokens;
  if (tree.match_length(tenant, ids) / kPageTokens >= n_pages) return;
  // Holding on to what is matched keeps it from making room for what follows.
  PrefixMatch match = tree.match(tenant, ids);
  if (match.tail_page >= 0) engine_.pages().release(match.tail_page);
  PageKey key = page_key_root(tenant);
  const auto n_matched = static_cast<Index>(match.pages.size());
  for (Index i = 0; i < n_pages; ++i) {
    const PageKey before = key;
    const auto part = tokens_of_page(ids, i);
    key = page_key(before, part);
    if (i < n_matched) continue;
    const std::int32_t page = load_page(tree, key, before, part);
    if (page < 0) break;
    match.pages.push_back(page);
  }
  if (static_cast<Index>(match.pages.size()) > n_matched) {
    tree.insert(tenant, ids.first(match.pages.size() * kPageTokens), match.pages);
  }
  for (const std::int32_t page : match.pages) engine_.pages().release(page);
}

void DiskTier::save(std::string_view tenant, std::span<const TokenId> ids,
                    std::span<const std::int32_t> pages, Index first_page) {
  PageKey key = page_key_root(tenant);
  for (Index i = 0; i < static_cast<Index>(pages.size()); ++i) {
    const PageKey before = key;
    const auto part = tokens_of_page(ids, i);
    key = page_key(before, part);
    if (i < first_page) continue;
    store_.save(key, before, part, engine_.cache().page(pages[static_cast<std::size_t>(i)]));
  }
}

}  // namespace kogia
