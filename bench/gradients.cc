// How close do the gradients come to the machine's multiply-adds (kogia devices says the peak), and
// those that touch each number once to its memory?

#include <algorithm>
#include <memory>
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

// The last two ranges: threads, instruction set; null where it is missing.
std::unique_ptr<Device> device_of(benchmark::State& state, std::size_t first) {
  const auto isa = static_cast<Isa>(state.range(first + 1));
  for (const Isa has : available_isas()) {
    if (has == isa)
      return make_cpu_device({.n_threads = static_cast<int>(state.range(first)), .isa = isa});
  }
  state.SkipWithError("no such kernels here");
  return nullptr;
}

void report(benchmark::State& state, const Device& device, double flops, double bytes) {
  using benchmark::Counter;
  state.counters["flop"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(bytes, Counter::kIsIterationInvariantRate);
  state.SetLabel(device.name());
}

// range: products, rows of each, outputs, inputs
void BM_linear_wgrad(benchmark::State& state) {
  const auto device = device_of(state, 4);
  if (device == nullptr) return;
  const Index products = state.range(0), rows = state.range(1), n = state.range(2),
              cols = state.range(3);
  const auto x = random_floats(products * rows * cols, 1);
  const auto dy = random_floats(products * rows * n, 2);
  std::vector<float> dw(static_cast<std::size_t>(products * n * cols));
  std::vector<TokenBlock> blocks;
  for (Index r = 0; r < rows; r += kTokenBlock) {
    blocks.push_back({.begin = r, .n = std::min(kTokenBlock, rows - r)});
  }
  std::vector<LinearWgradArgs> args;
  for (Index p = 0; p < products; ++p) {
    args.push_back({.x = x.data() + p * rows * cols,
                    .x_stride = cols,
                    .dy = dy.data() + p * rows * n,
                    .dy_stride = n,
                    .n = n,
                    .cols = cols,
                    .blocks = blocks,
                    .dw = dw.data() + p * n * cols,
                    .dw_stride = cols});
  }
  for (auto _ : state) device->linear_wgrad(args);
  const auto each = static_cast<double>(products * rows);
  report(state, *device, 2 * each * static_cast<double>(n * cols),
         4 * each * static_cast<double>(n + cols));
}
BENCHMARK(BM_linear_wgrad)
    ->ArgNames({"products", "rows", "n", "cols", "threads", "isa"})
    ->ArgsProduct({{1}, {4096}, {320, 512, 1024}, {320}, {1, 2}, {1, 2}})
    ->Args({1, 4096, 320, 1024, 2, 2})
    ->Args({1, 4096, 4096, 512, 2, 2})  // a head
    ->Args({8, 1024, 640, 320, 2, 2})   // experts
    ->Args({64, 128, 128, 256, 2, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// range: sequences, rows of each, heads, key heads, k_dim, v_dim (0: latent, 7/8 of k_dim)
void BM_attention_vjp(benchmark::State& state) {
  const auto device = device_of(state, 6);
  if (device == nullptr) return;
  const Index n_sequences = state.range(0), each = state.range(1), rows = n_sequences * each;
  const Index heads = state.range(2), kv_heads = state.range(3), k_dim = state.range(4);
  const bool latent = state.range(5) == 0;
  const Index v_dim = latent ? k_dim / 8 * 7 : state.range(5);
  const Index v_width = latent ? k_dim : kv_heads * v_dim;
  const auto q = random_floats(rows * heads * k_dim, 1),
             k = random_floats(rows * kv_heads * k_dim, 2), v = random_floats(rows * v_width, 3),
             dout = random_floats(rows * heads * v_dim, 4);
  std::vector<float> dq(q.size()), dk(k.size()), dv(v.size());
  std::vector<SequenceRows> sequences;
  for (Index i = 0; i < n_sequences; ++i) {
    sequences.push_back({.row_begin = i * each, .n_rows = each});
  }
  const AttentionVjpArgs args = {.q = q.data(),
                                 .q_stride = heads * k_dim,
                                 .k = k.data(),
                                 .k_stride = kv_heads * k_dim,
                                 .v = latent ? k.data() : v.data(),
                                 .v_stride = v_width,
                                 .dout = dout.data(),
                                 .dout_stride = heads * v_dim,
                                 .dq = dq.data(),
                                 .dk = dk.data(),
                                 .dv = latent ? dk.data() : dv.data(),
                                 .n_heads = heads,
                                 .n_kv_heads = kv_heads,
                                 .k_dim = k_dim,
                                 .v_dim = v_dim,
                                 .scale = 0.1F,
                                 .sequences = sequences};
  for (auto _ : state) device->attention_vjp(args);
  const double pairs = static_cast<double>(rows * heads) * static_cast<double>(each + 1) / 2;
  report(state, *device, 2 * pairs * static_cast<double>(3 * k_dim + 2 * v_dim), 24 * pairs);
}
BENCHMARK(BM_attention_vjp)
    ->ArgNames({"sequences", "rows", "heads", "kv_heads", "k_dim", "v_dim", "threads", "isa"})
    ->ArgsProduct({{8}, {512}, {8}, {8}, {48}, {32}, {1, 2}, {1, 2}})
    ->Args({32, 128, 8, 8, 48, 32, 2, 2})
    ->Args({8, 512, 8, 2, 64, 64, 2, 2})
    ->Args({1, 4096, 4, 4, 192, 128, 2, 2})
    ->Args({4, 512, 8, 1, 160, 0, 2, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// range: rows, n
void BM_rms_norm_vjp(benchmark::State& state) {
  const auto device = device_of(state, 2);
  if (device == nullptr) return;
  const Index rows = state.range(0), n = state.range(1);
  const auto x = random_floats(rows * n, 1), w = random_floats(n, 2),
             dy = random_floats(rows * n, 3);
  std::vector<float> dx(x.size()), dw(w.size());
  std::vector<TokenBlock> blocks;
  for (Index r = 0; r < rows; r += kTokenBlock) {
    blocks.push_back({.begin = r, .n = std::min(kTokenBlock, rows - r)});
  }
  for (auto _ : state) {
    device->rms_norm_vjp({.x = x.data(),
                          .x_stride = n,
                          .weight = w.data(),
                          .dy = dy.data(),
                          .dy_stride = n,
                          .dx = dx.data(),
                          .dx_stride = n,
                          .rows = rows,
                          .n = n,
                          .blocks = blocks,
                          .dweight = dw.data()});
  }
  const auto numbers = static_cast<double>(rows * n);
  report(state, *device, 12 * numbers, 16 * numbers);
}

void BM_silu_mul_vjp(benchmark::State& state) {
  const auto device = device_of(state, 2);
  if (device == nullptr) return;
  const Index rows = state.range(0), n = state.range(1);
  const auto gate = random_floats(rows * n, 1), up = random_floats(rows * n, 2),
             dh = random_floats(rows * n, 3);
  std::vector<float> dgate(gate.size()), dup(up.size());
  for (auto _ : state) {
    device->silu_mul_vjp({.gate = gate.data(),
                          .up = up.data(),
                          .dh = dh.data(),
                          .dgate = dgate.data(),
                          .dup = dup.data(),
                          .rows = rows,
                          .n = n,
                          .gate_stride = n,
                          .up_stride = n,
                          .dh_stride = n,
                          .dgate_stride = n,
                          .dup_stride = n});
  }
  const auto numbers = static_cast<double>(rows * n);
  report(state, *device, 30 * numbers, 28 * numbers);
}

void BM_cross_entropy(benchmark::State& state) {
  const auto device = device_of(state, 2);
  if (device == nullptr) return;
  const Index rows = state.range(0), n = state.range(1);
  auto logits = random_floats(rows * n, 1);
  const std::vector<std::int32_t> targets(static_cast<std::size_t>(rows), 5);
  std::vector<float> log_prob(targets.size());
  for (auto _ : state) {
    device->cross_entropy({.logits = logits.data(),
                           .stride = n,
                           .n = n,
                           .targets = targets,
                           .dloss = 1.0F / 4096,
                           .log_prob = log_prob.data()});
  }
  const auto numbers = static_cast<double>(rows * n);
  report(state, *device, 50 * numbers, 8 * numbers);
}
#define KOGIA_ROWS ->ArgNames({"rows", "n", "threads", "isa"})->UseRealTime()
BENCHMARK(BM_rms_norm_vjp) KOGIA_ROWS->Args({4096, 320, 2, 2});
BENCHMARK(BM_silu_mul_vjp) KOGIA_ROWS->Args({4096, 640, 2, 2});
BENCHMARK(BM_cross_entropy) KOGIA_ROWS->Args({512, 4096, 2, 2});

// range: millions of weights, whether the moments are bf16
void BM_adamw(benchmark::State& state) {
  const auto device = device_of(state, 2);
  if (device == nullptr) return;
  const Index n = state.range(0) * 1000000;
  const DType moments = state.range(1) != 0 ? DType::bf16 : DType::f32;
  auto w = random_floats(n, 1);
  const auto grad = random_floats(n, 2);
  std::vector<std::byte> m(static_cast<std::size_t>(row_bytes(moments, n))), v = m;
  for (auto _ : state) {
    device->adamw({.w = w.data(),
                   .grad = grad.data(),
                   .m = m.data(),
                   .v = v.data(),
                   .moments = moments,
                   .n = n,
                   .lr = 1e-6F,
                   .step = 5});
  }
  const auto numbers = static_cast<double>(n);
  report(state, *device, 15 * numbers, (moments == DType::bf16 ? 20 : 28) * numbers);
}
BENCHMARK(BM_adamw)
    ->ArgNames({"millions", "bf16", "threads", "isa"})
    ->ArgsProduct({{4}, {0, 1}, {2}, {2}})
    ->UseRealTime();

}  // namespace
}  // namespace kogia
