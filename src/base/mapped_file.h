#pragma once
// A file as memory, read-only.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/index.h"

namespace kogia {

/// Maps a whole regular file. Pages are read when touched, so that opening a 600 GB file is
/// instant.
///
/// Ownership  spans live as long as the MappedFile; moving it does not move the bytes
/// Errors     open throws Error naming the path; an empty file is legal and gives an empty span
/// Limits     who truncates the file while it is mapped kills the process on the next touch
/// (SIGBUS) Threads    const and safe to share after opening
class MappedFile {
 public:
  static MappedFile open(const std::filesystem::path& path);
  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  Index size() const { return static_cast<Index>(size_); }
  /// When it was last written, in nanoseconds since 1970, as it was on opening.
  std::int64_t mtime_ns() const { return mtime_ns_; }
  /// The path as it was given, for messages.
  const std::string& name() const { return name_; }

  // Hints to the operating system about bytes [offset, offset + n) (clipped to the file); never
  // fail.
  void advise_sequential(Index offset, Index n) const;  // will be read once, from front to back
  void advise_willneed(Index offset, Index n) const;    // start reading it now
  void advise_dontneed(Index offset, Index n) const;    // done: the pages may be dropped

 private:
  void advise(Index offset, Index n, int advice) const;
  void unmap();
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::int64_t mtime_ns_ = 0;
  std::string name_;
};

}  // namespace kogia
