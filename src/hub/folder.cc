#include "hub/folder.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"

namespace kogia::hub {
namespace {

std::string temporary_name(const std::string& name) {
  static std::atomic<unsigned> counter{0};
  return fmt::format(".{}.{}-{}.tmp", name.substr(0, 200), ::getpid(), counter.fetch_add(1));
}

}  // namespace

Folder Folder::open(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) errno = error.value();
  FileDescriptor fd(error ? -1 : ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) throw_errno(path, "cannot make the folder");
  return {std::move(fd), path};
}

std::string Folder::path_of(std::string_view name) const { return path_ + "/" + std::string(name); }

Folder Folder::copy() const {
  FileDescriptor fd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd.valid()) throw_errno(path_, "cannot open");
  return {std::move(fd), path_};
}

Folder Folder::below(std::string_view path) const {
  FileDescriptor current = std::move(copy().fd_);
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string component(path.substr(begin, end - begin));
    if (::mkdirat(current.get(), component.c_str(), 0777) != 0 && errno != EEXIST) {
      throw_errno(path_of(path.substr(0, end)), "cannot make the folder");
    }
    FileDescriptor next(::openat(current.get(), component.c_str(),
                                 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) {
      throw_errno(path_of(path.substr(0, end)), "not a folder of its own (a link or a file?)");
    }
    current = std::move(next);
    begin = end + 1;
  }
  return {std::move(current), path_of(path)};
}

Index Folder::file_size(const std::string& name) const {
  struct stat info{};
  if (::fstatat(fd(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return -1;
  return S_ISREG(info.st_mode) ? static_cast<Index>(info.st_size) : -1;
}

Index Folder::target_size(const std::string& name) const {
  struct stat info{};
  if (::fstatat(fd(), name.c_str(), &info, 0) != 0) return -1;
  return S_ISREG(info.st_mode) ? static_cast<Index>(info.st_size) : -1;
}

std::string Folder::read_text(const std::string& name, Index limit) const {
  const Index size = target_size(name);
  const FileDescriptor file(::openat(fd(), name.c_str(), O_RDONLY | O_CLOEXEC));
  if (size < 0 || !file.valid()) throw_errno(path_of(name), "cannot read");
  if (size > limit) {
    throw_error(ErrorCode::kInvalid, "{}: {} bytes, expected at most {}", path_of(name), size,
                limit);
  }
  std::string text(static_cast<std::size_t>(size), '\0');
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(file.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw_errno(path_of(name), "cannot read");
    done += static_cast<std::size_t>(n);
  }
  return text;
}

std::optional<std::string> Folder::read_link(const std::string& name) const {
  std::array<char, 4096> target{};
  const ssize_t n = ::readlinkat(fd(), name.c_str(), target.data(), target.size());
  if (n < 0) return {};
  return std::string(target.data(), static_cast<std::size_t>(n));
}

bool Folder::try_put_link(const std::string& target, const std::string& name) const {
  const std::string temporary = temporary_name(name);
  if (::symlinkat(target.c_str(), fd(), name.c_str()) == 0) return true;
  if (errno != EEXIST || ::symlinkat(target.c_str(), fd(), temporary.c_str()) != 0) {
    if (errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS) return false;
    throw_errno(path_of(name), "cannot make the link");
  }
  try {
    rename(temporary, name);
  } catch (...) {
    ::unlinkat(fd(), temporary.c_str(), 0);
    throw;
  }
  return true;
}

void Folder::take_from(const Folder& other, const std::string& from, const std::string& to) const {
  if (::renameat(other.fd(), from.c_str(), fd(), to.c_str()) != 0) {
    throw_errno(path_of(to), "cannot move the file here");
  }
}

void Folder::put_text(std::string_view text, const std::string& name) const {
  const std::string temporary = temporary_name(name);
  FileDescriptor file(::openat(fd(), temporary.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file.valid()) throw_errno(path_of(name), "cannot write");
  const bool written =
      ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      ::fsync(file.get()) == 0;
  if (!written) {
    const int reason = errno;
    ::unlinkat(fd(), temporary.c_str(), 0);
    errno = reason;
    throw_errno(path_of(name), "cannot write");
  }
  rename(temporary, name);
}

void Folder::rename(const std::string& from, const std::string& to) const {
  if (::renameat(fd(), from.c_str(), fd(), to.c_str()) != 0) {
    throw_errno(path_of(to), "cannot rename a finished file to this name");
  }
}

void Folder::remove(const std::string& name) const {
  if (::unlinkat(fd(), name.c_str(), 0) != 0 && errno != ENOENT) {
    throw_errno(path_of(name), "cannot remove");
  }
}

void Folder::sync() const {
  // Some file systems cannot sync a folder and say so with EINVAL.
  if (::fsync(fd()) != 0 && errno != EINVAL) throw_errno(path_, "cannot bring to the disk");
}

Index Folder::free_bytes() const {
  struct statvfs info{};
  if (::fstatvfs(fd(), &info) != 0) return -1;
  return static_cast<Index>(info.f_bavail) * static_cast<Index>(info.f_frsize);
}

FileDescriptor FileLock::open_file(const Folder& folder, const std::string& name) {
  FileDescriptor fd(
      ::openat(folder.fd(), name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!fd.valid()) throw_errno(folder.path_of(name), "cannot open the lock");
  return fd;
}

bool FileLock::try_lock() {
  if (::flock(fd_.get(), LOCK_EX | LOCK_NB) == 0) return true;
  if (errno != EWOULDBLOCK && errno != EINTR) {  // the file system has no locks
    fd_ = FileDescriptor();
    return true;
  }
  const timespec moment{.tv_sec = 0, .tv_nsec = 100'000'000};
  ::nanosleep(&moment, nullptr);
  return false;
}

}  // namespace kogia::hub
