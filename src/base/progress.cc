#include "base/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace kogia {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

int terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string amount(double n, ProgressUnit unit) {
  if (unit == ProgressUnit::kBytes) return format_bytes(static_cast<Index>(n));
  return n < 100 && n != std::floor(n) ? fmt::format("{:.1f}", n) : fmt::format("{:.0f}", n);
}

std::chrono::nanoseconds interval(Progress::Mode mode) {
  return mode == Progress::Mode::kBar ? std::chrono::nanoseconds(milliseconds(100))
                                      : std::chrono::nanoseconds(seconds(10));
}

}  // namespace

std::string format_bytes(Index n) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(n);
  int unit = 0;
  while (std::abs(value) >= 1023.95 && unit < 6) value /= 1024, ++unit;
  if (unit == 0) return fmt::format("{} B", n);
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string format_duration(double s) {
  const auto total = static_cast<Index>(std::llround(std::clamp(s, 0.0, 1e9)));
  const Index hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, rest);
  return fmt::format("{}:{:02}", minutes, rest);
}

std::string render_progress(std::string_view label, Index done, Index total, double elapsed_s,
                            ProgressUnit unit, int width, std::string_view note, Index before) {
  const double rate = elapsed_s > 0 ? static_cast<double>(done - before) / elapsed_s : 0;
  std::string text = std::string(label);
  std::string tail = total > 0 ? fmt::format(" {} of {}", amount(static_cast<double>(done), unit),
                                             amount(static_cast<double>(total), unit))
                               : fmt::format(" {}", amount(static_cast<double>(done), unit));
  if (rate > 0) tail += fmt::format("  {}/s", amount(rate, unit));
  const std::string last = note.empty() ? std::string() : fmt::format("  {}", note);
  if (total <= 0)
    return (text + tail + last).substr(0, static_cast<std::size_t>(std::max(width, 0)));

  const double share = std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  if (rate > 0 && done < total) {
    tail += "  ETA " + format_duration(static_cast<double>(total - done) / rate);
  }
  tail += last;
  text += fmt::format(" {:3.0f} %", std::floor(100 * share));
  const int room = width - static_cast<int>(text.size() + tail.size()) - 4;
  if (room >= 8) {
    const auto cells = static_cast<std::size_t>(std::min(room, 30));
    const auto full = static_cast<std::size_t>(share * static_cast<double>(cells));
    text += " [" + std::string(full, '#') + std::string(cells - full, '.') + "]";
  }
  return (text + tail).substr(0, static_cast<std::size_t>(std::max(width, 0)));
}

Progress::Progress(std::string label, Index total, ProgressUnit unit, Mode mode)
    : label_(std::move(label)), total_(total), unit_(unit), mode_(mode), begin_(Clock::now()) {
  if (mode_ == Mode::kAuto) mode_ = ::isatty(STDERR_FILENO) != 0 ? Mode::kBar : Mode::kLines;
  // What is over within a moment needs no bar.
  const auto first = mode_ == Mode::kBar ? milliseconds(300) : milliseconds(10000);
  next_draw_.store((begin_ + first).time_since_epoch().count());
}

Progress::~Progress() { finish(); }

void Progress::add(Index n) {
  done_.fetch_add(n, std::memory_order_relaxed);
  draw_if_due();
}

void Progress::go_on_from(Index n) {
  before_ = n;
  done_.store(n, std::memory_order_relaxed);
}

void Progress::say(std::string note) {
  if (const std::unique_lock lock(drawing_, std::try_to_lock); lock.owns_lock()) {
    note_ = std::move(note);
  }
  draw_if_due();
}

void Progress::draw_if_due() {
  if (mode_ == Mode::kSilent) return;
  const Clock::time_point now = Clock::now();
  if (now.time_since_epoch().count() < next_draw_.load(std::memory_order_relaxed)) return;
  const std::unique_lock lock(drawing_, std::try_to_lock);
  if (lock.owns_lock() && !finished_) draw(now);
}

void Progress::draw(Clock::time_point now) {
  const double elapsed_s = std::chrono::duration<double>(now - begin_).count();
  const bool bar = mode_ == Mode::kBar;
  const std::string text = render_progress(label_, done(), total_, elapsed_s, unit_,
                                           bar ? terminal_width() - 1 : 200, note_, before_);
  std::fprintf(stderr, bar ? "\r\033[K%s" : "%s\n", text.c_str());
  std::fflush(stderr);
  next_draw_.store((now + interval(mode_)).time_since_epoch().count(), std::memory_order_relaxed);
}

void Progress::finish() {
  const std::scoped_lock lock(drawing_);
  if (std::exchange(finished_, true) || mode_ == Mode::kSilent) return;
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - begin_).count();
  if (mode_ == Mode::kBar) std::fputs("\r\033[K", stderr);
  if (elapsed_s >= 1) {
    std::fprintf(stderr, "%s: %s in %s\n", label_.c_str(),
                 amount(static_cast<double>(done() - before_), unit_).c_str(),
                 format_duration(elapsed_s).c_str());
  }
  std::fflush(stderr);
}

}  // namespace kogia
