// How near are the matrix products to reading the weights once (few rows) and to the peak of the
// multipliers (many rows)?

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <vector>

#include <benchmark/benchmark.h>

#include "base/random.h"
#include "device/cpu_device.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

struct Shape {
  DType dtype;
  Compute compute;
  Index rows, outs, cols;
  int n_products = 1;   // matrices of this shape in a call, each with its own rows (experts)
  bool cached = false;  // the same weights in every call
};

std::vector<float> random_floats(Index n, std::uint64_t seed) {
  const Philox random(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  return values;
}

// One random row again and again: quantising is slow, and the kernels do not look.
std::unique_ptr<Matrix> random_matrix(Device& device, const Shape& s) {
  const Index row_size = row_bytes(s.dtype, s.cols);
  std::vector<std::byte> bytes(static_cast<std::size_t>(s.outs * row_size));
  quantize_row(s.dtype, random_floats(s.cols, 1).data(), bytes.data(), s.cols);
  for (Index r = 1; r < s.outs; ++r) {
    std::copy_n(bytes.begin(), row_size, bytes.begin() + r * row_size);
  }
  return device.pack({.dtype = s.dtype, .rows = s.outs, .cols = s.cols, .data = bytes.data()},
                     {.compute = s.compute});
}

/// KOGIA_ISA=avx2: which instruction set to measure; the best if not given.
std::optional<Isa> chosen_isa() {
  const char* isa = std::getenv("KOGIA_ISA");
  return isa == nullptr ? std::nullopt : parse_isa(isa);
}

void BM_linear(benchmark::State& state, Shape s) {
  const auto device =
      make_cpu_device({.n_threads = static_cast<int>(state.range(0)), .isa = chosen_isa()});
  // Where few rows read the weights: so many matrices that no call finds its own in a cache.
  std::vector<std::unique_ptr<Matrix>> w;
  Index bytes = 0;
  const auto n_products = static_cast<std::size_t>(s.n_products);
  const Index least = s.cached ? 0 : Index{96} << 20;
  while (w.empty() || bytes < least || w.size() % n_products != 0) {
    w.push_back(random_matrix(*device, s));
    bytes += w.back()->n_bytes();
    if (s.rows > 64 && w.size() >= n_products) break;
  }
  const auto x = random_floats(s.rows * s.cols * s.n_products, 2);
  std::vector<float> y(static_cast<std::size_t>(s.rows * s.outs * s.n_products));
  std::vector<LinearArgs> products(n_products);
  std::size_t next = 0;
  for (auto _ : state) {
    for (std::size_t i = 0; i < n_products; ++i) {
      const auto at = static_cast<Index>(i);
      products[i] = {.x = x.data() + at * s.rows * s.cols,
                     .x_stride = s.cols,
                     .w = w[next].get(),
                     .y = y.data() + at * s.rows * s.outs,
                     .y_stride = s.outs,
                     .rows = s.rows};
      next = (next + 1) % w.size();
    }
    device->linear(products);
  }
  const double n = static_cast<double>(state.iterations() * s.n_products);
  const double each = static_cast<double>(w[0]->n_bytes());
  state.counters["GB/s"] = benchmark::Counter(n * each * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(
      n * 2e-9 * static_cast<double>(s.rows * s.outs * s.cols), benchmark::Counter::kIsRate);
  state.SetLabel(device->name());
}

#define KOGIA_LINEAR(name, ...)                          \
  BENCHMARK_CAPTURE(BM_linear, name, Shape{__VA_ARGS__}) \
      ->ArgName("threads")                               \
      ->Arg(1)                                           \
      ->Arg(2)                                           \
      ->UseRealTime()

// SmolLM2-135M: a decoded token and a prompt.
KOGIA_LINEAR(smol_q_1, DType::q4_1, Compute::bf16, 1, 576, 576);
KOGIA_LINEAR(smol_k_1, DType::q4_1, Compute::bf16, 1, 192, 576);
KOGIA_LINEAR(smol_up_1, DType::q4_1, Compute::bf16, 1, 1536, 576);
KOGIA_LINEAR(smol_down_1, DType::q4_1, Compute::bf16, 1, 576, 1536);
KOGIA_LINEAR(smol_head_1, DType::q8_0, Compute::bf16, 1, 49152, 576);
KOGIA_LINEAR(smol_q_512, DType::q4_1, Compute::bf16, 512, 576, 576);
KOGIA_LINEAR(smol_up_512, DType::q4_1, Compute::bf16, 512, 1536, 576);
KOGIA_LINEAR(smol_down_512, DType::q4_1, Compute::bf16, 512, 576, 1536);
KOGIA_LINEAR(smol_up_512_f32, DType::q4_1, Compute::f32, 512, 1536, 576);
KOGIA_LINEAR(smol_up_512_int8, DType::q4_1, Compute::int8, 512, 1536, 576);
KOGIA_LINEAR(smol_up_1_int8, DType::q4_1, Compute::int8, 1, 1536, 576);
// Experts of width 256 with few rows each.
KOGIA_LINEAR(experts_q8_0_1, DType::q8_0, Compute::bf16, 1, 256, 512, 6);
KOGIA_LINEAR(experts_q8_0_8, DType::q8_0, Compute::bf16, 8, 256, 512, 64);
KOGIA_LINEAR(experts_q4_k_1, DType::q4_k, Compute::bf16, 1, 256, 512, 6);
KOGIA_LINEAR(experts_q4_k_8, DType::q4_k, Compute::bf16, 8, 256, 512, 64);
// Qwen2 1.5B, a decoded token and a prompt.
// V2-Lite's six experts of a token.
KOGIA_LINEAR(lite_up_q4_k_1, DType::q4_k, Compute::bf16, 1, 1408, 2048, 12);
KOGIA_LINEAR(lite_up_q4_k_1_int8, DType::q4_k, Compute::int8, 1, 1408, 2048, 12);
KOGIA_LINEAR(lite_down_q5_0_1, DType::q5_0, Compute::bf16, 1, 2048, 1408, 6);
KOGIA_LINEAR(lite_down_q5_0_1_int8, DType::q5_0, Compute::int8, 1, 2048, 1408, 6);
KOGIA_LINEAR(lite_down_q8_0_1, DType::q8_0, Compute::bf16, 1, 2048, 1408, 6);
KOGIA_LINEAR(qwen_up_q4_k_1, DType::q4_k, Compute::bf16, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_q4_k_1_int8, DType::q4_k, Compute::int8, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_q6_k_1, DType::q6_k, Compute::bf16, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_q5_0_1, DType::q5_0, Compute::bf16, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_q8_0_1, DType::q8_0, Compute::bf16, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_q8_0_1_int8, DType::q8_0, Compute::int8, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_bf16_1, DType::bf16, Compute::bf16, 1, 8960, 1536);
KOGIA_LINEAR(qwen_up_q4_k_4, DType::q4_k, Compute::bf16, 4, 8960, 1536);
KOGIA_LINEAR(qwen_up_q4_k_16, DType::q4_k, Compute::bf16, 16, 8960, 1536);
KOGIA_LINEAR(qwen_up_q4_k_512, DType::q4_k, Compute::bf16, 512, 8960, 1536);
KOGIA_LINEAR(qwen_up_q4_k_512_int8, DType::q4_k, Compute::int8, 512, 8960, 1536);
KOGIA_LINEAR(qwen_up_q8_0_512, DType::q8_0, Compute::bf16, 512, 8960, 1536);
KOGIA_LINEAR(qwen_up_q8_0_512_int8, DType::q8_0, Compute::int8, 512, 8960, 1536);
KOGIA_LINEAR(qwen_up_bf16_512, DType::bf16, Compute::bf16, 512, 8960, 1536);
// Weights in the L2 cache: what decoding and multiplying alone would allow.
KOGIA_LINEAR(cached_q4_k_1, DType::q4_k, Compute::bf16, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q4_k_1_int8, DType::q4_k, Compute::int8, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q4_1_1, DType::q4_1, Compute::bf16, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q5_0_1, DType::q5_0, Compute::bf16, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q6_k_1, DType::q6_k, Compute::bf16, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q8_0_1, DType::q8_0, Compute::bf16, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q8_0_1_int8, DType::q8_0, Compute::int8, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_fp8_1, DType::f8_e4m3, Compute::bf16, 1, 512, 1536, 1, true);
KOGIA_LINEAR(cached_bf16_1, DType::bf16, Compute::bf16, 1, 256, 1536, 1, true);
KOGIA_LINEAR(cached_q4_k_2, DType::q4_k, Compute::bf16, 2, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q4_k_3, DType::q4_k, Compute::bf16, 3, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q4_k_4, DType::q4_k, Compute::bf16, 4, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q4_k_8, DType::q4_k, Compute::bf16, 8, 512, 1536, 1, true);
KOGIA_LINEAR(cached_q4_k_16, DType::q4_k, Compute::bf16, 16, 512, 1536, 1, true);
// Large matrices.
KOGIA_LINEAR(fp8_1, DType::f8_e4m3, Compute::bf16, 1, 2048, 7168);
KOGIA_LINEAR(bf16_1, DType::bf16, Compute::bf16, 1, 2048, 7168);
KOGIA_LINEAR(f32_1, DType::f32, Compute::f32, 1, 2048, 2048);
KOGIA_LINEAR(fp8_512, DType::f8_e4m3, Compute::bf16, 512, 2048, 7168);
KOGIA_LINEAR(bf16_512, DType::bf16, Compute::bf16, 512, 2048, 2048);
KOGIA_LINEAR(f32_512, DType::f32, Compute::f32, 512, 2048, 2048);

}  // namespace
}  // namespace kogia
