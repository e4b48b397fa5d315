#pragma once
// Errors and checks.
//
// The world's fault (a file, a flag, a prompt) is thrown as kogia::Error and caught once per
// command. Our own fault is a KOGIA_CHECK, which aborts with file and line.

#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace kogia {

enum class ErrorCode {
  kUsage,         // wrong flag or argument: exit code 2
  kNotFound,      // a file, tensor or token that should be there is not
  kInvalid,       // data that contradicts its own format
  kUnsupported,   // valid, but nothing here can do it
  kIo,            // the operating system said no
  kBrokenOutput,  // nobody reads standard output any more
  kInterrupted,   // Ctrl-C
};

/// A failure for reasons outside the program. `what()` names the place, what was found and what was
/// expected; `help()` (may be empty) says how to mend it. What strangers' files put into the
/// message stays readable: control characters but the line break become \x and two digits, and of
/// an endless one the middle is left out.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message, std::string help = {});
  ErrorCode code() const { return code_; }
  const std::string& help() const { return help_; }

 private:
  ErrorCode code_;
  std::string help_;
};

/// throw_error(ErrorCode::kInvalid, "{}: header is {} bytes", path, n)
template <class... Args>
[[noreturn]] void throw_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace kogia

#define KOGIA_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::kogia::check_failed(#condition, __FILE__, __LINE__))
