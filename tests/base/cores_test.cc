#include "base/cores.h"

#include <gtest/gtest.h>

#include "support/temp_dir.h"

namespace kogia {
namespace {

using test::TempDir;

TEST(CgroupCpuLimit, VersionTwoReadsQuotaOverPeriod) {
  const TempDir mount;
  mount.write("a/b/cpu.max", "150000 100000\n");
  EXPECT_EQ(cgroup_cpu_limit("0::/a/b\n", mount.path()), 1.5);
  EXPECT_EQ(cgroup_cpu_limit("0::/a\n", mount.path()), std::nullopt);
}

TEST(CgroupCpuLimit, TheTightestAncestorCounts) {
  const TempDir mount;
  mount.write("a/cpu.max", "200000 100000\n");
  mount.write("a/b/cpu.max", "max 100000\n");
  mount.write("a/b/c/cpu.max", "800000 100000\n");
  EXPECT_EQ(cgroup_cpu_limit("0::/a/b/c\n", mount.path()), 2.0);
  EXPECT_EQ(cgroup_cpu_limit("0::/a/b\n", mount.path()), 2.0);
}

TEST(CgroupCpuLimit, InsideAContainerTheMountIsTheGroup) {
  const TempDir mount;
  mount.write("cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpu_limit("0::/system.slice/not-visible-here\n", mount.path()), 4.0);
}

TEST(CgroupCpuLimit, VersionOneReadsTheCpuController) {
  const TempDir mount;
  mount.write("cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n");
  mount.write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_limit("5:memory:/x\n3:cpu,cpuacct:/job\n", mount.path()), 3.0);
  mount.write("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(cgroup_cpu_limit("3:cpu,cpuacct:/job\n", mount.path()), std::nullopt);
}

TEST(CgroupCpuLimit, NonsenseMeansNoLimit) {
  const TempDir mount;
  mount.write("a/cpu.max", "many per day\n");
  mount.write("b/cpu.max", "0 0\n");
  for (const char* text : {"", "0::/a\n", "0::/b\n", "::::\n", "0\n", "x:y\n"}) {
    EXPECT_EQ(cgroup_cpu_limit(text, mount.path()), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace kogia
