// How close does attention come to the machine's multiply-adds, and to its memory when decoding?

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/random.h"
#include "device/cpu_device.h"
#include "tensor/arena.h"

namespace kogia {
namespace {

struct Shape {
  const char* name;
  Index n_heads;
  CacheSpec spec;
};
const Shape kShapes[] = {
    {"SmolLM2 9/3 heads of 64", 9, {.n_kv_heads = 3, .k_dim = 64, .v_dim = 64}},
    {"Qwen2-7B 28/4 heads of 128", 28, {.n_kv_heads = 4, .k_dim = 128, .v_dim = 128}},
    {"mini 8 heads latent", 8, {.n_kv_heads = 1, .k_dim = 576, .latent_v_dim = 512}},
    {"V2-Lite 16 heads latent", 16, {.n_kv_heads = 1, .k_dim = 576, .latent_v_dim = 512}},
    {"V3 128 heads latent", 128, {.n_kv_heads = 1, .k_dim = 576, .latent_v_dim = 512}},
};

// range: shape, rows of the batch, context including them, threads, instruction set
void BM_attention(benchmark::State& state) {
  const Shape& shape = kShapes[state.range(0)];
  const Index rows = state.range(1), context = state.range(2);
  const auto isa = static_cast<Isa>(state.range(4));
  const auto isas = available_isas();
  if (std::find(isas.begin(), isas.end(), isa) == isas.end())
    return state.SkipWithError("no such kernels here");
  const auto device = make_cpu_device({.n_threads = static_cast<int>(state.range(3)), .isa = isa});

  const CacheSpec& spec = shape.spec;
  const Index n_pages = ceil_div(context, kPageTokens), page_bytes = device->cache_page_bytes(spec);
  Arena arena;  // 64-byte aligned, as the engine's pools are
  std::byte* cache = arena.allocate<std::byte>(n_pages * page_bytes);
  std::vector<std::int32_t> pages;
  for (Index p = 0; p < n_pages; ++p) pages.push_back(static_cast<std::int32_t>(p));
  const CacheView view = {.spec = spec, .base = cache, .page_stride = page_bytes};
  const Philox random(1);
  const Index v_dim = spec.v_dim != 0 ? spec.v_dim : spec.latent_v_dim;
  std::vector<float> kv(static_cast<std::size_t>(context * spec.n_kv_heads * spec.k_dim));
  for (std::size_t i = 0; i < kv.size(); ++i) kv[i] = random.normal(i);
  const SequenceRows all = {.n_rows = context, .pages = pages.data()};
  device->cache_append({.cache = view,
                        .k = kv.data(),
                        .k_stride = spec.n_kv_heads * spec.k_dim,
                        .v = kv.data(),
                        .v_stride = spec.n_kv_heads * spec.v_dim,
                        .sequences = {&all, 1}});
  std::vector<float> q(static_cast<std::size_t>(rows * shape.n_heads * spec.k_dim));
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = random.normal(i);
  std::vector<float> out(static_cast<std::size_t>(rows * shape.n_heads * v_dim));
  const SequenceRows last = {.n_rows = rows, .first_pos = context - rows, .pages = pages.data()};

  for (auto _ : state) {
    device->attention({.cache = view,
                       .q = q.data(),
                       .q_stride = shape.n_heads * spec.k_dim,
                       .out = out.data(),
                       .out_stride = shape.n_heads * v_dim,
                       .n_heads = shape.n_heads,
                       .scale = 1 / std::sqrt(static_cast<float>(spec.k_dim)),
                       .sequences = {&last, 1}});
  }
  const double keys = static_cast<double>(rows) *
                      (static_cast<double>(context) - static_cast<double>(rows - 1) / 2);
  const double flops = 2 * keys * static_cast<double>(shape.n_heads * (spec.k_dim + v_dim));
  using benchmark::Counter;
  state.counters["flop"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["cache_bytes"] =
      Counter(static_cast<double>(context * spec.values_per_token() * 2),
              Counter::kIsIterationInvariantRate);
  state.SetLabel(std::string(shape.name) + ", " + device->name());
}
BENCHMARK(BM_attention)
    ->ArgNames({"shape", "rows", "context", "threads", "isa"})
    ->ArgsProduct({{0, 1, 2, 3, 4}, {1, 256}, {512, 4096}, {1, 2}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace kogia
