#pragma once
// Pages of the cache on disk, under the tree in memory: a prefix computed once is found again after
// a restart. docs/decisions/0026 says how and why.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/index.h"
#include "infer/page_key.h"

namespace kogia {

struct PageStoreOptions {
  std::filesystem::path folder;
  Index max_bytes = Index{8} << 30;  // of all models; the least recently used pages leave
  std::string fingerprint;           // pages of another are not seen (infer/cache_fingerprint.h)
  Index page_bytes = 0;
  Index max_queued_bytes = Index{256} << 20;  // copies of pages that wait to be written
};

struct PageStoreStats {
  Index n_loaded = 0, n_damaged = 0;
  Index n_written = 0, n_dropped = 0;  // of those given to save()
  Index n_removed = 0;                 // to keep the size
  Index n_folder_bytes = 0;            // of all models, as far as known
};

/// Full pages: kPageTokens ids each. Several processes may use one folder, also for different
/// models.
///
/// Errors   a page that is missing, damaged, cut, or whose tokens differ is a miss, never an error;
///          a folder that cannot be made or written is an Error (usage) of open(), later trouble
///          (no space) a warning, once, after which nothing more is written
/// Threads  one at a time; writes are done by a thread of its own
class PageStore {
 public:
  static std::unique_ptr<PageStore> open(PageStoreOptions options);
  /// Waits as flush() does.
  ~PageStore();
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  /// Whether a page of that key is there (it may still turn out damaged).
  bool contains(const PageKey& key) const;
  /// Fills `page` (page_bytes) and says so; checks the checksum, the fingerprint and the ids. On a
  /// miss `page` is as it was, or zeros.
  bool load(const PageKey& key, const PageKey& before, std::span<const TokenId> ids,
            std::span<std::byte> page);
  /// Keeps a copy; returns at once. False: the queue is full or the disk was, the page stays a
  /// miss. A page that is there already is not written again.
  bool save(const PageKey& key, const PageKey& before, std::span<const TokenId> ids,
            std::span<const std::byte> page);
  /// Waits until all is written.
  void flush();

  PageStoreStats stats() const;

 private:
  struct Parts;
  explicit PageStore(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace kogia
