#pragma once
// A Hugging Face JSON object (config.json, generation_config.json) with typed, named access.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"

namespace kogia {

/// An object of a JSON file, or the file's top object. Copies share the document.
///
/// Absent  a key that is missing or null is absent: getters give nullopt
/// Errors  parse() refuses what is not JSON, not an object, nested deeper than kMaxDepth or longer
/// than
///         kMaxBytes; getters throw Error(kInvalid) naming file, field, what was found and what was
///         expected. A key that occurs twice has its last value.
/// Threads const and safe to share
class HfConfig {
 public:
  static constexpr int kMaxDepth = 64;
  static constexpr std::size_t kMaxBytes = std::size_t{16} << 20;

  /// `file` is for messages only.
  static HfConfig parse(std::string_view text, std::string file);

  bool has(std::string_view key) const;  // present and not null
  /// 2.0 is taken as 2; 2.5 and numbers beyond 64 bits are refused.
  std::optional<Index> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;
  std::optional<HfConfig> get_object(std::string_view key) const;
  /// An integer or a list of integers (eos_token_id); empty where absent.
  std::vector<Index> get_ints_or_one(std::string_view key) const;
  /// A list of strings (architectures); empty where absent.
  std::vector<std::string> get_strings(std::string_view key) const;

  const std::string& file() const { return file_; }

 private:
  struct Node;  // wraps the JSON library's value
  std::string field(std::string_view key) const;
  std::shared_ptr<const Node> find(std::string_view key) const;

  std::shared_ptr<const Node> node_;
  std::string file_;
  std::string prefix_;  // "rope_scaling." inside a sub-object
};

}  // namespace kogia
