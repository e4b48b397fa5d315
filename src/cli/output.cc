#include "cli/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/error.h"

namespace kogia::cli {
namespace {

constexpr std::string_view kDim = "\x1b[2m", kPlain = "\x1b[0m";

bool is_control(unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F; }

void print_error(std::string_view label, std::string_view text) {
  const std::string line = std::string(label) + printable(text) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

// Length of the UTF-8 sequence that begins here; 0 if it is none.
std::size_t sequence_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t n = lead >= 0xF5   ? 0
                        : lead >= 0xF0 ? 4
                        : lead >= 0xE0 ? 3
                        : lead >= 0xC2 ? 2
                                       : 0;
  if (n == 0 || text.size() < n) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xF0 && byte(1) < 0x90);
  const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
  const bool too_large = lead == 0xF4 && byte(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : n;
}

}  // namespace

void write_out(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (written && std::fflush(stdout) == 0) return;
  const int reason = errno;
  std::clearerr(stdout);
  throw_error(ErrorCode::kBrokenOutput, "standard output: {}", std::strerror(reason));
}

void write_note(std::string_view text) {
  const bool dim = err_is_terminal();
  const std::string line = fmt::format("{}{}{}\n", dim ? kDim : "", text, dim ? kPlain : "");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

void write_json(const nlohmann::ordered_json& object) {
  write_out(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

bool out_is_terminal() { return ::isatty(STDOUT_FILENO) == 1; }
bool in_is_terminal() { return ::isatty(STDIN_FILENO) == 1; }
bool err_is_terminal() { return ::isatty(STDERR_FILENO) == 1; }

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t n = sequence_length(text);
    const auto lead = static_cast<unsigned char>(text[0]);
    // U+0080 to U+009F are control characters too.
    const bool high_control = n == 2 && lead == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0;
    if (n == 0 || is_control(lead) || high_control) {
      out += "\uFFFD";
      text.remove_prefix(n == 0 ? 1 : n);
    } else {
      out += text.substr(0, n);
      text.remove_prefix(n);
    }
  }
  return out;
}

std::string counted_types(const std::map<std::string, Index>& tensors) {
  std::string text;
  for (const auto& [type, n] : tensors) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", n, type);
  }
  return text;
}

std::function<void(Index, Index)> shown_bytes(std::optional<Progress>& progress, std::string what) {
  return [&progress, what = std::move(what)](Index done, Index total) {
    if (!progress) progress.emplace(what, total, ProgressUnit::kBytes);
    progress->add(done - progress->done());
  };
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t n = sequence_length(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

int report(const std::exception& error, std::string_view default_help) {
  const auto* ours = dynamic_cast<const Error*>(&error);
  const bool usage = ours != nullptr && ours->code() == ErrorCode::kUsage;
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    print_error("error: ", "not enough memory");
    print_error("help:  ", "a smaller --ctx needs less; `kogia inspect MODEL` tells how much");
    return 1;
  }
  // Further lines of a message are indented under the first.
  std::string message = error.what();
  for (std::size_t at = 0; (at = message.find('\n', at)) != std::string::npos; at += 3) {
    message.replace(at, 1, "\n  ");
  }
  print_error("error: ", message);
  if (ours != nullptr && !ours->help().empty()) {
    print_error("help:  ", ours->help());
  } else if (usage && !default_help.empty()) {
    print_error("help:  ", default_help);
  }
  return usage ? 2 : 1;
}

std::string wrap(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  std::size_t column = 0;
  while (!text.empty()) {
    const std::size_t end = text.find_first_of(" \n");
    const std::string_view word = text.substr(0, end);
    if (column > 0 && column + 1 + word.size() > width) {
      out.append(1, '\n').append(indent, ' ');
      column = 0;
    } else if (column > 0) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    if (end == std::string_view::npos) break;
    if (text[end] == '\n') {
      out.append(1, '\n').append(indent, ' ');
      column = 0;
    }
    text.remove_prefix(end + 1);
  }
  return out;
}

std::string with_commas(long long n) {
  const std::string digits = std::to_string(n);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const std::size_t left = digits.size() - i;
    if (i > 0 && left % 3 == 0 && digits[i - 1] != '-') out += ',';
    out += digits[i];
  }
  return out;
}

std::string counted(long long n, std::string_view noun) {
  return fmt::format("{} {}{}", with_commas(n), noun, n == 1 ? "" : "s");
}

std::string short_count(long long n) {
  const auto x = static_cast<double>(n);
  if (n >= 1'000'000'000) return fmt::format("{:.1f}B", x / 1e9);
  if (n >= 1'000'000) return fmt::format("{:.1f}M", x / 1e6);
  if (n >= 1'000) return fmt::format("{:.1f}K", x / 1e3);
  return std::to_string(n);
}

}  // namespace kogia::cli
