// An importance matrix from a stranger: read or refused.

#include <cstdint>

#include "base/error.h"
#include "formats/imatrix.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto m = kogia::ImportanceMatrix::parse({reinterpret_cast<const std::byte*>(data), size},
                                                  "imatrix.dat");
    static_cast<void>(m.find("x", 1));
  } catch (const kogia::Error&) {
  }
  return 0;
}
