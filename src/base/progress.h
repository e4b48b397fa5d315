#pragma once
// How far a long job is: a bar on a terminal, a line now and then in a log, on standard error.

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <string_view>

#include "base/index.h"

namespace kogia {

enum class ProgressUnit { kCount, kBytes };

/// One picture of a progress bar, `width` columns wide at most. A pure function, for tests.
/// total <= 0 means unknown: then there is no bar and no ETA. `note` stands last: of a line that is
/// too narrow the end is cut off. Of what is done, `before` was so when the clock started.
std::string render_progress(std::string_view label, Index done, Index total, double elapsed_s,
                            ProgressUnit unit, int width, std::string_view note = {},
                            Index before = 0);
/// "1.5 GiB", "98.3 MiB", "12 B".
std::string format_bytes(Index n);
/// "0:07", "12:34", "3:05:00".
std::string format_duration(double seconds);

/// Shows progress from its first second to finish() or destruction.
///   kAuto    a bar if standard error is a terminal, else lines at most every ten seconds
///   kSilent  nothing at all
/// Threads: add() from any; it never waits for the terminal behind another thread.
class Progress {
 public:
  enum class Mode { kAuto, kBar, kLines, kSilent };
  Progress(std::string label, Index total, ProgressUnit unit = ProgressUnit::kCount,
           Mode mode = Mode::kAuto);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void add(Index n);
  /// A job that goes on: n were done before, which says nothing of how fast it is. Before add().
  void go_on_from(Index n);
  /// As add(0), with something to say behind the rate from now on: "431 tok/s".
  void say(std::string note);
  Index done() const { return done_.load(std::memory_order_relaxed); }
  /// Wipes the bar, or says in a line how long it took if it took longer than a second.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void draw(Clock::time_point now);
  void draw_if_due();

  const std::string label_;
  const Index total_;
  const ProgressUnit unit_;
  Mode mode_;
  const Clock::time_point begin_;
  std::atomic<Index> done_{0};
  Index before_ = 0;
  std::atomic<Clock::rep> next_draw_;
  std::mutex drawing_;
  std::string note_;  // under drawing_
  bool finished_ = false;
};

}  // namespace kogia
