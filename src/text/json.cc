#include "text/json.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace kogia {

nlohmann::ordered_json parse_json(std::string_view text, std::string_view what) {
  using Json = nlohmann::ordered_json;
  constexpr int kMaxDepth = 128;
  // The library takes a zero byte for the end of the text and would not see what follows.
  if (const auto zero = text.find('\0'); zero != text.npos) {
    throw_error(ErrorCode::kInvalid, "{} is not JSON: byte {} is zero", what, zero);
  }
  try {
    return Json::parse(text, [&](int depth, Json::parse_event_t, Json&) {
      if (depth > kMaxDepth) {
        throw_error(ErrorCode::kInvalid, "{} is nested deeper than {}", what, kMaxDepth);
      }
      return true;
    });
  } catch (const Json::exception& e) {
    throw_error(ErrorCode::kInvalid, "{} is not JSON: {}", what, e.what());
  }
}

}  // namespace kogia
