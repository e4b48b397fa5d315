#pragma once
// The cache of the CPU device, and how attention over it is cut into tasks.

#include <vector>

#include "base/thread_pool.h"
#include "device/cpu/kernel_table.h"
#include "device/device.h"
#include "tensor/arena.h"

namespace kogia {

void cache_append(const CacheAppendArgs& args, ThreadPool& pool);
void cache_read(const CacheReadArgs& args, ThreadPool& pool);

/// Cuts attention into tiles of queries, and where these are few (decoding) also the keys into
/// blocks. How it is cut never changes a bit (kernel_table.h). Holds scratch from call to call.
class CpuAttention {
 public:
  /// pairs: whether bf16 is multiplied by dot products, where the kernels have them.
  explicit CpuAttention(bool pairs) : pairs_(pairs) {}
  void run(const AttentionArgs& args, const KernelTable& kernels, ThreadPool& pool);

 private:
  void cut_tiles(const AttentionArgs& args);
  void run_tiles(const KernelTable& kernels, ThreadPool& pool, bool alone);
  void run_blocks(const KernelTable& kernels, ThreadPool& pool);

  bool pairs_;
  std::vector<AttentionTile> tiles_;
  Arena scratch_;
};

}  // namespace kogia
