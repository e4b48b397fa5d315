#pragma once
// DIR/metrics.jsonl: a line a step, each step once, also where a run was stopped and goes on.

#include <filesystem>
#include <fstream>

#include <nlohmann/json_fwd.hpp>

#include "base/index.h"

namespace kogia {

class MetricsLog {
 public:
  /// Lines of steps after `step` (they will come again) and a last line that was cut off go.
  /// Throws Error naming the file where it cannot be read or written.
  MetricsLog(std::filesystem::path file, Index step);

  /// One line, on the disk's way at once. The object has "step".
  void add(const nlohmann::ordered_json& line);

 private:
  std::filesystem::path file_;
  std::ofstream out_;
};

}  // namespace kogia
