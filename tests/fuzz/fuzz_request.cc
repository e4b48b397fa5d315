// A line of a file of prompts from a stranger: read or refused, and what is read makes sense.

#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "infer/request_json.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const kogia::RequestLine line = kogia::parse_request_line(text, "prompts.jsonl:1");
    const kogia::RequestBody& body = line.body;
    KOGIA_CHECK(
        (body.messages.empty() ? 0 : 1) + (body.text ? 1 : 0) + (body.ids.empty() ? 0 : 1) == 1);
    KOGIA_CHECK(body.n >= 1 && line.id_key.empty() == line.id_json.empty());
    kogia::GenerateOptions options;
    body.settings.apply(options);
    kogia::validate(options.sampling);
    KOGIA_CHECK(options.max_tokens >= -1);
    if (!line.id_json.empty()) {
      KOGIA_CHECK(nlohmann::json::accept(line.id_json));
    }
    for (const kogia::ChatMessage& message : body.messages) {
      KOGIA_CHECK(message.extra_json.empty() || nlohmann::json::accept(message.extra_json));
    }
  } catch (const kogia::Error&) {
  }
  return 0;
}
