#pragma once
// Files that are there whole or not at all.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"
#include "base/index.h"

namespace kogia {

/// Writes a file as a stream: bytes go to a temporary beside the target; commit() brings them to
/// the disk and renames it over the target, so that a crash leaves the old file or the new one.
/// Without commit() the destructor removes the temporary and the target stays as it was; what a
/// killed process left of the same target goes when the next one begins (temporary.h).
///
/// Errors   every call throws Error naming the target (no space, no such folder, no permission)
/// Threads  one at a time
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void append(std::span<const std::byte> bytes);
  void append(std::string_view text);
  /// Appends n zero bytes (padding).
  void append_zeros(Index n);
  /// Writes somewhere else than at the end, for a file whose size is known: by several threads, of
  /// a file that nothing is appended to. What is never written reads as zeros. The disk is set to
  /// work at once, so that little is left for commit().
  void write_at(Index offset, std::span<const std::byte> bytes);
  /// Bytes appended so far.
  Index size() const { return size_; }

  /// Flushes, fsyncs, renames, fsyncs the folder. Nothing may be appended afterwards.
  void commit();

  const std::filesystem::path& target() const { return target_; }

 private:
  void flush();
  void write(std::span<const std::byte> bytes);

  std::filesystem::path target_, temporary_;
  FileDescriptor fd_;
  std::vector<std::byte> buffer_;
  Index size_ = 0;
};

/// Throws Error where the file system that `target` is to lie on has no room for n more bytes.
void require_space(const std::filesystem::path& target, Index n);

/// The whole file at once.
void write_file_atomically(const std::filesystem::path& target, std::string_view text);

}  // namespace kogia
