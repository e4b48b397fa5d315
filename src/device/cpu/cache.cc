// Writing and reading cache pages: memory traffic alone, so one plain version serves every
// instruction set.

#include "device/reference/cache.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "device/cpu/attention.h"

namespace kogia {
namespace {

// As f32_to_bf16, where the compiler can see it.
std::uint16_t to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  const bool is_nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return static_cast<std::uint16_t>(is_nan ? (bits >> 16 | 0x40) : rounded);
}

void write(std::byte* head, DType dtype, Index at, Index step, const float* src, Index n) {
  if (dtype == DType::f32) {
    float* dst = reinterpret_cast<float*>(head) + at;
    for (Index i = 0; i < n; ++i) dst[i * step] = src[i];
  } else {
    auto* dst = reinterpret_cast<std::uint16_t*>(head) + at;
    for (Index i = 0; i < n; ++i) dst[i * step] = to_bf16(src[i]);
  }
}

void read(const std::byte* head, DType dtype, Index at, Index step, float* dst, Index n) {
  if (dtype == DType::f32) {
    const float* src = reinterpret_cast<const float*>(head) + at;
    for (Index i = 0; i < n; ++i) dst[i] = src[i * step];
  } else {
    const auto* src = reinterpret_cast<const std::uint16_t*>(head) + at;
    for (Index i = 0; i < n; ++i) dst[i] = bf16_to_f32(src[i * step]);
  }
}

void append_row(const CacheAppendArgs& a, const PageLayout& layout, const SequenceRows& seq,
                Index row) {
  const CacheSpec& spec = a.cache.spec;
  const Index pos = seq.first_pos + row, token = pos % kPageTokens;
  const float* k = a.k + (seq.row_begin + row) * a.k_stride;
  for (Index h = 0; h < spec.n_kv_heads; ++h) {
    std::byte* head = page_head(a.cache, layout, seq.pages[pos / kPageTokens], h);
    write(head, spec.dtype, layout.key(token, 0), layout.key_step(), k + h * spec.k_dim,
          spec.k_dim);
    if (spec.v_dim == 0) continue;
    const float* v = a.v + (seq.row_begin + row) * a.v_stride + h * spec.v_dim;
    write(head, spec.dtype, layout.value(token), 1, v, spec.v_dim);
  }
}

}  // namespace

void cache_append(const CacheAppendArgs& a, ThreadPool& pool) {
  const PageLayout layout(a.cache.spec);
  KOGIA_CHECK(a.cache.spec.v_dim == 0 || a.v != nullptr);
  Index n_rows = 0;
  for (const SequenceRows& seq : a.sequences) {
    KOGIA_CHECK(seq.first_pos >= 0 && seq.n_rows >= 0);
    n_rows += seq.n_rows;
  }
  // The rows of all sequences, one after the other: many of one row each are as good as one of
  // many.
  const Index grain = std::max<Index>(4, ceil_div(n_rows, Index{4} * pool.n_threads()));
  pool.parallel_for(n_rows, grain, [&](Index begin, Index end, int) {
    Index first = 0;  // of a sequence
    for (const SequenceRows& seq : a.sequences) {
      const Index last = std::min(end, first + seq.n_rows);
      for (Index r = std::max(begin, first); r < last; ++r) append_row(a, layout, seq, r - first);
      first += seq.n_rows;
      if (first >= end) return;
    }
  });
}

void cache_read(const CacheReadArgs& a, ThreadPool& pool) {
  const CacheSpec& spec = a.cache.spec;
  const PageLayout layout(spec);
  pool.parallel_for(a.n_positions, kPageTokens, [&](Index begin, Index end, int) {
    for (Index h = 0; h < spec.n_kv_heads; ++h) {
      const std::byte* head = page_head(a.cache, layout, a.pages[begin / kPageTokens], h);
      for (Index t = begin; t < end; ++t) {
        const Index token = t % kPageTokens;
        read(head, spec.dtype, layout.key(token, 0), layout.key_step(),
             a.k + (t * spec.n_kv_heads + h) * spec.k_dim, spec.k_dim);
        if (a.v == nullptr || spec.v_dim == 0) continue;
        read(head, spec.dtype, layout.value(token), 1, a.v + (t * spec.n_kv_heads + h) * spec.v_dim,
             spec.v_dim);
      }
    }
  });
}

}  // namespace kogia
