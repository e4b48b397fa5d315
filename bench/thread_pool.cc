// What does it cost to hand work to the pool? A decoded token makes a few hundred runs, so a
// microsecond each is a tenth of a percent of 100 tokens/s, and twenty microseconds are two.

#include "base/thread_pool.h"

#include <thread>

#include <benchmark/benchmark.h>

namespace kogia {
namespace {

// Back to back, as in a forward pass: the workers are still spinning when the next run comes.
void BM_small_runs(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  const Index n_tasks = state.range(1);
  for (auto _ : state) {
    pool.run(n_tasks, [](Index i, int) { benchmark::DoNotOptimize(i); });
  }
  state.SetItemsProcessed(state.iterations() * n_tasks);
}
BENCHMARK(BM_small_runs)
    ->ArgNames({"threads", "tasks"})
    ->ArgsProduct({{1, 2, 4}, {1, 2, 64}})
    ->UseRealTime();

// After a pause, as between two requests: the workers sleep and must be woken by the kernel.
void BM_run_after_a_pause(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    state.PauseTiming();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    state.ResumeTiming();
    pool.run(64, [](Index i, int) { benchmark::DoNotOptimize(i); });
  }
}
BENCHMARK(BM_run_after_a_pause)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime()->Iterations(500);

}  // namespace
}  // namespace kogia
