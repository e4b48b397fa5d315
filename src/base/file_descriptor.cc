#include "base/file_descriptor.h"

#include <cerrno>
#include <string>
#include <system_error>

#include <unistd.h>

#include "base/error.h"

namespace kogia {

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

bool write_all(const FileDescriptor& fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

void throw_errno(std::string_view path, std::string_view what) {
  const int error = errno;
  const bool missing = error == ENOENT || error == ENOTDIR;
  std::string help;
  if (missing) help = "check the path";
  if (error == EACCES || error == EPERM) help = "check the permissions of the file and its folders";
  if (error == ENOSPC || error == EDQUOT) help = "free some space or write to another disk";
  throw Error(missing ? ErrorCode::kNotFound : ErrorCode::kIo,
              fmt::format("{}: {}: {}", path, what, std::generic_category().message(error)), help);
}

}  // namespace kogia
