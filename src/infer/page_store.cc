#include "infer/page_store.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "device/device.h"
#include "infer/page_recency.h"
#include "infer/page_writer.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& folder, const std::string& why) {
  throw Error(ErrorCode::kUsage,
              fmt::format("{}: no pages can be kept here: {}", folder.string(), why),
              "name a folder that can be written");
}

/// The folder of one model. Pages hold what was written to the model: others may not read them.
void make_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    throw_errno(folder.string(), "cannot make this folder");
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw_errno(folder.string(), "cannot write in this folder");
  }
}

void prepare(const fs::path& root, const fs::path& folder, const std::string& fingerprint) {
  try {
    if (root.has_parent_path()) fs::create_directories(root.parent_path());
    make_folder(root);
    make_folder(folder);
    const fs::path text = folder / "fingerprint.txt";  // for people
    if (!fs::exists(text)) write_file_atomically(text, fingerprint);
  } catch (const Error& e) {
    refuse(root, e.what());
  } catch (const fs::filesystem_error& e) {
    refuse(root, fmt::format("{}: {}", e.path1().string(), e.code().message()));
  }
}

}  // namespace

struct PageStore::Parts {
  PageStoreOptions options;
  Hash128 fingerprint;
  fs::path folder;
  PageRecency recency;
  PageStoreStats stats;  // n_loaded, n_damaged
  PageWriter writer;

  Parts(PageStoreOptions o, const Hash128& hash)
      : options(std::move(o)),
        fingerprint(hash),
        folder(options.folder / hash.hex()),
        writer(options.folder, options.max_bytes, options.max_queued_bytes) {}

  fs::path file(const PageKey& key) const { return folder / (key.hex() + ".page"); }
  PageTag tag(const PageKey& key, const PageKey& before, std::span<const TokenId> ids) const {
    return {fingerprint, key, before, {ids.begin(), ids.end()}};
  }
  void touch(const PageKey& key, const PageAge& age) const {
    const timespec times[2] = {file_time(age), file_time(age)};
    ::utimensat(AT_FDCWD, file(key).c_str(), times, AT_SYMLINK_NOFOLLOW);
  }
  PageAge use(const PageKey& key, const PageKey& before) {
    return recency.use(key, before, minute_now(),
                       [&](const PageKey& k, const PageAge& age) { touch(k, age); });
  }
  /// So that it is written anew.
  void remove_damaged(const fs::path& page) {
    if (stats.n_damaged++ == 0) log_warning("{}: damaged, computed anew", page.string());
    ::unlink(page.c_str());
  }
};

PageStore::PageStore(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
PageStore::~PageStore() = default;

std::unique_ptr<PageStore> PageStore::open(PageStoreOptions options) {
  KOGIA_CHECK(options.page_bytes > 0);
  const Index n_bytes = page_file_bytes(kPageTokens, options.page_bytes);
  if (options.max_bytes < n_bytes) {
    refuse(options.folder, fmt::format("a page takes {} bytes, and all of them may take {}",
                                       n_bytes, options.max_bytes));
  }
  const Hash128 hash = hash_bytes_128(std::as_bytes(std::span(options.fingerprint)));
  prepare(options.folder, options.folder / hash.hex(), options.fingerprint);
  return std::unique_ptr<PageStore>(
      new PageStore(std::make_unique<Parts>(std::move(options), hash)));
}

bool PageStore::contains(const PageKey& key) const {
  struct stat info{};
  return ::lstat(parts_->file(key).c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         info.st_size == page_file_bytes(kPageTokens, parts_->options.page_bytes);
}

bool PageStore::load(const PageKey& key, const PageKey& before, std::span<const TokenId> ids,
                     std::span<std::byte> page) {
  KOGIA_CHECK(static_cast<Index>(ids.size()) == kPageTokens &&
              static_cast<Index>(page.size()) == parts_->options.page_bytes);
  const fs::path file = parts_->file(key);
  // Whatever a stranger puts there: no link is followed, no pipe waited for.
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd.valid()) return false;
  if (!read_page(fd, parts_->tag(key, before, ids), page)) {
    parts_->remove_damaged(file);
    return false;
  }
  ++parts_->stats.n_loaded;
  parts_->use(key, before);
  return true;
}

bool PageStore::save(const PageKey& key, const PageKey& before, std::span<const TokenId> ids,
                     std::span<const std::byte> page) {
  KOGIA_CHECK(static_cast<Index>(ids.size()) == kPageTokens &&
              static_cast<Index>(page.size()) == parts_->options.page_bytes);
  const PageAge age = parts_->use(key, before);
  return contains(key) || parts_->writer.push(parts_->tag(key, before, ids), page, age);
}

void PageStore::flush() { parts_->writer.flush(); }

PageStoreStats PageStore::stats() const {
  PageStoreStats stats = parts_->stats;
  const PageWriterCounts counts = parts_->writer.counts();
  stats.n_written = counts.n_written;
  stats.n_dropped = counts.n_dropped;
  stats.n_removed = counts.n_removed;
  stats.n_folder_bytes = counts.n_folder_bytes;
  return stats;
}

}  // namespace kogia
