#include "formats/hf_config.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json_events.h"

namespace kogia {

using Json = nlohmann::json;

/// A value and the document that keeps it alive.
struct HfConfig::Node {
  std::shared_ptr<const Json> document;
  const Json* value;
};

namespace {

Json parse_bounded(std::string_view text, const std::string& file) {
  if (text.size() > HfConfig::kMaxBytes) {
    throw_error(ErrorCode::kInvalid, "{}: {} bytes, more than the {} that a configuration may have",
                file, text.size(), HfConfig::kMaxBytes);
  }
  refuse_zero_bytes(text, file);
  using Event = Json::parse_event_t;
  try {
    return Json::parse(text, [&](int depth, Event event, Json&) {
      // `depth` counts what is open around the event.
      const bool opens = event == Event::object_start || event == Event::array_start;
      if (opens && depth >= HfConfig::kMaxDepth) {
        throw_error(ErrorCode::kInvalid, "{}: nested deeper than {}", file, HfConfig::kMaxDepth);
      }
      return true;
    });
  } catch (const Json::exception& e) {
    throw_error(ErrorCode::kInvalid, "{}: not JSON: {}", file, clip_message(e.what()));
  }
}

/// What stands there, short enough for a message.
std::string describe(const Json& value) {
  if (value.is_structured()) return fmt::format("{} of {}", value.type_name(), value.size());
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 60) + "…";
  return text;
}

[[noreturn]] void refuse(const std::string& field, const Json& value, std::string_view expected) {
  throw_error(ErrorCode::kInvalid, "{} is {}, expected {}", field, describe(value), expected);
}

Index to_int(const Json& value, const std::string& field) {
  constexpr std::string_view kExpected = "an integer of 64 bits";
  if (value.is_number_unsigned()) {
    const auto u = value.get<std::uint64_t>();
    if (u > static_cast<std::uint64_t>(INT64_MAX)) refuse(field, value, kExpected);
    return static_cast<Index>(u);
  }
  if (value.is_number_integer()) return value.get<Index>();
  if (value.is_number_float()) {  // 163840.0, written by tools that keep all numbers as floats
    const double d = value.get<double>();
    if (std::abs(d) < 0x1p53 && d == std::floor(d)) return static_cast<Index>(d);
  }
  refuse(field, value, value.is_number() ? kExpected : "an integer");
}

}  // namespace

HfConfig HfConfig::parse(std::string_view text, std::string file) {
  auto document = std::make_shared<const Json>(parse_bounded(text, file));
  if (!document->is_object()) refuse(file, *document, "an object");
  HfConfig config;
  config.node_ = std::make_shared<const Node>(Node{document, document.get()});
  config.file_ = std::move(file);
  return config;
}

std::string HfConfig::field(std::string_view key) const {
  return fmt::format("{}: {}{}", file_, prefix_, key);
}

std::shared_ptr<const HfConfig::Node> HfConfig::find(std::string_view key) const {
  const auto at = node_->value->find(std::string(key));
  if (at == node_->value->end() || at->is_null()) return nullptr;
  return std::make_shared<const Node>(Node{node_->document, &*at});
}

bool HfConfig::has(std::string_view key) const { return find(key) != nullptr; }

std::optional<Index> HfConfig::get_int(std::string_view key) const {
  const auto node = find(key);
  if (!node) return std::nullopt;
  return to_int(*node->value, field(key));
}

std::optional<double> HfConfig::get_float(std::string_view key) const {
  const auto node = find(key);
  if (!node) return std::nullopt;
  if (!node->value->is_number()) refuse(field(key), *node->value, "a number");
  return node->value->get<double>();
}

std::optional<bool> HfConfig::get_bool(std::string_view key) const {
  const auto node = find(key);
  if (!node) return std::nullopt;
  if (!node->value->is_boolean()) refuse(field(key), *node->value, "true or false");
  return node->value->get<bool>();
}

std::optional<std::string> HfConfig::get_string(std::string_view key) const {
  const auto node = find(key);
  if (!node) return std::nullopt;
  if (!node->value->is_string()) refuse(field(key), *node->value, "a string");
  return node->value->get<std::string>();
}

std::optional<HfConfig> HfConfig::get_object(std::string_view key) const {
  const auto node = find(key);
  if (!node) return std::nullopt;
  if (!node->value->is_object()) refuse(field(key), *node->value, "an object");
  HfConfig child;
  child.node_ = node;
  child.file_ = file_;
  child.prefix_ = fmt::format("{}{}.", prefix_, key);
  return child;
}

std::vector<Index> HfConfig::get_ints_or_one(std::string_view key) const {
  const auto node = find(key);
  if (!node) return {};
  if (!node->value->is_array()) return {to_int(*node->value, field(key))};
  std::vector<Index> out;
  for (const Json& item : *node->value) out.push_back(to_int(item, field(key)));
  return out;
}

std::vector<std::string> HfConfig::get_strings(std::string_view key) const {
  const auto node = find(key);
  if (!node) return {};
  if (!node->value->is_array()) refuse(field(key), *node->value, "a list of strings");
  std::vector<std::string> out;
  for (const Json& item : *node->value) {
    if (!item.is_string()) refuse(field(key), item, "a string");
    out.push_back(item.get<std::string>());
  }
  return out;
}

}  // namespace kogia
