#include "support/process.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace kogia::test {
namespace {

constexpr auto kPatience = std::chrono::minutes(2);
constexpr int kAskEvery_ms = 1;
using Clock = std::chrono::steady_clock;

[[noreturn]] void exec(const std::vector<std::string>& command,
                       const std::map<std::string, std::string>& environment) {
  for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

void limit_files(Index n_bytes) {
  const rlimit limit{static_cast<rlim_t>(n_bytes), static_cast<rlim_t>(n_bytes)};
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

int milliseconds_left(Clock::time_point end) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
  return static_cast<int>(std::max<std::int64_t>(left.count(), 0));
}

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    close_read();
    close_write();
  }
  void close_read() { close(read); }
  void close_write() { close(write); }

 private:
  static void close(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

// Appends what is there; closes the end of a pipe that has ended.
void drain(Pipe& pipe, std::string& text) {
  std::array<char, 65536> buffer;
  const ssize_t n = ::read(pipe.read, buffer.data(), buffer.size());
  if (n > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(n));
  } else if (n == 0 || errno != EINTR) {
    pipe.close_read();
  }
}

void feed(Pipe& pipe, std::string_view& input) {
  const ssize_t n = input.empty() ? 0 : ::write(pipe.write, input.data(), input.size());
  if (n > 0) input.remove_prefix(static_cast<std::size_t>(n));
  if (input.empty() || (n < 0 && errno != EINTR && errno != EAGAIN)) pipe.close_write();
}

void set_exit(ProcessResult& result, int status) {
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& command, const ProcessOptions& options) {
  Pipe in, out, err;
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    if (options.close_stdout) {
      std::signal(SIGPIPE, SIG_IGN);
      ::close(out.read);
    }
    ::dup2(in.read, 0);
    ::dup2(out.write, 1);
    ::dup2(err.write, 2);
    if (options.max_file_bytes > 0) limit_files(options.max_file_bytes);
    exec(command, options.environment);
  }
  in.close_read();
  out.close_write();
  err.close_write();
  if (options.close_stdout) out.close_read();
  std::signal(SIGPIPE, SIG_IGN);  // a program may end without reading its input
  ::fcntl(in.write, F_SETFL, O_NONBLOCK);

  ProcessResult result;
  std::string_view input = options.input;
  const auto end = Clock::now() + kPatience;
  bool waiting = static_cast<bool>(options.interrupt_when);
  while (out.read >= 0 || err.read >= 0 || in.write >= 0) {
    std::array<pollfd, 3> fds{
        {{out.read, POLLIN, 0}, {err.read, POLLIN, 0}, {in.write, POLLOUT, 0}}};
    if (waiting && options.interrupt_when()) {
      ::kill(child, options.signal);
      waiting = false;
    }
    const int n_ready =
        ::poll(fds.data(), fds.size(), waiting ? kAskEvery_ms : milliseconds_left(end));
    if (n_ready == 0 && milliseconds_left(end) == 0) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      throw std::runtime_error("no end of " + command[0] + " after two minutes");
    }
    if (fds[0].revents != 0) drain(out, result.out);
    if (fds[1].revents != 0) drain(err, result.err);
    if (fds[2].revents != 0) feed(in, input);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  set_exit(result, status);
  return result;
}

Terminal::Terminal(const std::vector<std::string>& command,
                   const std::map<std::string, std::string>& environment) {
  winsize size{.ws_row = 40, .ws_col = 200, .ws_xpixel = 0, .ws_ypixel = 0};
  child_ = ::forkpty(&terminal_, nullptr, nullptr, &size);
  if (child_ < 0) throw std::runtime_error("forkpty failed");
  if (child_ == 0) {
    ::setenv("TERM", "xterm", 1);
    exec(command, environment);
  }
}

Terminal::~Terminal() {
  if (child_ > 0) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  if (terminal_ >= 0) ::close(terminal_);
}

void Terminal::type(std::string_view keys) {
  while (!keys.empty()) {
    const ssize_t n = ::write(terminal_, keys.data(), keys.size());
    if (n < 0 && errno != EINTR) throw std::runtime_error("the terminal takes no keys");
    if (n > 0) keys.remove_prefix(static_cast<std::size_t>(n));
  }
}

// False at the end of what the program shows.
bool Terminal::read_some() {
  std::array<char, 4096> buffer;
  const ssize_t n = ::read(terminal_, buffer.data(), buffer.size());
  if (n > 0) screen_.append(buffer.data(), static_cast<std::size_t>(n));
  return n > 0 || (n < 0 && errno == EINTR);
}

bool Terminal::expect(std::string_view text) {
  const auto end = Clock::now() + kPatience;
  while (true) {
    const std::size_t found = screen_.find(text, seen_);
    if (found != std::string::npos) {
      seen_ = found + text.size();
      return true;
    }
    pollfd fd{terminal_, POLLIN, 0};
    if (::poll(&fd, 1, milliseconds_left(end)) == 0) return false;
    if (!read_some()) return false;
  }
}

int Terminal::leave_by(std::string_view keys) {
  const auto end = Clock::now() + kPatience;
  bool running = true;
  while (running && Clock::now() < end) {
    type(keys);
    const auto pause = Clock::now() + std::chrono::seconds(1);
    while (running && Clock::now() < pause) {
      pollfd fd{terminal_, POLLIN, 0};
      if (::poll(&fd, 1, milliseconds_left(pause)) > 0) running = read_some();
    }
  }
  return wait();
}

int Terminal::wait() {
  const auto end = Clock::now() + kPatience;
  while (true) {
    pollfd fd{terminal_, POLLIN, 0};
    if (::poll(&fd, 1, milliseconds_left(end)) == 0 || !read_some()) break;
  }
  int status = 0;
  if (Clock::now() >= end) ::kill(child_, SIGKILL);
  while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace kogia::test
