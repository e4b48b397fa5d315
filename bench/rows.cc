// Do the operations on rows run at the speed of a copy, and what do they cost a decoded token?

#include <cstring>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/random.h"
#include "device/cpu_device.h"

namespace kogia {
namespace {

std::vector<float> random_floats(Index n, std::uint64_t seed) {
  const Philox random(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  return values;
}

struct Rows {
  explicit Rows(const benchmark::State& state)
      : rows(state.range(0)),
        n(state.range(1)),
        device(make_cpu_device({.n_threads = static_cast<int>(state.range(2)), .isa = {}})),
        x(random_floats(rows * n, 1)),
        y(random_floats(rows * n, 2)),
        w(random_floats(n, 3)) {}
  void report(benchmark::State& state, int passes) const {  // compare with BM_copy
    state.SetBytesProcessed(state.iterations() * passes * rows * n * Index{sizeof(float)});
    state.SetLabel(device->name());
  }
  Index rows, n;
  std::unique_ptr<Device> device;
  std::vector<float> x, y, w;
};

void BM_copy(benchmark::State& state) {
  Rows r(state);
  for (auto _ : state) {
    std::memcpy(r.y.data(), r.x.data(), r.x.size() * sizeof(float));
    benchmark::ClobberMemory();
  }
  r.report(state, 2);
}

void BM_rms_norm(benchmark::State& state) {
  Rows r(state);
  for (auto _ : state) {
    r.device->rms_norm({.x = r.x.data(),
                        .x_stride = r.n,
                        .weight = r.w.data(),
                        .y = r.y.data(),
                        .y_stride = r.n,
                        .rows = r.rows,
                        .n = r.n});
  }
  r.report(state, 2);
}

void BM_silu_mul(benchmark::State& state) {
  Rows r(state);
  std::vector<float> out(r.x.size());
  for (auto _ : state) {
    r.device->silu_mul({.gate = r.x.data(),
                        .up = r.y.data(),
                        .y = out.data(),
                        .rows = r.rows,
                        .n = r.n,
                        .gate_stride = r.n,
                        .up_stride = r.n,
                        .y_stride = r.n});
  }
  r.report(state, 3);
}

void BM_rope(benchmark::State& state) {
  Rows r(state);  // heads of 64
  const std::vector<float> table = random_floats(r.rows * 32, 4);
  const auto layout = state.range(3) != 0 ? RopeLayout::kHalves : RopeLayout::kInterleaved;
  for (auto _ : state) {
    r.device->rope({.x = r.x.data(),
                    .row_stride = r.n,
                    .head_stride = 64,
                    .rows = r.rows,
                    .n_heads = r.n / 64,
                    .n_rot = 64,
                    .cos = table.data(),
                    .sin = table.data(),
                    .layout = layout});
  }
  r.report(state, 2);
}

void BM_log_prob(benchmark::State& state) {
  Rows r(state);
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(r.rows), 5);
  std::vector<float> out(ids.size());
  for (auto _ : state) {
    r.device->log_prob(
        {.logits = r.x.data(), .stride = r.n, .n = r.n, .ids = ids, .log_prob = out.data()});
  }
  r.report(state, 1);
}

// V3's router: 256 experts in 8 groups.
void BM_route(benchmark::State& state) {
  Rows r(state);
  std::vector<std::int32_t> experts(static_cast<std::size_t>(r.rows * 8));
  std::vector<float> weights(experts.size());
  for (auto _ : state) {
    r.device->route({.logits = r.x.data(),
                     .bias = r.w.data(),
                     .rows = r.rows,
                     .n_experts = r.n,
                     .top_k = 8,
                     .n_group = 8,
                     .topk_group = 4,
                     .score = RouterScore::kSigmoid,
                     .group_score = GroupScore::kTop2Sum,
                     .normalise = true,
                     .experts = experts.data(),
                     .weights = weights.data()});
  }
  r.report(state, 1);
}

void latent_append(benchmark::State& state) {
  Rows r(state);
  const CacheSpec spec = {.k_dim = r.n, .latent_v_dim = 512};
  const Index bytes = r.device->cache_page_bytes(spec), n_pages = ceil_div(r.rows, kPageTokens);
  std::vector<std::byte> cache(static_cast<std::size_t>(bytes * n_pages));
  std::vector<std::int32_t> pages;
  for (Index p = 0; p < n_pages; ++p) pages.push_back(static_cast<std::int32_t>(p));
  const SequenceRows sequence = {.n_rows = r.rows, .pages = pages.data()};
  for (auto _ : state) {
    r.device->cache_append({.cache = {.spec = spec, .base = cache.data(), .page_stride = bytes},
                            .k = r.x.data(),
                            .k_stride = r.n,
                            .sequences = {&sequence, 1}});
  }
  r.report(state, 1);
}
void BM_cache_append_latent(benchmark::State& state) { latent_append(state); }

#define KOGIA_ROWS                     \
  ->ArgNames({"rows", "n", "threads"}) \
      ->Args({1, 7168, 2})             \
      ->Args({512, 7168, 1})           \
      ->Args({512, 7168, 2})           \
      ->UseRealTime()
BENCHMARK(BM_copy) KOGIA_ROWS;
BENCHMARK(BM_rms_norm) KOGIA_ROWS;
BENCHMARK(BM_silu_mul) KOGIA_ROWS;
BENCHMARK(BM_rope)
    ->ArgNames({"rows", "n", "threads", "halves"})
    ->ArgsProduct({{1, 512}, {576}, {2}, {0, 1}})
    ->UseRealTime();
BENCHMARK(BM_log_prob)
    ->ArgNames({"rows", "n", "threads"})
    ->Args({1, 129280, 2})
    ->Args({64, 129280, 2})
    ->UseRealTime();
BENCHMARK(BM_route)
    ->ArgNames({"rows", "n", "threads"})
    ->Args({1, 256, 2})
    ->Args({512, 256, 2})
    ->UseRealTime();
BENCHMARK(BM_cache_append_latent)
    ->ArgNames({"rows", "n", "threads"})
    ->Args({1, 576, 2})
    ->Args({512, 576, 2})
    ->UseRealTime();

}  // namespace
}  // namespace kogia
