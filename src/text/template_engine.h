#pragma once
// Jinja templates through the Rust library in shim/: one template text, one set of variables.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace kogia {

/// The variables of a rendering; made once, used for several.
class TemplateVariables {
 public:
  /// A JSON object, valid UTF-8. Throws Error(kInvalid).
  explicit TemplateVariables(std::string_view json);
  ~TemplateVariables();
  TemplateVariables(const TemplateVariables&) = delete;
  TemplateVariables& operator=(const TemplateVariables&) = delete;
  std::size_t json_bytes() const { return json_bytes_; }

 private:
  friend std::string render_template(std::string_view source, const TemplateVariables& variables,
                                     std::size_t max_bytes);
  void* handle_ = nullptr;
  std::size_t json_bytes_ = 0;
};

/// Throws Error(kInvalid) with the line if the template does not parse.
void check_template(std::string_view source);

/// Renders as transformers does. Throws Error with the line if the template raises, runs too long
/// (1 million instructions and 64 more for each byte of the variables) or writes too much
/// (max_bytes and 16 times the variables; four times that with the text in between).
std::string render_template(std::string_view source, const TemplateVariables& variables,
                            std::size_t max_bytes);

}  // namespace kogia
