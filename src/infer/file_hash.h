#pragma once
// What is in a file of weights, as 128 bits, without reading it twice.

#include <filesystem>
#include <functional>

#include "base/hash.h"
#include "base/mapped_file.h"
#include "device/device.h"

namespace kogia {

struct FileHashOptions {
  /// Where hashes are kept from run to run, each with the path, size, times and inode of its file;
  /// empty: nowhere.
  std::filesystem::path cache_folder = {};
  /// The file's pages stop counting as this program's memory, as they are read.
  bool release = false;
  std::function<void(Index n_bytes)> on_bytes = {};  // from several threads
};

/// A hash of the contents alone: XXH3-128 of the hashes of its pieces of 16 MiB, which the device's
/// threads compute.
/// Errors  Ctrl-C throws kInterrupted; trouble with the cache folder is nobody's concern
Hash128 file_hash(const MappedFile& file, Device& device, const FileHashOptions& options);

}  // namespace kogia
