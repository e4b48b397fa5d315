#pragma once
// The scalars of a run as TensorBoard reads them: records of tensorflow.Event, each with its length
// and CRC-32C checksums (TFRecord). A step stands there once, also where a run was stopped and goes
// on.

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/index.h"

namespace kogia {

/// Threads: one.
class EventFile {
 public:
  /// `file` is made, with its folder, or gone on with: events of steps after `step` (they will come
  /// again) and a record that was cut off go.
  /// Errors  names the file where it cannot be read or written
  EventFile(std::filesystem::path file, Index step);

  using Scalar = std::pair<std::string, double>;
  /// All scalars of a step, on the disk's way at once. wall_time: seconds since 1970.
  void add(Index step, double wall_time, const std::vector<Scalar>& scalars);

 private:
  void write(std::string_view event);

  std::filesystem::path file_;
  std::ofstream out_;
};

/// CRC-32C (Castagnoli), as iSCSI has it.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace kogia
