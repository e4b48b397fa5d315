#include "base/cores.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <sched.h>

namespace kogia {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  return in ? text.str() : std::string();
}

// v2: "max 100000" or "150000 100000".
std::optional<double> limit_v2(const fs::path& folder) {
  std::istringstream in(read_text(folder / "cpu.max"));
  double quota = 0, period = 0;
  if (in >> quota >> period && quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

// v1: -1 or microseconds.
std::optional<double> limit_v1(const fs::path& folder) {
  std::istringstream quota_in(read_text(folder / "cpu.cfs_quota_us"));
  std::istringstream period_in(read_text(folder / "cpu.cfs_period_us"));
  double quota = 0, period = 0;
  if (quota_in >> quota && period_in >> period && quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

void tighten(std::optional<double>& limit, std::optional<double> other) {
  if (other && (!limit || *other < *limit)) limit = other;
}

// The group and its ancestors. A container often sees its own group as the root of the mount while
// /proc/self/cgroup still names the path outside, so folders that do not exist are passed over.
template <class Read>
void walk(std::optional<double>& limit, const fs::path& mount, const fs::path& group, Read read) {
  for (fs::path part = group.relative_path(); !part.empty(); part = part.parent_path()) {
    tighten(limit, read(mount / part));
  }
  tighten(limit, read(mount));
}

int cores_by_affinity() {
  for (int n = 1024; n <= (1 << 20); n *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(n));
    if (set == nullptr) break;
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(n));
    const int status = sched_getaffinity(0, size, set);
    const int count = status == 0 ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (status == 0) return count;
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

std::optional<double> cgroup_cpu_limit(std::string_view proc_self_cgroup, const fs::path& mount) {
  std::optional<double> limit;
  std::istringstream lines{std::string(proc_self_cgroup)};
  for (std::string line; std::getline(lines, line);) {  // "id:controllers:/path"
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) walk(limit, mount, group, limit_v2);
    if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      walk(limit, mount / controllers, group, limit_v1);
      walk(limit, mount / "cpu", group, limit_v1);
    }
  }
  return limit;
}

int usable_cores() {
  int cores = std::max(1, cores_by_affinity());
  const auto limit = cgroup_cpu_limit(read_text("/proc/self/cgroup"), "/sys/fs/cgroup");
  // Rounded down: a thread beyond the quota would be throttled in the middle of a run while the
  // others wait for it.
  if (limit) cores = std::clamp(static_cast<int>(std::floor(*limit)), 1, cores);
  return cores;
}

}  // namespace kogia
