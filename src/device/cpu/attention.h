#pragma once
// The cache of the CPU device, and how attention over it is cut into tasks.

#include <vector>

#include "base/thread_pool.h"
#include "device/cpu/kernel_table.h"
#include "device/device.h"

namespace kogia {

void cache_append(const CacheAppendArgs& args, ThreadPool& pool);
void cache_read(const CacheReadArgs& args, ThreadPool& pool);

/// Holds scratch from call to call.
class CpuAttention {
 public:
  void run(const AttentionArgs& args, const KernelTable& kernels, ThreadPool& pool);
};

}  // namespace kogia
