#pragma once
// JSON as a stream of events, for files too large for a tree: duplicate keys are seen, depth is
// bounded.

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace kogia {

/// What a JSON library says about bad text, short enough for a message: it quotes what it read
/// last, which may be the whole file.
inline std::string clip_message(std::string text) {
  constexpr std::size_t kMaxMessage = 200;
  if (text.size() > kMaxMessage) text = text.substr(0, kMaxMessage) + "...";
  return text;
}

/// The library takes a zero byte for the end of the text, so that anything could hide behind it.
inline void refuse_zero_bytes(std::string_view text, std::string_view file) {
  const std::size_t at = text.find('\0');
  if (at == std::string_view::npos) return;
  throw_error(ErrorCode::kInvalid, "{}: not JSON: a zero byte at position {}", file, at);
}

/// Base of the readers. Each event a reader does not expect is refused with the place it came from.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonEvents(std::string file) : file_(std::move(file)) {}

  /// Runs over the text; throws Error(kInvalid) on what is not JSON.
  void read(std::string_view text) {
    refuse_zero_bytes(text, file_);
    nlohmann::json::sax_parse(text, this);
  }

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(number_integer_t) override { return refuse("a negative number"); }
  bool number_unsigned(number_unsigned_t) override { return refuse("a number"); }
  bool number_float(number_float_t, const string_t&) override {
    return refuse("a number that is not whole or too large");
  }
  bool string(string_t&) override { return refuse("a string"); }
  bool binary(binary_t&) override { return refuse("bytes"); }
  bool start_object(std::size_t) override { return refuse("an object"); }
  bool start_array(std::size_t) override { return refuse("a list"); }
  bool end_object() override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) override {
    throw_error(ErrorCode::kInvalid, "{}: not JSON: {}", file_, clip_message(e.what()));
  }

 protected:
  /// Where the reader is: "tensor w, shape".
  virtual std::string place() const = 0;
  [[noreturn]] bool refuse(std::string_view found) const {
    throw_error(ErrorCode::kInvalid, "{}: {}: unexpected {}", file_, place(), found);
  }

  std::string file_;
};

}  // namespace kogia
