#include "base/atomic_file.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/temporary.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

}  // namespace

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)) {
  if (!target_.has_filename() || fs::is_directory(target_)) {
    throw_error(ErrorCode::kUsage, "{}: is a folder, expected the name of a file to write",
                target_.string());
  }
  Temporary made = make_temporary_file(target_);
  temporary_ = std::move(made.path);
  fd_ = std::move(made.lock);
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (fd_.valid()) ::unlink(temporary_.c_str());  // not committed
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (!write_all(fd_, bytes)) throw_errno(target_.string(), "cannot write");
}

void AtomicFile::flush() {
  write(buffer_);
  buffer_.clear();
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  KOGIA_CHECK(fd_.valid());
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() >= kBufferBytes) {
    write(bytes);
  } else {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  size_ += static_cast<Index>(bytes.size());
}

void AtomicFile::append(std::string_view text) { append(std::as_bytes(std::span(text))); }

void AtomicFile::append_zeros(Index n) {
  static constexpr std::byte kZeros[4096] = {};
  for (; n > 0; n -= static_cast<Index>(sizeof(kZeros))) {
    append(std::span(kZeros, static_cast<std::size_t>(std::min<Index>(n, sizeof(kZeros)))));
  }
}

void AtomicFile::write_at(Index offset, std::span<const std::byte> bytes) {
  KOGIA_CHECK(fd_.valid() && size_ == 0);
  const Index begin = offset;
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_.get(), bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno(target_.string(), "cannot write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += written;
  }
#ifdef SYNC_FILE_RANGE_WRITE
  ::sync_file_range(fd_.get(), begin, offset - begin, SYNC_FILE_RANGE_WRITE);  // a hint
#endif
}

void AtomicFile::commit() {
  KOGIA_CHECK(fd_.valid());
  flush();
  if (::fsync(fd_.get()) != 0) throw_errno(target_.string(), "cannot bring to the disk");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    throw_errno(target_.string(), "cannot rename the finished file to this name");
  }
  // From here on the target is the new file; network file systems may report a late error on close.
  if (::close(fd_.release()) != 0) throw_errno(target_.string(), "cannot close");
  sync_folder_of(target_);
}

void require_space(const fs::path& target, Index n) {
  struct statvfs info{};
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  if (::statvfs(folder.c_str(), &info) != 0) return;  // then writing will tell
  const auto free = static_cast<double>(info.f_bavail) * static_cast<double>(info.f_frsize);
  if (free < static_cast<double>(n)) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: {} bytes are needed, and its file system has {:.0f}",
                            target.string(), n, free),
                "free some space, or name a place on another disk");
  }
}

void write_file_atomically(const fs::path& target, std::string_view text) {
  AtomicFile file(target);
  file.append(text);
  file.commit();
}

}  // namespace kogia
