#include "hub/blob.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <numeric>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/interrupt.h"

namespace kogia::hub {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;

// Behind the bytes of the file: this, then a number of 8 bytes for each part.
struct Trailer {
  std::array<char, 16> magic;
  std::uint64_t size, part_bytes;
};
constexpr std::array<char, 16> kMagic{'k', 'o', 'g', 'i', 'a', ' ', 'p',
                                      'a', 'r', 't', 's', ' ', '1', '\n'};
static_assert(sizeof(Trailer) == 32 && std::endian::native == std::endian::little);

std::string incomplete_name(const RemoteFile& file) { return file.blob + ".kogia.incomplete"; }

std::size_t parts_of(Index size) {
  return static_cast<std::size_t>((size + IncompleteBlob::kPartBytes - 1) /
                                  IncompleteBlob::kPartBytes);
}

Index trailer_bytes(Index size) {
  return static_cast<Index>(sizeof(Trailer) + sizeof(std::uint64_t) * parts_of(size));
}

bool read_at(int fd, std::span<std::byte> bytes, Index offset) {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += n;
  }
  return true;
}

// What an earlier run has noted; empty if it is not of this file.
std::vector<Index> read_counts(int fd, Index size) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return {};
  std::vector<Index> counts(parts_of(size));
  const auto most = [size](std::size_t part) {
    const Index begin = static_cast<Index>(part) * IncompleteBlob::kPartBytes;
    return std::min(IncompleteBlob::kPartBytes, size - begin);
  };
  if (info.st_size == size) {  // cut to its length, and then the program ended
    for (std::size_t part = 0; part < counts.size(); ++part) counts[part] = most(part);
    return counts;
  }
  if (info.st_size != size + trailer_bytes(size)) return {};
  Trailer trailer{};
  if (!read_at(fd, std::as_writable_bytes(std::span(&trailer, 1)), size)) return {};
  if (trailer.magic != kMagic || trailer.size != static_cast<std::uint64_t>(size) ||
      trailer.part_bytes != static_cast<std::uint64_t>(IncompleteBlob::kPartBytes)) {
    return {};
  }
  if (!read_at(fd, std::as_writable_bytes(std::span(counts)),
               size + static_cast<Index>(sizeof(Trailer)))) {
    return {};
  }
  for (std::size_t part = 0; part < counts.size(); ++part) {
    if (counts[part] < 0 || counts[part] > most(part)) return {};
  }
  return counts;
}

// Feeds bytes [begin, end) of the file to the digest; false where they cannot be read.
bool feed(Digest& digest, int fd, Index begin, Index end) {
  std::vector<std::byte> buffer(kReadBytes);
  while (begin < end) {
    throw_if_interrupted();
    const auto n =
        static_cast<std::size_t>(std::min<Index>(end - begin, static_cast<Index>(buffer.size())));
    const std::span<std::byte> bytes(buffer.data(), n);
    if (!read_at(fd, bytes, begin)) return false;
    digest.update(bytes);
    begin += static_cast<Index>(n);
  }
  return true;
}

}  // namespace

IncompleteBlob::IncompleteBlob(const Folder& blobs, const RemoteFile& file)
    : blobs_(blobs),
      blob_(file.blob),
      name_(incomplete_name(file)),
      size_(file.size),
      done_(parts_of(file.size)),
      complete_(done_.size()) {
  fd_ = FileDescriptor(
      ::openat(blobs.fd(), name_.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666));
  struct stat info{};
  if (!fd_.valid() || ::fstat(fd_.get(), &info) != 0) {
    throw_errno(blobs.path_of(name_), "cannot open for writing");
  }
  if (!S_ISREG(info.st_mode) || info.st_nlink != 1) {  // a second name would be written too
    throw_error(ErrorCode::kIo, "{}: has other names or is no file, expected a file of its own",
                blobs.path_of(name_));
  }
  if (!read_trailer()) reset();
}

bool IncompleteBlob::read_trailer() {
  std::vector<Index> counts = read_counts(fd_.get(), size_);
  if (counts.size() != done_.size()) return false;
  done_ = std::move(counts);
  for (std::size_t part = 0; part < done_.size(); ++part) {
    complete_[part] = done_[part] == part_size(part);
  }
  return true;
}

void IncompleteBlob::reset() {
  std::ranges::fill(done_, 0);
  const std::scoped_lock lock(hashing_, complete_mutex_);
  complete_.assign(done_.size(), false);
  digest_.reset();
  hashed_parts_ = 0;
  write_trailer();
}

void IncompleteBlob::write_trailer() {
  // The length first: a file of another length is no trailer of ours to any reader.
  if (::ftruncate(fd_.get(), 0) != 0) throw_errno(blobs_.path_of(name_), "cannot write");
  std::vector<std::byte> bytes(static_cast<std::size_t>(trailer_bytes(size_)));
  const Trailer trailer{.magic = kMagic,
                        .size = static_cast<std::uint64_t>(size_),
                        .part_bytes = static_cast<std::uint64_t>(kPartBytes)};
  std::memcpy(bytes.data(), &trailer, sizeof(trailer));
  write_at(bytes, size_);
}

void IncompleteBlob::write_at(std::span<const std::byte> bytes, Index offset) const {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(blobs_.path_of(name_), "cannot write");
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += n;
  }
}

Index IncompleteBlob::part_size(std::size_t part) const {
  return std::min(kPartBytes, size_ - part_begin(part));
}

Index IncompleteBlob::total_done() const {
  return std::accumulate(done_.begin(), done_.end(), Index{0});
}

void IncompleteBlob::write(std::size_t part, std::span<const std::byte> bytes) {
  const Index n = static_cast<Index>(bytes.size());
  KOGIA_CHECK(n <= part_size(part) - done_[part]);
  write_at(bytes, part_begin(part) + done_[part]);
  const Index now = done_[part] + n;
  write_at(std::as_bytes(std::span(&now, 1)),
           size_ + static_cast<Index>(sizeof(Trailer) + sizeof(std::uint64_t) * part));
  done_[part] = now;
  if (now != part_size(part)) return;
  const std::scoped_lock lock(complete_mutex_);
  complete_[part] = true;
}

void IncompleteBlob::hash_complete_parts() {
  if (!digest_) digest_.emplace(blob_, size_);
  while (hashed_parts_ < complete_.size()) {
    {
      const std::scoped_lock lock(complete_mutex_);
      if (!complete_[hashed_parts_]) return;
    }
    const Index begin = part_begin(hashed_parts_);
    if (!feed(*digest_, fd_.get(), begin, begin + part_size(hashed_parts_))) {
      throw_errno(blobs_.path_of(name_), "cannot read back");
    }
    ++hashed_parts_;
  }
}

void IncompleteBlob::hash_ahead() {
  const std::unique_lock lock(hashing_, std::try_to_lock);
  if (lock.owns_lock()) hash_complete_parts();
}

bool IncompleteBlob::finish() {
  {
    const std::scoped_lock lock(hashing_);
    hash_complete_parts();
    KOGIA_CHECK(hashed_parts_ == complete_.size());
    if (digest_->finish() == blob_) {
      if (::ftruncate(fd_.get(), size_) != 0 || ::fsync(fd_.get()) != 0) {
        throw_errno(blobs_.path_of(name_), "cannot bring to the disk");
      }
      blobs_.rename(name_, blob_);
      return true;
    }
  }
  reset();
  return false;
}

Index IncompleteBlob::bytes_left_by_earlier_run(const Folder& blobs, const RemoteFile& file) {
  const FileDescriptor fd(::openat(blobs.fd(), incomplete_name(file).c_str(),
                                   O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return 0;
  const std::vector<Index> counts = read_counts(fd.get(), file.size);
  return std::accumulate(counts.begin(), counts.end(), Index{0});
}

bool has_right_hash(const Folder& blobs, const RemoteFile& file) {
  const FileDescriptor fd(::openat(blobs.fd(), file.blob.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return false;
  Digest digest(file.blob, file.size);
  return feed(digest, fd.get(), 0, file.size) && digest.finish() == file.blob;
}

}  // namespace kogia::hub
