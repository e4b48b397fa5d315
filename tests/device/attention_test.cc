// Attention over the paged cache: against the reference, and the bits of a row in every company.

#include "device/reference/attention.h"

#include <algorithm>
#include <numeric>

#include "base/thread_pool.h"
#include "device/device_testing.h"

namespace kogia::testing {
namespace {

struct Heads {
  Index n_heads;
  CacheSpec spec;
  Index v_dim() const { return spec.v_dim != 0 ? spec.v_dim : spec.latent_v_dim; }
};

std::string describe(const Heads& h) {
  return std::to_string(h.n_heads) + " heads over " + std::to_string(h.spec.n_kv_heads) + ", k " +
         std::to_string(h.spec.k_dim) + ", v " + std::to_string(h.v_dim()) + " " +
         std::string(name(h.spec.dtype)) + (h.spec.v_dim == 0 ? " latent" : "");
}

// SmolLM2, an odd shape, one head for all, MLA, MLA of odd size, more heads than a tile holds.
std::vector<Heads> shapes() {
  const auto apart = [](Index heads, Index kv, Index k, Index v, DType t) {
    return Heads{heads, {.n_kv_heads = kv, .k_dim = k, .v_dim = v, .dtype = t}};
  };
  const auto latent = [](Index heads, Index k, Index v, DType t) {
    return Heads{heads, {.n_kv_heads = 1, .k_dim = k, .v_dim = 0, .latent_v_dim = v, .dtype = t}};
  };
  return {apart(9, 3, 64, 64, DType::bf16),  apart(3, 3, 7, 5, DType::f32),
          apart(5, 1, 33, 80, DType::bf16),  apart(16, 2, 24, 16, DType::f32),
          apart(40, 1, 16, 16, DType::bf16), apart(22, 2, 64, 48, DType::bf16),
          latent(16, 576, 512, DType::bf16), latent(3, 23, 17, DType::f32),
          latent(70, 40, 32, DType::bf16)};
}

/// A cache whose pages lie in a shuffled order and are full of NaN where nothing was written.
class Cache {
 public:
  Cache(Device& device, const Heads& heads, Index n_pages)
      : stride_(device.cache_page_bytes(heads.spec) + 64),
        bytes_(static_cast<std::size_t>(stride_ * n_pages / 4 + 16), std::nanf("")),
        order_(static_cast<std::size_t>(n_pages)) {
    std::iota(order_.begin(), order_.end(), 0);
    const Philox random(99);
    for (std::size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[random.below(i, i)]);
    }
    view = {.spec = heads.spec,
            .base = reinterpret_cast<std::byte*>(bytes_.data()),
            .page_stride = stride_};
  }
  std::vector<std::int32_t> take(Index n_tokens) {
    const auto n = ceil_div(n_tokens, kPageTokens);
    std::vector<std::int32_t> pages(order_.begin() + used_, order_.begin() + used_ + n);
    used_ += n;
    return pages;
  }
  CacheView view;

 private:
  Index stride_;
  std::vector<float> bytes_;
  std::vector<std::int32_t> order_;
  Index used_ = 0;
};

/// The whole of one sequence: inputs by position.
struct Sequence {
  Sequence(const Heads& h, Index length, std::uint64_t seed)
      : n(length),
        q(random_floats(n * h.n_heads * h.spec.k_dim, seed)),
        k(random_floats(n * h.spec.n_kv_heads * h.spec.k_dim, seed + 1)),
        v(random_floats(n * h.spec.n_kv_heads * h.spec.v_dim, seed + 2)) {}
  Index n;
  std::vector<float> q, k, v;
};

float scale_of(const Heads& h) { return 1 / std::sqrt(static_cast<float>(h.spec.k_dim)); }

/// Tokens [first, first + n) of some sequences, in one batch.
struct Piece {
  const Sequence* sequence;
  const std::vector<std::int32_t>* pages;
  Index first, n;
};

std::vector<float> run_batch(Device& device, const Heads& h, Cache& cache,
                             const std::vector<Piece>& pieces) {
  std::vector<float> q, k, v;
  std::vector<SequenceRows> rows;
  Index n_rows = 0;
  for (const Piece& p : pieces) {
    const auto add = [&](std::vector<float>& to, const std::vector<float>& from, Index width) {
      to.insert(to.end(), from.begin() + p.first * width, from.begin() + (p.first + p.n) * width);
    };
    add(q, p.sequence->q, h.n_heads * h.spec.k_dim);
    add(k, p.sequence->k, h.spec.n_kv_heads * h.spec.k_dim);
    add(v, p.sequence->v, h.spec.n_kv_heads * h.spec.v_dim);
    rows.push_back(
        {.row_begin = n_rows, .n_rows = p.n, .first_pos = p.first, .pages = p.pages->data()});
    n_rows += p.n;
  }
  device.cache_append({.cache = cache.view,
                       .k = k.data(),
                       .k_stride = h.spec.n_kv_heads * h.spec.k_dim,
                       .v = h.spec.v_dim != 0 ? v.data() : nullptr,
                       .v_stride = h.spec.n_kv_heads * h.spec.v_dim,
                       .sequences = rows});
  std::vector<float> out(static_cast<std::size_t>(n_rows * h.n_heads * h.v_dim()), -7);
  device.attention({.cache = cache.view,
                    .q = q.data(),
                    .q_stride = h.n_heads * h.spec.k_dim,
                    .out = out.data(),
                    .out_stride = h.n_heads * h.v_dim(),
                    .n_heads = h.n_heads,
                    .scale = scale_of(h),
                    .sequences = rows});
  return out;
}

/// The whole sequence in steps of `chunk`.
std::vector<float> run_alone(Device& device, const Heads& h, const Sequence& s, Index chunk) {
  Cache cache(device, h, ceil_div(s.n, kPageTokens) + 3);
  const auto pages = cache.take(s.n);
  std::vector<float> out;
  for (Index first = 0; first < s.n; first += chunk) {
    const auto part =
        run_batch(device, h, cache, {{&s, &pages, first, std::min(chunk, s.n - first)}});
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

/// Whether queries and weights are rounded to bf16 (device.h, AttentionArgs).
bool rounds(const Device& device, const Heads& h) {
  // Where its dot products are slow, other arithmetic is the standard.
  const bool dots = device.default_compute(DType::q8_0) == Compute::bf16;
  return dots && h.spec.dtype == DType::bf16 && h.spec.k_dim % 2 == 0;
}

/// Softmax of one row: weights of which each block of keys' largest is rounded as 1.
std::vector<double> plain_weights(std::vector<double> scores, bool rounded) {
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (std::size_t begin = 0; begin < scores.size(); begin += kPageTokens) {
    const std::size_t end = std::min(scores.size(), begin + kPageTokens);
    const auto at = [&](std::size_t i) { return scores.begin() + static_cast<std::ptrdiff_t>(i); };
    const double block_top = *std::max_element(at(begin), at(end));
    for (std::size_t t = begin; t < end; ++t) {
      const double p = std::exp(scores[t] - block_top);
      const double p16 = rounded ? static_cast<double>(round_bf16(static_cast<float>(p))) : p;
      sum += scores[t] = p16 * std::exp(block_top - top);
    }
  }
  for (double& p : scores) p /= sum;
  return scores;
}

/// Straight from the inputs, without any cache.
std::vector<float> plain_attention(const Heads& h, const Sequence& s, bool rounded) {
  const auto stored = [&](float x) {
    return static_cast<double>(h.spec.dtype == DType::bf16 ? round_bf16(x) : x);
  };
  const Index kd = h.spec.k_dim, kv = h.spec.n_kv_heads;
  const auto& values = h.spec.v_dim != 0 ? s.v : s.k;
  const Index width = h.spec.v_dim != 0 ? h.spec.v_dim : kd;
  std::vector<float> out;
  for (Index r = 0; r < s.n; ++r) {
    for (Index head = 0; head < h.n_heads; ++head) {
      const Index kv_head = head / (h.n_heads / kv);
      std::vector<double> scores;
      for (Index t = 0; t <= r; ++t) {
        const float* q = s.q.data() + (r * h.n_heads + head) * kd;
        const float* k = s.k.data() + (t * kv + kv_head) * kd;
        double dot = 0;
        for (Index d = 0; d < kd; ++d) {
          dot += static_cast<double>(rounded ? round_bf16(q[d]) : q[d]) * stored(k[d]);
        }
        scores.push_back(dot * static_cast<double>(scale_of(h)));
      }
      const std::vector<double> p = plain_weights(std::move(scores), rounded);
      for (Index d = 0; d < h.v_dim(); ++d) {
        double y = 0;
        for (Index t = 0; t <= r; ++t) {
          y += p[static_cast<std::size_t>(t)] *
               stored(values[static_cast<std::size_t>((t * kv + kv_head) * width + d)]);
        }
        out.push_back(static_cast<float>(y));
      }
    }
  }
  return out;
}

/// Near, but for weights that f32 and f64 round to neighbours in bf16: few, and half a unit of 8
/// bits of values that are 5 at most.
void expect_near_but_for_ties(std::span<const float> a, std::span<const float> b) {
  expect_near(a, b, {.abs = 5 * 0x1p-9, .rel = 0});
  std::size_t n_apart = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    n_apart += std::fabs(a[i] - b[i]) > 4e-6F + 2e-5F * std::fabs(b[i]);
  }
  EXPECT_LE(n_apart, a.size() / 20);
}

TEST(Attention, EveryInstructionSetMatchesTheDefinition) {
  for (const Heads& h : shapes()) {
    SCOPED_TRACE(describe(h));
    const Sequence s(h, h.spec.k_dim > 100 ? 70 : 131,
                     /*seed=*/10);  // over one or two page borders
    for_each_cpu_target([&](Device& device) {
      const auto ours = run_alone(device, h, s, s.n);
      if (rounds(device, h)) {
        expect_near_but_for_ties(ours, plain_attention(h, s, true));
      } else {
        expect_near(ours, plain_attention(h, s, false), {.abs = 2e-6, .rel = 1e-5});
      }
    });
  }
}

TEST(Attention, BitsDoNotDependOnChunksOrThreads) {
  for (const Heads& h : shapes()) {
    SCOPED_TRACE(describe(h));
    const Sequence s(h, 135, /*seed=*/20);
    for (const Isa isa : available_isas()) {
      if (isa == Isa::scalar && h.spec.k_dim > 100) continue;  // the reference; slow
      SCOPED_TRACE(name(isa));
      const auto one = make_cpu_device({.n_threads = 1, .isa = isa});
      const auto expected = run_alone(*one, h, s, s.n);
      for (const int n_threads : {1, 2, 3}) {
        const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
        for (const Index chunk : {Index{1}, Index{3}, Index{64}, s.n}) {
          EXPECT_TRUE(same_bits(run_alone(*device, h, s, chunk), expected))
              << n_threads << " threads, chunks of " << chunk;
        }
      }
    }
  }
}

TEST(Attention, BitsDoNotDependOnTheOthersInTheBatch) {
  for (const Heads& h : shapes()) {
    SCOPED_TRACE(describe(h));
    for_each_cpu_target([&](Device& device) {
      const Index lengths[] = {1, 64, 65, 7, 129, 63, 30};
      std::vector<Sequence> sequences;
      std::vector<std::vector<std::int32_t>> pages;
      Cache cache(device, h, 20);
      for (const Index n : lengths) {
        sequences.emplace_back(h, n, static_cast<std::uint64_t>(100 + n));
        pages.push_back(cache.take(n));
      }
      // First all but the last token of each (nothing at all of the shortest), then those together.
      std::vector<Piece> before, last;
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        before.push_back({&sequences[i], &pages[i], 0, sequences[i].n - 1});
        last.push_back({&sequences[i], &pages[i], sequences[i].n - 1, 1});
      }
      const auto first_rows = run_batch(device, h, cache, before);
      const auto last_rows = run_batch(device, h, cache, last);
      const Index width = h.n_heads * h.v_dim();
      Index begin = 0;
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        const auto alone = run_alone(device, h, sequences[i], sequences[i].n);
        for (Index r = 0; r + 1 < sequences[i].n; ++r) {
          ASSERT_TRUE(same_bits(row(first_rows, begin + r, width), row(alone, r, width)))
              << i << " " << r;
        }
        ASSERT_TRUE(same_bits(row(last_rows, static_cast<Index>(i), width),
                              row(alone, sequences[i].n - 1, width)));
        begin += sequences[i].n - 1;
      }
    });
  }
}

TEST(Attention, LongContextsAreSharedAmongThreadsWithoutChangingABit) {
  const Heads h = {4, {.n_kv_heads = 2, .k_dim = 16, .v_dim = 16, .dtype = DType::bf16}};
  const Sequence s(h, 64 * 70 + 5, /*seed=*/30);  // more blocks than a wave holds
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    std::vector<float> expected;
    for (const int n_threads : {1, 2, 3}) {
      const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
      Cache cache(*device, h, 80);
      const auto pages = cache.take(s.n);
      run_batch(*device, h, cache, {{&s, &pages, 0, 1}});
      // Only the keys matter here: append all, then attend with the last row alone.
      const SequenceRows all = {.n_rows = s.n, .pages = pages.data()};
      device->cache_append({.cache = cache.view,
                            .k = s.k.data(),
                            .k_stride = 32,
                            .v = s.v.data(),
                            .v_stride = 32,
                            .sequences = {&all, 1}});
      const auto out = run_batch(*device, h, cache, {{&s, &pages, s.n - 1, 1}});
      if (expected.empty()) expected = out;
      EXPECT_TRUE(same_bits(out, expected)) << n_threads;
      // Many rows at once are cut in another way, and the first of them end in an earlier span.
      for (const Index rows : {Index{40}, Index{700}}) {
        const auto many = run_batch(*device, h, cache, {{&s, &pages, s.n - rows, rows}});
        for (const Index r : {Index{0}, rows / 2 - 7, rows - 1}) {
          const auto one = run_batch(*device, h, cache, {{&s, &pages, s.n - rows + r, 1}});
          const Index width = static_cast<Index>(one.size());
          EXPECT_TRUE(same_bits(one, row(many, r, width))) << "row " << r << " of " << rows;
        }
      }
    }
  }
}

TEST(Attention, TheFutureIsNeverRead) {
  // Infinite keys and values at later positions must not reach an earlier row, not even as 0 times.
  for (const Heads& h : shapes()) {
    SCOPED_TRACE(describe(h));
    for_each_cpu_target([&](Device& device) {
      Sequence s(h, 40, /*seed=*/40);
      const auto expected = run_alone(device, h, s, s.n);
      const Index kw = h.spec.n_kv_heads * h.spec.k_dim, vw = h.spec.n_kv_heads * h.spec.v_dim;
      std::fill(s.k.begin() + 39 * kw, s.k.end(), INFINITY);
      std::fill(s.v.begin() + 39 * vw, s.v.end(), INFINITY);
      const auto out = run_alone(device, h, s, s.n);
      const auto n = static_cast<std::size_t>(39 * h.n_heads * h.v_dim());
      EXPECT_TRUE(same_bits(std::span(out).first(n), std::span(expected).first(n)));
    });
  }
}

TEST(Attention, ALoneKeyIsItsValue) {
  for_each_cpu_target([](Device& device) {
    const Heads h = {2, {.n_kv_heads = 1, .k_dim = 8, .v_dim = 8, .dtype = DType::f32}};
    const Sequence s(h, 1, /*seed=*/50);
    const auto out = run_alone(device, h, s, 1);
    EXPECT_TRUE(same_bits(row(out, 0, 8), s.v));
    EXPECT_TRUE(same_bits(row(out, 1, 8), s.v));
  });
}

TEST(Cache, WhatIsReadBackIsWhatWasWrittenRoundedOnce) {
  for (const Heads& h : shapes()) {
    SCOPED_TRACE(describe(h));
    for_each_cpu_target([&](Device& device) {
      const Sequence s(h, 130, /*seed=*/60);
      Cache cache(device, h, 6);
      const auto pages = cache.take(s.n);
      run_batch(device, h, cache, {{&s, &pages, 0, 65}});
      run_batch(device, h, cache, {{&s, &pages, 65, 65}});
      std::vector<float> k(s.k.size()), v(s.v.size());
      device.cache_read({.cache = cache.view,
                         .pages = pages.data(),
                         .n_positions = s.n,
                         .k = k.data(),
                         .v = h.spec.v_dim != 0 ? v.data() : nullptr});
      const auto rounded = [&](std::vector<float> x) {
        if (h.spec.dtype == DType::bf16) std::ranges::transform(x, x.begin(), round_bf16);
        return x;
      };
      EXPECT_TRUE(same_bits(k, rounded(s.k)));
      EXPECT_TRUE(same_bits(v, rounded(s.v)));
    });
  }
}

}  // namespace
}  // namespace kogia::testing
