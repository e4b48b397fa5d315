#pragma once
// The program under test.

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/cache.h"
#include "support/process.h"

namespace kogia::test {

using Json = nlohmann::json;

inline ProcessResult kogia(std::vector<std::string> arguments, ProcessOptions options = {}) {
  arguments.insert(arguments.begin(), KOGIA_PROGRAM);
  return run_process(arguments, options);
}

}  // namespace kogia::test
