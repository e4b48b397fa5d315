#include <array>

#include "base/error.h"
#include "formats/gguf.h"

namespace kogia {
namespace {

std::string_view type_name(const GgufValue& value) {
  constexpr std::array<std::string_view, 7> kNames = {
      "an integer", "a float", "a boolean", "a string", "integers", "floats", "strings"};
  return kNames[value.index()];
}

const GgufValue* find(const GgufMetadata& m, std::string_view key) {
  const auto at = m.values.find(key);
  return at == m.values.end() ? nullptr : &at->second;
}

[[noreturn]] void wrong_type(const GgufMetadata& m, std::string_view key, const GgufValue& found,
                             const GgufValue& expected) {
  throw_error(ErrorCode::kInvalid, "{}: {} is {}, expected {}", m.file, key, type_name(found),
              type_name(expected));
}

template <class T>
const T* get(const GgufMetadata& m, std::string_view key) {
  const GgufValue* value = find(m, key);
  if (value == nullptr) return nullptr;
  if (const T* typed = std::get_if<T>(value)) return typed;
  wrong_type(m, key, *value, GgufValue(T()));
}

template <class T>
std::optional<T> copy(const T* value) {
  return value == nullptr ? std::nullopt : std::optional<T>(*value);
}

template <class T>
bool is_empty_vector(const GgufValue& value) {
  const auto* items = std::get_if<std::vector<T>>(&value);
  return items != nullptr && items->empty();
}
bool is_empty_array(const GgufValue& value) {
  return is_empty_vector<std::int64_t>(value) || is_empty_vector<double>(value) ||
         is_empty_vector<std::string>(value);
}

/// An array without items has no type worth checking.
template <class T>
const std::vector<T>* get_array(const GgufMetadata& m, std::string_view key) {
  static const std::vector<T> empty;
  const GgufValue* value = find(m, key);
  return value != nullptr && is_empty_array(*value) ? &empty : get<std::vector<T>>(m, key);
}

[[noreturn]] void missing(const GgufMetadata& m, std::string_view key) {
  throw_error(ErrorCode::kNotFound, "{}: {} is missing", m.file, key);
}

}  // namespace

bool GgufMetadata::has(std::string_view key) const { return values.find(key) != values.end(); }

std::optional<std::int64_t> GgufMetadata::get_int(std::string_view key) const {
  return copy(get<std::int64_t>(*this, key));
}
std::optional<double> GgufMetadata::get_float(std::string_view key) const {
  const GgufValue* value = find(*this, key);
  if (value != nullptr && std::holds_alternative<std::int64_t>(*value)) {
    return static_cast<double>(std::get<std::int64_t>(*value));
  }
  return copy(get<double>(*this, key));
}
std::optional<bool> GgufMetadata::get_bool(std::string_view key) const {
  return copy(get<bool>(*this, key));
}
std::optional<std::string> GgufMetadata::get_string(std::string_view key) const {
  return copy(get<std::string>(*this, key));
}
const std::vector<std::string>* GgufMetadata::get_strings(std::string_view key) const {
  return get_array<std::string>(*this, key);
}
const std::vector<std::int64_t>* GgufMetadata::get_ints(std::string_view key) const {
  return get_array<std::int64_t>(*this, key);
}
const std::vector<double>* GgufMetadata::get_floats(std::string_view key) const {
  return get_array<double>(*this, key);
}
std::int64_t GgufMetadata::require_int(std::string_view key) const {
  if (const auto value = get_int(key)) return *value;
  missing(*this, key);
}
std::string GgufMetadata::require_string(std::string_view key) const {
  if (auto value = get_string(key)) return *std::move(value);
  missing(*this, key);
}

}  // namespace kogia
