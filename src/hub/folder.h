#pragma once
// Files of the cache, reached from an open folder downwards and never through a symbolic link, so
// that nobody who may write there can lead a write elsewhere.

#include <optional>
#include <string>
#include <string_view>

#include "base/file_descriptor.h"
#include "base/index.h"

namespace kogia::hub {

class Folder {
 public:
  /// Made if it is not there; the path itself may go through links (it is the user's).
  static Folder open(const std::string& path);

  /// A folder below, made if it is not there. `path` is safe (is_safe_path()).
  Folder below(std::string_view path) const;
  int fd() const { return fd_.get(); }
  /// For messages.
  std::string path_of(std::string_view name) const;

  Folder copy() const;

  /// Size of a regular file; -1 where there is none of that name (a link is none).
  Index file_size(const std::string& name) const;
  /// The same, through links: Python's library keeps blobs that repositories share elsewhere.
  Index target_size(const std::string& name) const;
  /// All of a file of at most `limit` bytes.
  std::string read_text(const std::string& name, Index limit) const;
  /// What a symbolic link says; nullopt where there is none of that name.
  std::optional<std::string> read_link(const std::string& name) const;
  /// Makes or replaces a symbolic link, in one step. false: the file system has none.
  bool try_put_link(const std::string& target, const std::string& name) const;
  /// Moves a file here from another folder of the same file system.
  void take_from(const Folder& other, const std::string& from, const std::string& to) const;
  /// Makes or replaces a small file, in one step; brought to the disk.
  void put_text(std::string_view text, const std::string& name) const;
  void rename(const std::string& from, const std::string& to) const;
  void remove(const std::string& name) const;  // no error where there is none
  void sync() const;
  /// Bytes that a user may still write there; -1: not known.
  Index free_bytes() const;

 private:
  Folder(FileDescriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  FileDescriptor fd_;
  std::string path_;
};

/// Waits for the lock of a file (made if it is not there), which is held while this lives.
/// `waiting` is called about ten times a second meanwhile and may throw. File systems without locks
/// give none: then valid() is false.
class FileLock {
 public:
  template <class Waiting>
  FileLock(const Folder& folder, const std::string& name, Waiting&& waiting)
      : fd_(open_file(folder, name)) {
    while (!try_lock()) waiting();
  }
  bool valid() const { return fd_.valid(); }

 private:
  static FileDescriptor open_file(const Folder& folder, const std::string& name);
  bool try_lock();  // false: another process has it; sleeps a moment
  FileDescriptor fd_;
};

}  // namespace kogia::hub
