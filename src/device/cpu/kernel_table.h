#pragma once
// The kernels of one instruction set. device_kernels.cc is compiled once per set and fills a table;
// select.cc picks one; cpu_device.cc slices the work over threads and calls it.
//
// Kernels see plain data only and never threads: each call is one slice (rows of the argument
// struct), and a row's arithmetic does not know the slice it came in.

#include <cstddef>
#include <cstdint>

#include "base/index.h"
#include "device/cpu_device.h"
#include "device/device.h"

namespace kogia {

/// CombineArgs without its span.
struct CombineSlice {
  const float* expert_rows = nullptr;
  Index expert_stride = 0;
  const std::int32_t* row_of = nullptr;  // [rows * top_k]
  const float* weights = nullptr;        // [rows, top_k]
  Index rows = 0, top_k = 0, n = 0;
  float* y = nullptr;
  Index y_stride = 0;
};

/// A piece of attention: n_rows successive rows of one sequence times n_heads successive heads that
/// share a key-value head. Query i = row · n_heads + head.
struct AttentionTile {
  const float* q = nullptr;  // row r, head h at q + r * q_stride + h * k_dim
  Index q_stride = 0;
  float* out = nullptr;  // row r, head h at out + r * out_stride + h * v_dim
  Index out_stride = 0;
  Index n_rows = 0, n_heads = 0;
  Index first_pos = 0;  // of row 0
  float scale = 1;

  const std::byte* base = nullptr;  // this kv head in page 0 (device/reference/cache.h)
  Index page_stride = 0;            // bytes
  const std::int32_t* pages = nullptr;
  Index k_dim = 0, v_dim = 0, row = 0, value_begin = 0;  // in numbers; row: from value to value
  bool latent = false, bf16 = false;
  bool pairs = false;  // bf16 by its dot products, q and weights rounded, where there are such

  Index n_queries() const { return n_rows * n_heads; }
  Index n_blocks() const { return ceil_div(first_pos + n_rows, kPageTokens); }
  Index v_pad() const { return round_up(v_dim, 16); }
  /// Keys of a block that a query sees; none if not positive.
  Index valid_keys(Index query, Index block) const {
    const Index n = first_pos + query / n_heads + 1 - block * kPageTokens;
    return n < kPageTokens ? n : kPageTokens;
  }
  /// Queries before it see no key of the block, nor any later one.
  Index first_query(Index block) const {
    const Index behind = block * kPageTokens - first_pos;
    return behind > 0 ? behind * n_heads : 0;
  }
  /// Scratch of attention_blocks, in floats.
  Index scratch_floats() const {
    const Index nq = round_up(n_queries(), 16);
    return nq * (kPageTokens + v_pad() + 2) + kPageTokens * (k_dim + row) +
           (latent ? nq * (k_dim + kPageTokens) : 0);
  }
  /// Floats of an AttentionState.
  Index state_floats() const { return round_up(n_queries(), 16) * (v_pad() + 2); }
};

/// Blocks of a span: part of the arithmetic, as the length of a block is.
inline constexpr Index kSpanBlocks = 8;

/// Softmax over some keys, unfinished: out = Σ exp(s_t − max) v_t, sum = Σ exp(s_t − max).
struct AttentionState {
  float* max = nullptr;  // [n_queries]
  float* sum = nullptr;  // [n_queries]
  float* out = nullptr;  // [n_queries, v_pad]

  static AttentionState at(float* memory, const AttentionTile& tile) {
    const Index nq = round_up(tile.n_queries(), 16);
    return {.max = memory, .sum = memory + nq, .out = memory + 2 * nq};
  }
};

struct KernelTable {
  const char* name;
  void (*rms_norm)(const RmsNormArgs& args);
  void (*rope)(const RopeArgs& args);
  void (*silu_mul)(const SiluMulArgs& args);
  void (*combine)(const CombineSlice& args);
  /// log softmax(logits)[id] over n logits.
  float (*log_prob)(const float* logits, Index n, Index id);

  // Attention; null: the reference's rows are used instead. A block's partial softmax is made by
  // itself; the kSpanBlocks blocks of a span are merged in order, and then the spans, so that both
  // may be shared among threads without changing a bit.
  /// The keys of blocks [begin, end) of a span, at least one, merged in order into `state`,
  /// whatever it holds.
  void (*attention_blocks)(const AttentionTile& tile, Index begin, Index end,
                           const AttentionState& state, float* scratch);
  /// into := into merged with `from`, whose keys come later and begin with `block`.
  void (*attention_merge)(const AttentionTile& tile, Index block, const AttentionState& into,
                          const AttentionState& from);
  /// Divides by the sums and writes the tile's outputs.
  void (*attention_finish)(const AttentionTile& tile, const AttentionState& state);
};

const KernelTable& kernels(Isa isa);

}  // namespace kogia
