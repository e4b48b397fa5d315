#include "text/template_engine.h"

#include <kogia_ffi.h>

#include "base/error.h"

namespace kogia {
namespace {

// Text owned by the Rust side.
class FfiText {
 public:
  ~FfiText() { kogia_ffi_free_text(text_); }
  FfiText() = default;
  FfiText(const FfiText&) = delete;
  FfiText& operator=(const FfiText&) = delete;
  KogiaFfiText* out() { return &text_; }
  std::string str() const {
    return std::string(reinterpret_cast<const char*>(text_.data), text_.size);
  }

 private:
  KogiaFfiText text_{nullptr, 0, 0};
};

const std::uint8_t* bytes(std::string_view s) {
  return reinterpret_cast<const std::uint8_t*>(s.data());
}

[[noreturn]] void throw_failure(int code, std::uint32_t line, const std::string& message) {
  const std::string where =
      line == 0 ? "chat template" : fmt::format("chat template, line {}", line);
  switch (code) {
    case KOGIA_FFI_SYNTAX:
      throw_error(ErrorCode::kInvalid, "{}: {}", where, message);
    case KOGIA_FFI_RAISED:
      throw_error(ErrorCode::kInvalid, "{}: {}", where, message);
    case KOGIA_FFI_LIMIT:
      throw_error(ErrorCode::kInvalid, "{}: stopped: {}", where, message);
    default:
      throw_error(ErrorCode::kInvalid, "{}: {}", where, message);
  }
}

}  // namespace

TemplateVariables::TemplateVariables(std::string_view json) : json_bytes_(json.size()) {
  KogiaFfiVariables* variables = nullptr;
  FfiText error;
  if (kogia_ffi_variables(bytes(json), json.size(), &variables, error.out()) != KOGIA_FFI_OK) {
    throw_error(ErrorCode::kInvalid, "the variables of the chat template: {}", error.str());
  }
  handle_ = variables;
}

TemplateVariables::~TemplateVariables() {
  kogia_ffi_free_variables(static_cast<KogiaFfiVariables*>(handle_));
}

void check_template(std::string_view source) {
  FfiText error;
  std::uint32_t line = 0;
  const int code = kogia_ffi_check(bytes(source), source.size(), error.out(), &line);
  if (code != KOGIA_FFI_OK) throw_failure(code, line, error.str());
}

std::string render_template(std::string_view source, const TemplateVariables& variables,
                            std::size_t max_bytes) {
  constexpr std::uint64_t kFuel = 1'000'000, kFuelPerByte = 64;
  constexpr std::size_t kOutputPerByte = 16;
  FfiText text;
  std::uint32_t line = 0;
  const std::size_t n = variables.json_bytes();
  const int code = kogia_ffi_render(
      bytes(source), source.size(), static_cast<const KogiaFfiVariables*>(variables.handle_),
      kFuel + kFuelPerByte * n, max_bytes + kOutputPerByte * n, text.out(), &line);
  if (code != KOGIA_FFI_OK) throw_failure(code, line, text.str());
  return text.str();
}

}  // namespace kogia
