#include "device/cpu/attention.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "device/reference/attention.h"

namespace kogia {
namespace {

// Queries of a tile: enough that decoding a key block to f32 is paid back, few enough that the
// tile's sums (up to 32 x 512 floats) stay in the second-level cache.
constexpr Index kTileQueries = 32;
// Multiply-adds that one thread does while another would be waking up.
constexpr Index kSmallWork = 1 << 17;
// Blocks or spans whose partial results are held at a time, per tile.
constexpr Index kWaveParts = 64;
static_assert(kWaveParts % kSpanBlocks == 0);  // no span lies in two waves

Index work(const AttentionTile& t) {
  return t.n_queries() * t.n_blocks() * kPageTokens * (t.k_dim + t.v_dim);
}

// The tile that begins at a row and a head of a sequence.
AttentionTile make_tile(const AttentionArgs& a, const PageLayout& layout, const SequenceRows& seq,
                        Index first_row, Index first_head) {
  const CacheSpec& spec = a.cache.spec;
  const Index v_dim = layout.latent ? spec.latent_v_dim : spec.v_dim;
  const Index row = seq.row_begin + first_row, kv_head = first_head / (a.n_heads / spec.n_kv_heads);
  return {.q = a.q + row * a.q_stride + first_head * spec.k_dim,
          .q_stride = a.q_stride,
          .out = a.out + row * a.out_stride + first_head * v_dim,
          .out_stride = a.out_stride,
          .first_pos = seq.first_pos + first_row,
          .scale = a.scale,
          .base = a.cache.base + kv_head * layout.head_bytes,
          .page_stride = a.cache.page_stride,
          .pages = seq.pages,
          .k_dim = spec.k_dim,
          .v_dim = v_dim,
          .row = layout.row,
          .value_begin = layout.value(0),
          .latent = layout.latent,
          .bf16 = spec.dtype == DType::bf16};
}

}  // namespace

void CpuAttention::cut_tiles(const AttentionArgs& a) {
  const PageLayout layout(a.cache.spec);
  const Index group = a.n_heads / a.cache.spec.n_kv_heads;  // heads that share a kv head
  const Index tile_heads = std::min(group, kTileQueries);
  const Index tile_rows = kTileQueries / tile_heads;
  tiles_.clear();
  for (const SequenceRows& seq : a.sequences) {
    KOGIA_CHECK(seq.first_pos >= 0 && seq.n_rows >= 0);
    // The last rows see the most keys: they go first, so that no thread begins a long tile last.
    for (Index tile = ceil_div(seq.n_rows, tile_rows); tile-- > 0;) {
      const Index first_row = tile * tile_rows;
      for (Index head = 0; head < a.n_heads; head += group) {
        for (Index h = 0; h < group; h += tile_heads) {
          AttentionTile t = make_tile(a, layout, seq, first_row, head + h);
          t.pairs = pairs_ && t.bf16 && t.k_dim % 2 == 0;
          t.n_rows = std::min(tile_rows, seq.n_rows - first_row);
          t.n_heads = std::min(tile_heads, group - h);
          tiles_.push_back(t);
        }
      }
    }
  }
}

// A task is a tile with all its keys.
void CpuAttention::run_tiles(const KernelTable& kernels, ThreadPool& pool, bool alone) {
  Index floats = 0, state_floats = 0;
  for (const AttentionTile& t : tiles_) {
    floats = std::max(floats, round_up(t.scratch_floats(), 16));
    state_floats = std::max(state_floats, t.state_floats());
  }
  const Index thread_floats = floats + 2 * state_floats;
  float* memory = scratch_.allocate<float>(thread_floats * (alone ? 1 : pool.n_threads()));
  const auto run_tile = [&](Index i, int thread) {
    const AttentionTile& tile = tiles_[static_cast<std::size_t>(i)];
    float* p = memory + thread * thread_floats;
    const AttentionState all = AttentionState::at(p, tile);
    const AttentionState span = AttentionState::at(p + state_floats, tile);
    for (Index begin = 0; begin < tile.n_blocks(); begin += kSpanBlocks) {
      const Index end = std::min(begin + kSpanBlocks, tile.n_blocks());
      kernels.attention_blocks(tile, begin, end, begin == 0 ? all : span, p + 2 * state_floats);
      if (begin > 0) kernels.attention_merge(tile, begin, all, span);
    }
    kernels.attention_finish(tile, all);
  };
  const Index n = static_cast<Index>(tiles_.size());
  if (alone) {
    for (Index i = 0; i < n; ++i) run_tile(i, 0);
  } else {
    pool.run(n, std::ref(run_tile));
  }
}

// A task is a span of a tile, or one block where spans are few, with a partial result of its own;
// then the tiles merge theirs in order. Long contexts go in waves, so that memory stays bounded.
void CpuAttention::run_blocks(const KernelTable& kernels, ThreadPool& pool) {
  Index floats = 0, state_floats = 0, most_blocks = 0;
  for (const AttentionTile& t : tiles_) {
    floats = std::max(floats, round_up(t.scratch_floats(), 16));
    state_floats = std::max(state_floats, t.state_floats());
    most_blocks = std::max(most_blocks, t.n_blocks());
  }
  const Index n_tiles = static_cast<Index>(tiles_.size());
  const bool by_span = n_tiles * most_blocks >= Index{4} * kSpanBlocks * pool.n_threads();
  const Index step = by_span ? kSpanBlocks : 1;
  const Index wave_blocks = std::min(most_blocks, kWaveParts * step);
  const Index wave = ceil_div(wave_blocks, step);
  // Per tile: the running state, then one for each part of the wave.
  const Index tile_floats = (1 + wave) * state_floats;
  float* memory = scratch_.allocate<float>(n_tiles * tile_floats + pool.n_threads() * floats);
  float* thread_memory = memory + n_tiles * tile_floats;
  const auto state_of = [&](Index tile, Index slot) {
    float* p = memory + tile * tile_floats + slot * state_floats;
    return AttentionState::at(p, tiles_[static_cast<std::size_t>(tile)]);
  };

  for (Index first = 0; first < most_blocks; first += wave * step) {
    const auto make_part = [&](Index task, int thread) {
      const Index i = task / wave, part = task % wave, begin = first + part * step;
      const AttentionTile& tile = tiles_[static_cast<std::size_t>(i)];
      const Index end = std::min(begin + step, tile.n_blocks());
      if (begin >= end) return;
      kernels.attention_blocks(tile, begin, end, state_of(i, 1 + part),
                               thread_memory + thread * floats);
    };
    pool.run(n_tiles * wave, std::ref(make_part));
    const auto merge = [&](Index i, int) {
      const AttentionTile& tile = tiles_[static_cast<std::size_t>(i)];
      const Index last = std::min(first + wave * step, tile.n_blocks());
      for (Index span = first; span < last; span += kSpanBlocks) {
        const AttentionState into = state_of(i, 1 + (span - first) / step);
        for (Index b = span + step; b < std::min(span + kSpanBlocks, last); b += step) {
          kernels.attention_merge(tile, b, into, state_of(i, 1 + (b - first) / step));
        }
        if (span > 0) {
          kernels.attention_merge(tile, span, state_of(i, 0), into);
        } else {
          std::copy_n(into.max, tile.state_floats(), state_of(i, 0).max);
        }
      }
      if (first + wave * step >= tile.n_blocks() && first < tile.n_blocks()) {
        kernels.attention_finish(tile, state_of(i, 0));
      }
    };
    pool.run(n_tiles, std::ref(merge));
  }
}

void CpuAttention::run(const AttentionArgs& a, const KernelTable& kernels, ThreadPool& pool) {
  KOGIA_CHECK(a.n_heads > 0 && a.n_heads % a.cache.spec.n_kv_heads == 0);
  if (kernels.attention_blocks == nullptr) {
    for (const SequenceRows& seq : a.sequences) {
      pool.run(seq.n_rows * a.n_heads, [&](Index task, int) {
        reference::attention_row(a, seq, task / a.n_heads, task % a.n_heads);
      });
    }
    return;
  }
  cut_tiles(a);
  scratch_.reset();
  Index total = 0, longest = 0;
  for (const AttentionTile& t : tiles_) {
    total += work(t);
    longest = std::max(longest, t.n_blocks());
  }
  const Index n_tiles = static_cast<Index>(tiles_.size());
  const bool alone = total < kSmallWork || pool.n_threads() == 1;
  if (!alone && longest >= 2 && n_tiles < Index{4} * pool.n_threads()) {
    run_blocks(kernels, pool);
  } else {
    run_tiles(kernels, pool, alone);
  }
}

}  // namespace kogia
