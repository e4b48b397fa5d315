#pragma once
// What the operating system says of the machine.

#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"

namespace kogia::cli {

struct CacheSize {
  std::string name;  // "L1d", "L2", "L3"
  Index bytes = 0;
  bool assumed = false;  // the machine hides it (virtual ones do), so a built-in default stands in
};

struct Machine {
  std::string processor;  // "AMD EPYC 9R14"
  int usable_cores = 0;   // affinity and control groups respected
  Index memory_bytes = 0, available_bytes = 0;
  std::vector<CacheSize> caches;
};

Machine read_machine();

/// The value of `key` in text of the form "key : value" lines; empty if there is none.
std::string field_of(std::string_view text, std::string_view key);
/// "32K" or "16384 kB" in bytes; 0 if it is none.
Index parse_size(std::string_view text);

}  // namespace kogia::cli
