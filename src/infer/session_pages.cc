#include "infer/session_pages.h"

#include <algorithm>

#include "base/error.h"
#include "infer/cache_fingerprint.h"
#include "infer/session_file.h"

namespace kogia {
namespace {

/// Pages that are held on to until here.
struct Held {
  PagePool& pool;
  std::vector<std::int32_t> pages;
  ~Held() {
    for (const std::int32_t page : pages) pool.release(page);
  }
};

void check_ids(const Engine& engine, const std::filesystem::path& file,
               std::span<const TokenId> ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= engine.vocab_size()) {
      throw_error(ErrorCode::kInvalid, "{}: token {} has id {}, expected 0 to {}", file.string(), i,
                  ids[i], engine.vocab_size() - 1);
    }
  }
}

}  // namespace

void save_session(Engine& engine, PrefixTree& tree, const std::filesystem::path& file,
                  std::string_view tenant, std::span<const TokenId> ids) {
  PrefixMatch match = tree.match(tenant, ids);
  const Held held{engine.pages(), std::move(match.pages)};
  if (match.tail_page >= 0) engine.pages().release(match.tail_page);
  if (held.pages.size() < ids.size() / kPageTokens) {
    throw_error(ErrorCode::kInvalid, "{} of {} tokens are in the cache, expected all to be saved",
                held.pages.size() * kPageTokens, ids.size());
  }
  std::vector<std::span<const std::byte>> pages;
  for (const std::int32_t page : held.pages) pages.emplace_back(engine.cache().page(page));
  save_session_file(file, cache_fingerprint(engine), ids, pages);
}

std::vector<TokenId> load_session(Engine& engine, PrefixTree& tree,
                                  const std::filesystem::path& file, std::string_view tenant) {
  SessionFile session =
      load_session_file(file, cache_fingerprint(engine), engine.cache().page_bytes());
  check_ids(engine, file, session.ids);
  Held held{engine.pages(), {}};
  for (const auto& bytes : session.pages) {
    std::int32_t page = held.pool.take();
    if (page < 0 && tree.evict_one()) page = held.pool.take();
    if (page < 0) break;  // the rest is computed again
    std::ranges::copy(bytes, engine.cache().page(page).begin());
    held.pages.push_back(page);
  }
  const std::size_t n = held.pages.size() * kPageTokens;
  tree.insert(tenant, std::span<const TokenId>(session.ids).first(n), held.pages);
  return std::move(session.ids);
}

}  // namespace kogia
