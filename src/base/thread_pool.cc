#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/cores.h"
#include "base/error.h"

// How a run works. The caller publishes the job (task, n_tasks) and then sets `remaining` to
// n_tasks. Whoever takes k from r > 0 has claimed the tasks from n_tasks - r on, k or what there
// is. That alone is the claim: a worker that wakes late either finds nothing and goes back to
// sleep, or takes a task of the run now under way. A run cannot end before each claimed task is
// counted off `unfinished`, so a claimer may read the job's plain fields. Nobody waits for sleeping
// workers: a short run is over before they wake.

namespace kogia {
namespace {

// About 20 to 50 microseconds: longer than the gap between two operations of a decoded token,
// shorter than anything a user would notice on his power bill.
constexpr int kSpins = 4000;

void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

struct ThreadPool::State {
  using Task = std::function<void(Index, int)>;

  const Task* task = nullptr;
  Index n_tasks = 0;
  alignas(64) std::atomic<Index> remaining{0};        // tasks to claim; not positive: none
  alignas(64) std::atomic<Index> unfinished{0};       // tasks not yet done
  alignas(64) std::atomic<std::uint32_t> started{0};  // runs begun: what workers wait on
  std::atomic<std::uint32_t> ended{0};                // runs ended: what the caller waits on
  std::atomic<bool> busy{false}, stop{false};

  std::mutex error_mutex;
  std::exception_ptr error;

  int n_threads = 1;
  int n_spins = 0;
  std::vector<std::thread> workers;

  void work(int thread);
  void worker_loop(int thread);
  void fail();
  void finish(Index n);
  void wait_while(const std::atomic<std::uint32_t>& word, std::uint32_t old) const;
};

namespace {

// Which pool's task this thread is running, and as which of its threads: a nested run goes inline.
struct Inside {
  const void* pool = nullptr;
  int thread = 0;
};
thread_local constinit Inside t_inside;

}  // namespace

void ThreadPool::State::wait_while(const std::atomic<std::uint32_t>& word,
                                   std::uint32_t old) const {
  for (int i = 0; i < n_spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    cpu_relax();
  }
  word.wait(old, std::memory_order_acquire);
}

void ThreadPool::State::finish(Index n) {
  if (unfinished.fetch_sub(n, std::memory_order_acq_rel) != n) return;
  ended.fetch_add(1);
  ended.notify_one();
}

void ThreadPool::State::fail() {
  {
    const std::scoped_lock lock(error_mutex);
    if (!error) error = std::current_exception();
  }
  const Index dropped = remaining.exchange(0, std::memory_order_acq_rel);
  if (dropped > 0) finish(dropped);
}

void ThreadPool::State::work(int thread) {
  const Inside outer = t_inside;
  t_inside = {this, thread};
  Index n_done = 0;
  for (;;) {
    // Half of an even share of what is left: few claims at first, small ones for balance at last.
    const Index seen = remaining.load(std::memory_order_relaxed);
    if (seen <= 0) break;
    const Index share = ceil_div(seen, Index{2} * n_threads);
    const Index r = remaining.fetch_sub(share, std::memory_order_acq_rel);
    if (r <= 0) break;
    const Index n = std::min(share, r);
    for (Index i = 0; i < n; ++i) {
      try {
        (*task)(n_tasks - r + i, thread);
      } catch (...) {
        fail();
        break;  // the rest of the claim counts as done
      }
    }
    n_done += n;
  }
  t_inside = outer;
  if (n_done > 0) finish(n_done);
}

void ThreadPool::State::worker_loop(int thread) {
  std::uint32_t seen = 0;
  for (;;) {
    wait_while(started, seen);
    if (stop.load(std::memory_order_acquire)) return;
    seen = started.load(std::memory_order_acquire);
    work(thread);
  }
}

ThreadPool::ThreadPool(int n_threads) : state_(std::make_unique<State>()) {
  State& s = *state_;
  KOGIA_CHECK(n_threads >= 0);
  s.n_threads = n_threads > 0 ? n_threads : usable_cores();
  // With more threads than cores a spinning thread takes the core from one that works.
  s.n_spins = s.n_threads <= usable_cores() ? kSpins : 0;
  try {
    for (int t = 1; t < s.n_threads; ++t) s.workers.emplace_back(&State::worker_loop, &s, t);
  } catch (const std::system_error&) {
    s.n_threads = static_cast<int>(s.workers.size()) + 1;  // the system's limit: go on with those
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->started.fetch_add(1);
  state_->started.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::n_threads() const { return state_->n_threads; }

void ThreadPool::run(Index n_tasks, const std::function<void(Index, int)>& task) {
  State& s = *state_;
  if (n_tasks <= 0) return;
  if (t_inside.pool == &s) {  // nested
    for (Index i = 0; i < n_tasks; ++i) task(i, t_inside.thread);
    return;
  }
  KOGIA_CHECK(!s.busy.exchange(true) && "ThreadPool::run from two threads at once");

  const std::uint32_t ended = s.ended.load(std::memory_order_relaxed);
  s.task = &task;
  s.n_tasks = n_tasks;
  s.unfinished.store(n_tasks, std::memory_order_relaxed);
  s.remaining.store(n_tasks, std::memory_order_release);
  if (n_tasks > 1 && s.n_threads > 1) {
    s.started.fetch_add(1);
    s.started.notify_all();
  }
  s.work(0);
  while (s.ended.load(std::memory_order_acquire) == ended) s.wait_while(s.ended, ended);

  std::exception_ptr error;
  {
    const std::scoped_lock lock(s.error_mutex);
    error = std::exchange(s.error, nullptr);
  }
  s.busy.store(false);
  if (error) std::rethrow_exception(error);
}

void ThreadPool::parallel_for(Index n, Index grain,
                              const std::function<void(Index, Index, int)>& body) {
  KOGIA_CHECK(grain > 0);
  run(ceil_div(n, grain),
      [&](Index i, int thread) { body(i * grain, std::min(n, (i + 1) * grain), thread); });
}

}  // namespace kogia
