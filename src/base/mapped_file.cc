#include "base/mapped_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file_descriptor.h"

namespace kogia {

MappedFile MappedFile::open(const std::filesystem::path& path) {
  MappedFile file;
  file.name_ = path.string();
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang before we can refuse it.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) throw_errno(file.name_, "cannot open for reading");
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) throw_errno(file.name_, "cannot stat");
  if (!S_ISREG(info.st_mode)) {
    throw_error(ErrorCode::kInvalid, "{}: is {}, expected a regular file", file.name_,
                S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
  }
  file.size_ = static_cast<std::size_t>(info.st_size);
  file.mtime_ns_ = std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
  if (file.size_ == 0) return file;
  void* p = ::mmap(nullptr, file.size_, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (p == MAP_FAILED) throw_errno(file.name_, "cannot map into memory");
  file.data_ = static_cast<const std::byte*>(p);
  return file;
}

MappedFile::~MappedFile() { unmap(); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mtime_ns_(other.mtime_ns_),
      name_(std::move(other.name_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  unmap();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mtime_ns_ = other.mtime_ns_;
  name_ = std::move(other.name_);
  return *this;
}

void MappedFile::unmap() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  data_ = nullptr;
}

void MappedFile::advise(Index offset, Index n, int advice) const {
  static const Index page = ::sysconf(_SC_PAGESIZE);
  const Index begin = std::clamp<Index>(offset, 0, size());
  const Index end = begin + std::clamp<Index>(n, 0, size() - begin);
  const Index first_page = begin / page * page;
  if (end <= first_page || data_ == nullptr) return;
  auto* p = const_cast<std::byte*>(data_) + first_page;
  ::madvise(p, static_cast<std::size_t>(end - first_page), advice);
}

void MappedFile::advise_sequential(Index offset, Index n) const {
  advise(offset, n, MADV_SEQUENTIAL);
}
void MappedFile::advise_willneed(Index offset, Index n) const { advise(offset, n, MADV_WILLNEED); }
void MappedFile::advise_dontneed(Index offset, Index n) const { advise(offset, n, MADV_DONTNEED); }

}  // namespace kogia
