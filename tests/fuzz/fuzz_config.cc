// A configuration from a stranger: becomes a ModelConfig or is refused.
//
// Input: config.json, or a GGUF, of which the metadata is taken.

#include <string_view>

#include "base/error.h"
#include "formats/gguf_reader.h"
#include "formats/hf_config.h"
#include "model/config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto config =
        text.starts_with("GGUF")
            ? kogia::ModelConfig::from_gguf(
                  kogia::parse_gguf(std::as_bytes(std::span(text)), "m.gguf").metadata)
            : kogia::ModelConfig::from_hf(kogia::HfConfig::parse(text, "config.json"));
    kogia::count_parameters(config);
    kogia::cache_cost(config);
  } catch (const kogia::Error&) {
  }
  return 0;
}
