#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace kogia {

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace kogia
