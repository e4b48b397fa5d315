// A safetensors file from a stranger: read or refused; every byte a view promises is there.
//
// Input: the file; one that begins with '{' is read as an index instead.

#include <string>
#include <string_view>

#include "base/error.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    if (size > 0 && data[0] == '{') {
      kogia::parse_safetensors_index({reinterpret_cast<const char*>(data), size}, "index.json");
      return 0;
    }
    unsigned sum = 0;
    for (const kogia::TensorEntry& t : kogia::parse_safetensors(bytes, "model.safetensors")) {
      for (kogia::Index i = 0; i < t.view.n_bytes; ++i)
        sum += std::to_integer<unsigned>(t.view.data[i]);
    }
    volatile unsigned keep = sum;
    static_cast<void>(keep);
  } catch (const kogia::Error&) {
  }
  return 0;
}
