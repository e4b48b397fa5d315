#include "device/cpu/attention.h"

#include "base/error.h"
#include "device/reference/attention.h"

namespace kogia {

void CpuAttention::run(const AttentionArgs& a, const KernelTable&, ThreadPool& pool) {
  KOGIA_CHECK(a.n_heads > 0 && a.n_heads % a.cache.spec.n_kv_heads == 0);
  for (const SequenceRows& seq : a.sequences) {
    pool.run(seq.n_rows * a.n_heads, [&](Index task, int) {
      reference::attention_row(a, seq, task / a.n_heads, task % a.n_heads);
    });
  }
}

}  // namespace kogia
