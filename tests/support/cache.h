#pragma once
// Models that ./check keeps in the cache.

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace kogia::test {

/// $KOGIA_CACHE, which is ${XDG_CACHE_HOME:-~/.cache}/kogia where it is not set.
inline std::filesystem::path cache_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (const auto own = variable("KOGIA_CACHE"); !own.empty()) return own;
  if (const auto xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) {
    return std::filesystem::path(xdg) / "kogia";
  }
  return std::filesystem::path(variable("HOME")) / ".cache/kogia";
}

/// SmolLM2-135M-Instruct in Q4_1. Throws a clear sentence if it is not there.
inline std::filesystem::path smollm2() {
  const auto file = cache_folder() / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(file)) {
    throw std::runtime_error(file.string() +
                             " is missing: run tools/fetch.sh model (./check does)");
  }
  return file;
}

}  // namespace kogia::test
