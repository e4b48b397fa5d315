#pragma once
// A file on its way into the cache: written in parts, by several threads, over several runs.

#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file_descriptor.h"
#include "base/index.h"
#include "hub/digest.h"
#include "hub/folder.h"
#include "hub/listing.h"

namespace kogia::hub {

/// `blobs/HASH.kogia.incomplete`: the bytes of the file, and behind its end how many bytes of each
/// part have arrived. The count is written after the bytes, so a program that was killed continues
/// exactly there; after a power failure the count may be ahead of the bytes, and the hash tells.
/// Only bytes that have the right hash ever get the name `blobs/HASH`.
///
/// Threads  write() by one thread for each part; the rest as said
/// Errors   Error naming the file: kIo (a full disk), kInvalid
class IncompleteBlob {
 public:
  static constexpr Index kPartBytes = Index{16} << 20;

  /// Continues what an earlier run has left. `file` has size and hash.
  IncompleteBlob(const Folder& blobs, const RemoteFile& file);

  std::size_t n_parts() const { return done_.size(); }
  Index part_begin(std::size_t part) const { return static_cast<Index>(part) * kPartBytes; }
  Index part_size(std::size_t part) const;
  /// Bytes of the part that are there.
  Index done(std::size_t part) const { return done_[part]; }
  Index total_done() const;

  /// Appends to the part, which must have room for the bytes.
  void write(std::size_t part, std::span<const std::byte> bytes);
  /// Forgets everything that has arrived. No other thread may be at work.
  void reset();

  /// Hashes what is complete from the beginning on, unless another thread is at it. Call it now and
  /// then: what has just been written need not be read back from the disk.
  void hash_ahead();
  /// All parts are there: true if the hash is right and the file has got its name. false: all was
  /// forgotten.
  bool finish();

  /// Bytes that an earlier run has left, without opening anything for writing.
  static Index bytes_left_by_earlier_run(const Folder& blobs, const RemoteFile& file);

 private:
  void write_at(std::span<const std::byte> bytes, Index offset) const;
  bool read_trailer();
  void write_trailer();
  void hash_complete_parts();

  const Folder& blobs_;
  const std::string blob_, name_;
  const Index size_;
  FileDescriptor fd_;
  std::vector<Index> done_;

  std::mutex hashing_;
  std::optional<Digest> digest_;
  std::size_t hashed_parts_ = 0;
  // Parts that are complete; the writer of a part sets its flag after the last byte.
  std::mutex complete_mutex_;
  std::vector<bool> complete_;
};

/// Reads a file of the folder and compares its hash with its name. Ends with an Error(kInterrupted)
/// after Ctrl-C.
bool has_right_hash(const Folder& blobs, const RemoteFile& file);

}  // namespace kogia::hub
