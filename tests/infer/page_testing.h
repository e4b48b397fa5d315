#pragma once
// Pages whose every byte follows from their key, so that any process can tell a wrong one.

#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "device/device.h"
#include "infer/page_store.h"

namespace kogia::test {

using Bytes = std::vector<std::byte>;

struct TestPage {
  PageKey key, before;
  std::vector<TokenId> ids;
};

/// The first n pages of one timeline.
inline std::vector<TestPage> chain_of(std::string_view tenant, int n) {
  std::vector<TestPage> pages;
  PageKey before = page_key_root(tenant);
  for (int i = 0; i < n; ++i) {
    std::vector<TokenId> ids;
    for (int j = 0; j < kPageTokens; ++j) ids.push_back(1000 * i + j);
    const PageKey key = page_key(before, ids);
    pages.push_back({key, before, std::move(ids)});
    before = key;
  }
  return pages;
}

inline Bytes contents_of(const PageKey& key, Index n_bytes) {
  const Philox random(key.words[0], key.words[1]);
  Bytes page(static_cast<std::size_t>(n_bytes));
  for (std::size_t at = 0; at < page.size(); at += sizeof(Philox::Block)) {
    const Philox::Block block = random.bits(at);
    std::memcpy(page.data() + at, block.data(), std::min(sizeof(block), page.size() - at));
  }
  return page;
}

inline bool save(PageStore& store, const TestPage& p, Index n_bytes) {
  return store.save(p.key, p.before, p.ids, contents_of(p.key, n_bytes));
}

enum class Found { kRight, kMiss, kWrong };

/// kMiss: and the buffer has nothing of a file.
inline Found load(PageStore& store, const TestPage& p, Index n_bytes) {
  Bytes page(static_cast<std::size_t>(n_bytes));
  if (store.load(p.key, p.before, p.ids, page)) {
    return page == contents_of(p.key, n_bytes) ? Found::kRight : Found::kWrong;
  }
  return page == Bytes(page.size()) ? Found::kMiss : Found::kWrong;
}

inline int n_found(PageStore& store, const std::vector<TestPage>& pages, Index n_bytes) {
  int n = 0;
  for (const TestPage& p : pages) {
    const Found found = load(store, p, n_bytes);
    if (found == Found::kWrong) return -1;
    n += found == Found::kRight ? 1 : 0;
  }
  return n;
}

/// All files below a folder whose names end so.
inline std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder,
                                                      std::string_view ending) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().string().ends_with(ending)) files.push_back(entry.path());
  }
  return files;
}

}  // namespace kogia::test
