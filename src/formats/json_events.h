#pragma once
// JSON as a stream of events, for files too large for a tree: duplicate keys are seen, depth is
// bounded.

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace kogia {

/// Base of the readers. Each event a reader does not expect is refused with the place it came from.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonEvents(std::string file) : file_(std::move(file)) {}

  /// Runs over the text; throws Error(kInvalid) on what is not JSON.
  void read(std::string_view text) { nlohmann::json::sax_parse(text, this); }

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
    throw_error(ErrorCode::kInvalid, "{}: not JSON: {}", file_, e.what());
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
