#pragma once
// GGUF v2 and v3: typed metadata and tensor descriptions of one file, mapped and checked.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/index.h"
#include "tensor/view.h"

namespace kogia {

/// A metadata value. Integers of every width become int64 (u64 above int64's range is refused),
/// floats double. Arrays of strings, integers and floats only; arrays of arrays are refused by
/// name.
using GgufValue = std::variant<std::int64_t, double, bool, std::string, std::vector<std::int64_t>,
                               std::vector<double>, std::vector<std::string>>;

/// Key-value part of a GGUF (of the first file of a split set).
/// Errors: a key that is present with another type throws Error naming the key and both types.
class GgufMetadata {
 public:
  bool has(std::string_view key) const;
  std::optional<std::int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;  // an integer is taken as well
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;
  const std::vector<std::string>* get_strings(std::string_view key) const;  // null if absent
  const std::vector<std::int64_t>* get_ints(std::string_view key) const;
  const std::vector<double>* get_floats(std::string_view key) const;
  /// Like get_…, but throws kNotFound naming the key and the file.
  std::int64_t require_int(std::string_view key) const;
  std::string require_string(std::string_view key) const;

  std::string file;  // for messages
  std::map<std::string, GgufValue, std::less<>> values;
};

/// A key as it lies in the file: its type and value, so that a copy keeps both to the bit.
struct GgufStoredKey {
  std::string name;
  std::span<const std::byte> value;  // u32 type, then the value
};

class GgufFile {
 public:
  virtual ~GgufFile() = default;
  virtual const GgufMetadata& metadata() const = 0;
  /// The same keys in the file's order; they live as long as the checkpoint.
  virtual std::span<const GgufStoredKey> stored_keys() const = 0;
};

}  // namespace kogia
