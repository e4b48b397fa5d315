#pragma once
// Ctrl-C as a flag that long loops look at.

namespace kogia {

/// While one of these lives, the first Ctrl-C (SIGINT) sets a flag and the second ends the process
/// as it would without us. The handler that was there before returns with the last one. Threads:
/// make and destroy them on one thread.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

/// Ctrl-C was pressed since the flag was last cleared. Cheap; from any thread.
bool interrupted();

/// Back to normal, after the interruption has been answered (chat goes on with the next question).
void clear_interrupt();

/// Throws Error(kInterrupted) if the flag is set.
void throw_if_interrupted();

}  // namespace kogia
