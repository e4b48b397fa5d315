#pragma once
// Names beside a target for what is not finished: made, locked while somebody writes, swept up
// after those who were killed.

#include <filesystem>

#include "base/file_descriptor.h"

namespace kogia {

/// A file or folder beside `target` that is to be renamed over it: `.NAME.PID-N.tmp`. It is locked
/// (flock) as long as `lock` is open, so that another run can tell it from what a killed one left.
struct Temporary {
  std::filesystem::path path;
  FileDescriptor lock;  // of a file: open for reading and writing
};

/// Each makes an empty one that nobody else has, after removing those of the same target that
/// nobody holds. Throws Error naming the target where its folder does not allow it.
Temporary make_temporary_file(const std::filesystem::path& target);
Temporary make_temporary_folder(const std::filesystem::path& target);

/// Brings the entries of the folder that holds `path` to the disk: what was renamed stays renamed.
void sync_folder_of(const std::filesystem::path& path);

}  // namespace kogia
