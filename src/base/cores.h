#pragma once
// How many cores a container or a batch system leaves us.

#include <filesystem>
#include <optional>
#include <string_view>

#include "base/thread_pool.h"  // usable_cores()

namespace kogia {

/// CPU time per wall time that the control groups allow, in cores; nullopt where nothing limits it.
/// `proc_self_cgroup` is the text of /proc/self/cgroup, `mount` where the hierarchy is mounted
/// (/sys/fs/cgroup). Knows cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us); the tightest ancestor
/// counts.
std::optional<double> cgroup_cpu_limit(std::string_view proc_self_cgroup,
                                       const std::filesystem::path& mount);

}  // namespace kogia
