#include "cli/machine.h"

#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/thread_pool.h"
#include "cli/output.h"

namespace kogia::cli {
namespace {

std::string read_system_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string first_line(const std::filesystem::path& path) {
  const std::string text = read_system_file(path);
  return text.substr(0, text.find('\n'));
}

// Virtual machines hide the sizes; then these stand in, the smallest of current servers.
std::vector<CacheSize> default_caches() {
  return {{"L1d", 32 << 10, true}, {"L2", 1 << 20, true}, {"L3", 16 << 20, true}};
}

std::vector<CacheSize> read_caches() {
  std::vector<CacheSize> caches = default_caches();
  const std::filesystem::path folder = "/sys/devices/system/cpu/cpu0/cache";
  for (int i = 0; i < 8; ++i) {
    const auto cache = folder / ("index" + std::to_string(i));
    const std::string type = first_line(cache / "type"), level = first_line(cache / "level");
    const Index bytes = parse_size(first_line(cache / "size"));
    if (type.empty() || type == "Instruction" || bytes <= 0) continue;
    for (CacheSize& known : caches) {
      if (known.name.substr(1, 1) == level) {
        known.bytes = bytes;
        known.assumed = false;
      }
    }
  }
  return caches;
}

}  // namespace

std::string field_of(std::string_view text, std::string_view key) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const std::size_t colon = line.find(':');
    if (line.starts_with(key) && colon != std::string_view::npos &&
        line.substr(key.size(), colon - key.size()).find_first_not_of(" \t") ==
            std::string_view::npos) {
      const std::size_t value = line.find_first_not_of(" \t", colon + 1);
      return value == std::string_view::npos ? std::string() : std::string(line.substr(value));
    }
    begin = end + 1;
  }
  return {};
}

Index parse_size(std::string_view text) {
  Index value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, status] = std::from_chars(text.data(), end, value);
  if (status != std::errc() || value < 0 || value > (Index{1} << 40)) return 0;
  const std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  if (unit.starts_with("K") || unit.starts_with(" kB")) return value << 10;
  if (unit.starts_with("M")) return value << 20;
  return unit.empty() ? value : 0;
}

Machine read_machine() {
  Machine machine;
  machine.processor = printable(field_of(read_system_file("/proc/cpuinfo"), "model name"));
  machine.usable_cores = usable_cores();
  const std::string memory = read_system_file("/proc/meminfo");
  machine.memory_bytes = parse_size(field_of(memory, "MemTotal"));
  machine.available_bytes = parse_size(field_of(memory, "MemAvailable"));
  machine.caches = read_caches();
  return machine;
}

}  // namespace kogia::cli
