#pragma once
// A TOML file as a tree of JSON values that know the lines they stand on.

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace kogia {

/// Keys are in the order of the file. Numbers are finite; dates are refused.
struct TomlTree {
  static constexpr std::size_t kMaxBytes = std::size_t{1} << 20;

  /// Errors  what is no TOML is a usage error "FILE:LINE: …"
  static TomlTree parse(std::string_view text, std::string file);

  /// "trainer.steps=60": replaces or adds one value. It is read as a TOML value; what is none, such
  /// as a bare word or a path, is a string. A number in the path counts along a list:
  /// data.sources.0.weight=2.
  void set(std::string_view assignment);

  /// "FILE:LINE", or "--set NAME=VALUE", of the value at this path ("data.sources.0.path") or of
  /// the nearest that is around it; the file where there is none.
  std::string place(std::string_view path) const;

  nlohmann::ordered_json values = nlohmann::ordered_json::object();
  std::string file;
  std::map<std::string, std::string, std::less<>> places;
};

/// A value in one line of TOML: nested objects as inline tables. `value` holds no null.
/// Errors  text that is no UTF-8
std::string toml_value(const nlohmann::ordered_json& value);
/// A key, in quotes if it needs them.
std::string toml_key(std::string_view key);

}  // namespace kogia
