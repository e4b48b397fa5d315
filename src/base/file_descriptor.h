#pragma once
// An owned POSIX file descriptor, and errno as an Error.

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

namespace kogia {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  bool valid() const { return fd_ >= 0; }
  int get() const { return fd_; }
  /// Gives up ownership.
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

/// Writes all of it where the descriptor stands. False: errno says why not.
bool write_all(const FileDescriptor& fd, std::span<const std::byte> bytes);

/// Throws Error "path: what: reason" from errno: kNotFound for a missing file, else kIo.
[[noreturn]] void throw_errno(std::string_view path, std::string_view what);

}  // namespace kogia
