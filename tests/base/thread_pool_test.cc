#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace kogia {
namespace {

const std::vector<int> kThreadCounts = {1, 2, 3, 5, 7};

TEST(ThreadPool, RunsEachTaskExactlyOnce) {
  for (int n_threads : kThreadCounts) {
    ThreadPool pool(n_threads);
    ASSERT_EQ(pool.n_threads(), n_threads);
    for (Index n : {0, 1, 2, 3, 17, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(n));
      std::atomic<bool> thread_in_range{true};
      pool.run(n, [&](Index i, int thread) {
        runs[static_cast<std::size_t>(i)].fetch_add(1);
        if (thread < 0 || thread >= n_threads) thread_in_range = false;
      });
      EXPECT_TRUE(thread_in_range);
      EXPECT_TRUE(std::ranges::all_of(runs, [](const auto& r) { return r == 1; })) << n;
    }
  }
}

TEST(ThreadPool, GivesEachThreadItsOwnNumber) {
  // Scratch is indexed by the thread number: two tasks that overlap in time must never share one.
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  std::atomic<bool> shared{false};
  pool.run(500, [&](Index, int thread) {
    auto& mine = inside[static_cast<std::size_t>(thread)];
    if (mine.fetch_add(1) != 0) shared = true;
    std::this_thread::yield();
    mine.fetch_sub(1);
  });
  EXPECT_FALSE(shared);
}

TEST(ThreadPool, ManySmallRunsNeverMixTheirTasks) {
  for (int n_threads : kThreadCounts) {
    ThreadPool pool(n_threads);
    for (Index run = 0; run < 3000; ++run) {
      const Index n = 1 + run % 7;
      std::atomic<Index> sum{
          0};  // on this run's stack: a late worker of another run would corrupt it
      pool.run(n, [&sum, run](Index i, int) { sum.fetch_add(run * 100 + i); });
      ASSERT_EQ(sum.load(), run * 100 * n + n * (n - 1) / 2);
    }
  }
}

TEST(ThreadPool, PublishesWhatTasksWroteWithoutFurtherLocks) {
  ThreadPool pool(3);
  std::vector<Index> squares(999);
  for (int round = 1; round <= 50; ++round) {
    pool.run(999, [&](Index i, int) { squares[static_cast<std::size_t>(i)] = i * i * round; });
    for (Index i = 0; i < 999; ++i) ASSERT_EQ(squares[static_cast<std::size_t>(i)], i * i * round);
  }
}

TEST(ThreadPool, RethrowsATasksExceptionAndStaysUsable) {
  for (int n_threads : kThreadCounts) {
    ThreadPool pool(n_threads);
    for (int round = 0; round < 200; ++round) {
      const Index culprit = round % 40;
      std::atomic<int> n_run{0};
      try {
        pool.run(40, [&](Index i, int) {
          n_run.fetch_add(1);
          if (i == culprit) throw std::runtime_error("task " + std::to_string(i));
        });
        FAIL() << "nothing thrown";
      } catch (const std::runtime_error& e) {
        EXPECT_EQ(e.what(), "task " + std::to_string(culprit));
      }
      EXPECT_LE(n_run.load(), 40);
      std::atomic<int> n_after{0};
      pool.run(11, [&](Index, int) { n_after.fetch_add(1); });
      ASSERT_EQ(n_after.load(), 11);
    }
  }
}

TEST(ThreadPool, OneOfManyExceptionsArrives) {
  ThreadPool pool(3);
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(pool.run(64, [](Index, int) { throw std::logic_error("all of them"); }),
                 std::logic_error);
  }
}

TEST(ThreadPool, AnExceptionStopsFurtherClaims) {
  ThreadPool pool(1);  // one thread: the order of the tasks is known
  Index n_run = 0;
  EXPECT_THROW(pool.run(1000,
                        [&](Index i, int) {
                          ++n_run;
                          if (i == 4) throw std::runtime_error("stop");
                        }),
               std::runtime_error);
  EXPECT_EQ(n_run, 5);
}

TEST(ThreadPool, NestedRunsGoInlineOnTheSameThread) {
  for (int n_threads : kThreadCounts) {
    ThreadPool pool(n_threads);
    std::atomic<int> n_inner{0};
    std::atomic<bool> moved{false};
    pool.run(20, [&](Index, int outer_thread) {
      const auto id = std::this_thread::get_id();
      pool.run(5, [&](Index, int thread) {
        n_inner.fetch_add(1);
        if (thread != outer_thread || std::this_thread::get_id() != id) moved = true;
      });
    });
    EXPECT_EQ(n_inner.load(), 100);
    EXPECT_FALSE(moved);
    EXPECT_THROW(
        pool.run(3,
                 [&](Index, int) { pool.run(3, [](Index, int) { throw std::range_error("x"); }); }),
        std::range_error);
  }
}

TEST(ThreadPool, AnotherPoolMayBeUsedInsideATask) {
  ThreadPool outer(1), inner(3);
  std::atomic<int> n{0};
  outer.run(4, [&](Index, int) { inner.run(9, [&](Index, int) { n.fetch_add(1); }); });
  EXPECT_EQ(n.load(), 36);
}

TEST(ThreadPool, MayBeCalledFromAnyThreadOneAfterAnother) {
  ThreadPool pool(2);
  std::atomic<int> n{0};
  for (int t = 0; t < 20; ++t) {
    std::thread([&] { pool.run(5, [&](Index, int) { n.fetch_add(1); }); }).join();
  }
  EXPECT_EQ(n.load(), 100);
}

TEST(ThreadPool, WorkersThatFellAsleepWakeUp) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // longer than any spinning
    // Two tasks that wait for each other: passes only if a second thread comes.
    std::atomic<int> arrived{0};
    pool.run(2, [&](Index, int) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
    ASSERT_EQ(arrived.load(), 2);
  }
}

TEST(ThreadPool, IsMadeAndDestroyedManyTimes) {
  for (int i = 0; i < 200; ++i) {
    ThreadPool pool(1 + i % 5);
    if (i % 3 == 0) continue;  // never used
    std::atomic<int> n{0};
    pool.run(i % 4, [&](Index, int) { n.fetch_add(1); });
    ASSERT_EQ(n.load(), i % 4);
  }
}

TEST(ThreadPool, ParallelForCoversTheRangeInGrains) {
  for (int n_threads : kThreadCounts) {
    ThreadPool pool(n_threads);
    for (Index n : {0, 1, 7, 64, 65, 127}) {
      for (Index grain : {1, 3, 64, 1000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        std::atomic<bool> grains_ok{true};
        pool.parallel_for(n, grain, [&](Index begin, Index end, int) {
          if (begin % grain != 0 || end != std::min(n, begin + grain)) grains_ok = false;
          for (Index i = begin; i < end; ++i) hits[static_cast<std::size_t>(i)].fetch_add(1);
        });
        EXPECT_TRUE(grains_ok);
        EXPECT_TRUE(std::ranges::all_of(hits, [](const auto& h) { return h == 1; }));
      }
    }
  }
}

TEST(ThreadPool, ZeroThreadsMeansAllUsableCores) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_EQ(ThreadPool().n_threads(), usable_cores());
}

TEST(ThreadPoolDeathTest, TwoCallersAtOnceAreABug) {
#ifdef __aarch64__  // under qemu a program cannot start itself again
  GTEST_FLAG_SET(death_test_style, "fast");
#else
  GTEST_FLAG_SET(death_test_style, "threadsafe");
#endif
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        std::atomic<bool> started{false};
        std::thread other([&] {
          pool.run(1, [&](Index, int) {
            started = true;
            std::this_thread::sleep_for(std::chrono::seconds(30));
          });
        });
        while (!started) std::this_thread::yield();
        pool.run(1, [](Index, int) {});
      },
      "two threads at once");
}

}  // namespace
}  // namespace kogia
