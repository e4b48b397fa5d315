#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace kogia {
namespace {

constexpr std::size_t kLongest = 8000, kKept = 900;  // room for a path

std::string readable(const std::string& message) {
  std::string out;
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n') || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (out.size() <= kLongest) return out;
  return fmt::format("{} … {}", out.substr(0, kKept), out.substr(out.size() - kKept));
}

}  // namespace

Error::Error(ErrorCode code, const std::string& message, std::string help)
    : std::runtime_error(readable(message)), code_(code), help_(std::move(help)) {}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace kogia
