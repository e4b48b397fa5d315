#pragma once
// JSON of other people, small enough for a tree: tokenizer_config.json, messages, tools.

#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace kogia {

/// Keeps the order of keys. Throws Error(kInvalid) that names `what`: not JSON, or nested deeper
/// than 128.
nlohmann::ordered_json parse_json(std::string_view text, std::string_view what);

}  // namespace kogia
