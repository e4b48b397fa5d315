#pragma once
// Programs run from outside, with pipes or on a terminal of their own.

#include <chrono>
#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "base/index.h"

namespace kogia::test {

struct ProcessResult {
  int exit_code = -1;  // -1: killed by `signal`
  int signal = 0;
  std::string out, err;
};

struct ProcessOptions {
  std::string input = {};                               // what standard input holds
  std::map<std::string, std::string> environment = {};  // added to ours
  bool close_stdout = false;  // a pipe whose reader is gone, SIGPIPE ignored
  /// Asked about once a millisecond; the first time that it says yes, `signal` is sent.
  std::function<bool()> interrupt_when = {};
  int signal = 0;
  Index max_file_bytes = 0;  // RLIMIT_FSIZE; 0: none
};

/// Waits for the program; gives up with an exception after two minutes.
ProcessResult run_process(const std::vector<std::string>& command, const ProcessOptions& = {});

/// A program on a terminal of its own.
class Terminal {
 public:
  explicit Terminal(const std::vector<std::string>& command,
                    const std::map<std::string, std::string>& environment = {});
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(std::string_view keys);
  /// Waits until `text` appears after what was expected before; false after two minutes or if the
  /// program ends without it.
  bool expect(std::string_view text);
  /// Everything shown so far.
  const std::string& screen() const { return screen_; }
  /// Waits for the end and returns the exit code, or -1.
  int wait();
  /// Types `keys` until the program ends: libedit shows its prompt before it switches the terminal
  /// to its own mode, and a key that falls between is lost.
  int leave_by(std::string_view keys);

 private:
  bool read_some();
  int terminal_ = -1;
  pid_t child_ = -1;
  std::string screen_;
  std::size_t seen_ = 0;
};

}  // namespace kogia::test
