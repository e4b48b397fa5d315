#pragma once
// Messages for people, on standard error. Results go to standard output and never through here.

#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace kogia {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

/// Messages below the level are dropped. The default is kInfo.
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);

/// One line; a progress bar in its way is wiped first. From any thread.
void log_message(LogLevel level, std::string_view message);

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kDebug)) {
    log_message(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kInfo)) {
    log_message(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
  }
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(LogLevel::kWarning)) {
    log_message(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
  }
}

}  // namespace kogia
