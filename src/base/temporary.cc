#include "base/temporary.h"

#include <atomic>
#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnd = ".tmp";

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// What all temporaries of a target begin with.
std::string prefix_of(const fs::path& target) {
  return fmt::format(".{}.", target.filename().string());
}

// The kernel decides who has a name; the counter only avoids retries.
fs::path next_name(const fs::path& target) {
  static std::atomic<unsigned> counter{0};
  fs::path path = target;
  path.replace_filename(
      fmt::format("{}{}-{}{}", prefix_of(target), ::getpid(), counter.fetch_add(1), kEnd));
  return path;
}

/// PID-N
bool is_writer(std::string_view text) {
  const auto is_number = [](std::string_view digits) {
    return !digits.empty() && digits.find_first_not_of("0123456789") == std::string_view::npos;
  };
  const std::size_t dash = text.find('-');
  return dash != std::string_view::npos && is_number(text.substr(0, dash)) &&
         is_number(text.substr(dash + 1));
}

bool is_temporary_of(std::string_view prefix, std::string_view name) {
  return name.size() > prefix.size() + kEnd.size() && name.starts_with(prefix) &&
         name.ends_with(kEnd) &&
         is_writer(name.substr(prefix.size(), name.size() - prefix.size() - kEnd.size()));
}

bool lock(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB) == 0; }

/// The name still leads to what fd is open on.
bool is_at(int fd, const fs::path& path) {
  struct stat open_one{}, named{};
  return ::fstat(fd, &open_one) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

/// Removes it unless somebody holds it. Whoever has just made one and not locked it yet finds out
/// that the name is gone and makes another. A file system without locks keeps its remains.
void remove_unless_held(const fs::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid() && errno == EISDIR) {
    fd = FileDescriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  }
  std::error_code ignored;
  if (fd.valid() && lock(fd.get()) && is_at(fd.get(), path)) fs::remove_all(path, ignored);
}

void sweep(const fs::path& target) {
  const std::string prefix = prefix_of(target);
  std::error_code error;
  for (fs::directory_iterator it(folder_of(target), error), end; !error && it != end;
       it.increment(error)) {
    if (is_temporary_of(prefix, it->path().filename().native())) remove_unless_held(it->path());
  }
}

int make_file(const fs::path& path) {
  return ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}
int make_folder(const fs::path& path) {
  if (::mkdir(path.c_str(), 0777) != 0) return -1;
  return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

Temporary make(const fs::path& target, const char* what, int (*make_open)(const fs::path&)) {
  sweep(target);
  constexpr int kAttempts = 100;
  for (int i = 0; i < kAttempts; ++i) {
    Temporary made;
    made.path = next_name(target);
    made.lock = FileDescriptor(make_open(made.path));
    if (made.lock.valid()) {
      // Where the lock is refused because of a sweeper, it removes the name; where the file system
      // knows no locks, nobody can.
      const bool swept = !lock(made.lock.get()) && errno == EWOULDBLOCK;
      if (!swept && fs::exists(made.path)) return made;
    } else if (errno != EEXIST && !(errno == ENOENT && fs::exists(folder_of(target)))) {
      break;
    }
  }
  throw_errno(target.string(), fmt::format("cannot make a {} beside it", what));
}

}  // namespace

Temporary make_temporary_file(const fs::path& target) { return make(target, "file", make_file); }
Temporary make_temporary_folder(const fs::path& target) {
  return make(target, "folder", make_folder);
}

void sync_folder_of(const fs::path& path) {
  const fs::path folder = folder_of(path);
  const FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) throw_errno(folder.string(), "cannot open the folder to sync it");
  // Some file systems cannot sync a folder and say so with EINVAL.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) throw_errno(folder.string(), "cannot sync");
}

}  // namespace kogia
