#pragma once
// Threads for kernels: tasks are claimed by whoever is free; a waiting thread spins briefly, then
// sleeps.

#include <functional>
#include <memory>

#include "base/index.h"

namespace kogia {

/// A fixed set of worker threads that run numbered tasks.
///
/// Bits never depend on the pool: a task writes its own outputs and its arithmetic does not know
/// which thread runs it. The calling thread is thread 0 and works too. Threads  run() is called
/// from one thread at a time (the engine's); nested calls run inline. Errors   an exception thrown
/// by a task stops further claims and is rethrown by run().
class ThreadPool {
 public:
  /// n_threads >= 1 counts the caller; 0 takes the number of cores this process may use.
  explicit ThreadPool(int n_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const;

  /// Calls task(i, thread) for each i in [0, n_tasks), thread in [0, n_threads).
  void run(Index n_tasks, const std::function<void(Index task, int thread)>& task);

  /// Calls body(begin, end, thread) over [0, n) in ranges of `grain` (the last may be shorter).
  void parallel_for(Index n, Index grain,
                    const std::function<void(Index begin, Index end, int thread)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Cores this process may run on (affinity and cgroup quota respected), at least 1.
int usable_cores();

}  // namespace kogia
