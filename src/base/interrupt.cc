#include "base/interrupt.h"

#include <atomic>

#include <signal.h>

#include "base/error.h"

namespace kogia {
namespace {

// Signals belong to the process, so their state does too.
constinit std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);
constinit int g_guards = 0;
struct sigaction g_previous;

void on_sigint(int signal_number) {
  if (!g_interrupted.exchange(true)) return;
  // The second time: nobody looked at the flag, so die the way the user asked.
  struct sigaction by_default{};
  by_default.sa_handler = SIG_DFL;
  ::sigaction(signal_number, &by_default, nullptr);
  ::raise(signal_number);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  if (g_guards++ > 0) return;
  clear_interrupt();
  struct sigaction action{};
  action.sa_handler = on_sigint;
  action.sa_flags = SA_RESTART;  // a half-written line must not be lost to EINTR
  ::sigaction(SIGINT, &action, &g_previous);
}

InterruptGuard::~InterruptGuard() {
  if (--g_guards == 0) ::sigaction(SIGINT, &g_previous, nullptr);
}

bool interrupted() { return g_interrupted.load(std::memory_order_relaxed); }
void clear_interrupt() { g_interrupted.store(false); }

void throw_if_interrupted() {
  if (interrupted()) throw Error(ErrorCode::kInterrupted, "interrupted");
}

}  // namespace kogia
