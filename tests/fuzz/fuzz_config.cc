// A configuration from a stranger: becomes a ModelConfig or is refused; a value asked for in
// another type is refused too.
//
// Input: config.json, or a GGUF, of which the metadata is taken.

#include <string_view>

#include "base/error.h"
#include "formats/gguf_reader.h"
#include "formats/hf_config.h"
#include "model/config.h"

namespace {

template <class F>
void fine_or_refused(F&& f) {
  try {
    f();
  } catch (const kogia::Error&) {
  }
}

void ask_in_every_type(const kogia::HfConfig& config) {
  for (const char* key : {"a", "rope_scaling", "eos_token_id", "architectures", "hidden_size"}) {
    fine_or_refused([&] { config.get_int(key); });
    fine_or_refused([&] { config.get_float(key); });
    fine_or_refused([&] { config.get_bool(key); });
    fine_or_refused([&] { config.get_string(key); });
    fine_or_refused([&] { config.get_ints_or_one(key); });
    fine_or_refused([&] { config.get_strings(key); });
    fine_or_refused([&] {
      if (const auto inner = config.get_object(key)) inner->get_float("factor");
    });
  }
}

kogia::ModelConfig from_hf(std::string_view text) {
  const auto config = kogia::HfConfig::parse(text, "config.json");
  ask_in_every_type(config);
  return kogia::ModelConfig::from_hf(config);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto config =
        text.starts_with("GGUF")
            ? kogia::ModelConfig::from_gguf(
                  kogia::parse_gguf(std::as_bytes(std::span(text)), "m.gguf").metadata)
            : from_hf(text);
    kogia::count_parameters(config);
    kogia::cache_cost(config);
  } catch (const kogia::Error&) {
  }
  return 0;
}
