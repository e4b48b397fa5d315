// How fast does a step of training go, and how much memory does it take? The shapes of
// bench/models, on random tokens: forward, backward, clipping, AdamW and the new compute copy.
// PyTorch on the same: ./dev compare-train.
//
// Roofline: 6 multiply-adds · 2 a token and matrix parameter (forward 1, gradients of inputs and of
// weights 1 each), beside the attention products, which are left out of the share.

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include "base/random.h"
#include "device/cpu_device.h"
#include "train/step.h"

namespace kogia {
namespace {

struct Shape {
  const char* name;
  std::size_t rows, length;
};

std::string text_of(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

int n_threads() {
  const char* const asked = std::getenv("KOGIA_THREADS");
  return asked != nullptr ? std::atoi(asked) : 0;
}

std::vector<PackedRow> random_rows(const Shape& shape, Index vocab_size) {
  std::vector<PackedRow> rows(shape.rows);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Philox random(1, r);
    rows[r].document_begin = {0};
    for (std::size_t i = 0; i <= shape.length; ++i) {
      rows[r].ids.push_back(
          static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab_size), i)));
    }
  }
  return rows;
}

/// Matrix parameters that a token is multiplied with: all but the embedding, a share of experts.
double active_parameters(const Model& model) {
  const ModelConfig& c = model.config();
  return static_cast<double>(count_parameters(c).active - c.vocab_size * c.hidden_size);
}

void step(benchmark::State& state, const Shape& shape, Recipe recipe) {
  const auto begin = std::chrono::steady_clock::now();
  const auto device = make_cpu_device({.n_threads = n_threads()});
  const auto file = std::filesystem::path(KOGIA_SOURCE_DIR) / "bench/models" /
                    (std::string(shape.name) + ".json");
  Parameters parameters(*device, text_of(file), 0.02, 0, recipe, MlaForm::kExpanded);
  Optimizer optimizer(*device, parameters.all(), DType::f32);
  StepRunner runner(*device, parameters, optimizer,  // as kogia train has them by default
                    {.keeping = keeping_of(recipe),
                     .recompute_norms = false,
                     .recompute_swiglu = false,
                     .recompute_up_projection = false});
  const auto rows = random_rows(shape, parameters.model().config().vocab_size);
  const StepSettings settings{.optimizer = {.lr = 3e-4F}, .bias_rate = 0.001F};
  Index n = 0, kept = 0;
  runner.run(rows, settings, ++n);
  const double first_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (auto _ : state) {
    const StepResult result = runner.run(rows, settings, ++n);
    kept = result.kept_bytes;
    benchmark::DoNotOptimize(result.loss);
  }
  const double tokens = static_cast<double>(shape.rows * shape.length);
  state.counters["tok/s"] =
      benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["FLOP/s"] = benchmark::Counter(6 * active_parameters(parameters.model()) * tokens,
                                                benchmark::Counter::kIsIterationInvariantRate);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  state.counters["first_s"] = first_s;  // from nothing to the end of the first step
  state.counters["peak_GB"] = static_cast<double>(usage.ru_maxrss) / 1e6;
  state.counters["kept_GB"] = static_cast<double>(kept) / 1e9;
}

void add_all() {
  static constexpr Shape kShapes[] = {
      {"dense-300k", 32, 128}, {"moe-4m", 16, 256}, {"dense-13m", 16, 256}};
  for (const Shape& shape : kShapes) {
    for (const auto& [recipe, name] :
         {std::pair(Recipe::kF32, "f32"), std::pair(Recipe::kBf16, "bf16")}) {
      benchmark::RegisterBenchmark(fmt::format("{}/{}", shape.name, name).c_str(), step, shape,
                                   recipe)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
  }
}

const bool kAdded = (add_all(), true);

}  // namespace
}  // namespace kogia
