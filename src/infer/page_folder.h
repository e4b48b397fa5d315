#pragma once
// The folder that pages lie in, and its size: FOLDER/FINGERPRINT/KEY.page, those of all models.
//
// When a page was used last is its file's time of modification, so that it outlives the process:
// in whole minutes, and below them the deeper page the earlier. A page is never younger than the
// one before it (page_store.cc), so what leaves first is the end of a prefix, not its beginning.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include <time.h>

#include "base/index.h"

namespace kogia {

struct PageAge {
  std::int64_t minute = 0;  // since 1970
  Index depth = 0;          // pages before it
};
timespec file_time(const PageAge& age);
std::int64_t minute_now();

/// Keeps the folder below its size. Other processes may use it too: what they add is found now and
/// then, what they have used or removed is seen before a page is removed. Only files named as pages
/// are ever touched. Trouble with a file is not told: it stays, and the next one goes.
///
/// Threads  one at a time
class PageFolder {
 public:
  PageFolder(std::filesystem::path root, Index max_bytes);

  /// Looks at all files; removes temporaries that a process has left behind, and pages until the
  /// size is right.
  void scan();
  /// A page was written. `name` is FINGERPRINT/KEY.page.
  void add(const std::string& name, Index n_bytes, const PageAge& age);

  Index n_bytes() const { return n_bytes_; }
  Index n_removed() const { return n_removed_; }

 private:
  using Time = std::int64_t;  // nanoseconds
  struct Page {
    std::string name;
    Index n_bytes = 0;
  };
  void scan_model(const std::string& fingerprint);
  void make_room();

  std::filesystem::path root_;
  Index max_bytes_, n_bytes_ = 0, n_since_scan_ = 0, n_removed_ = 0;
  std::multimap<Time, Page> pages_;  // least recently used first
};

}  // namespace kogia
