#include "hub/names.h"

#include <algorithm>

#include "base/error.h"

namespace kogia::hub {
namespace {

constexpr std::size_t kMaxName = 96, kMaxComponent = 255, kMaxPath = 1024, kMaxDepth = 16;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// The hub's rules: letters, digits, '-', '_', '.'; neither "--" (it stands for the slash in the
// cache's folders) nor ".."; no '-' or '.' at the ends.
bool is_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxName) return false;
  const auto fine = [](char c) { return is_word(c) || c == '-' || c == '.'; };
  if (!std::ranges::all_of(name, fine)) return false;
  if (!is_word(name.front()) || !is_word(name.back())) return false;
  return name.find("--") == std::string_view::npos && name.find("..") == std::string_view::npos &&
         !name.ends_with(".git");
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

}  // namespace

std::string ModelName::text() const {
  std::string out = repository;
  if (revision != "main") out += "@" + revision;
  if (!file.empty()) out += ":" + file;
  return out;
}

std::optional<ModelName> parse_model_name(std::string_view text) {
  ModelName name;
  if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    name.file = text.substr(colon + 1);
    text = text.substr(0, colon);
    if (!is_safe_path(name.file)) return {};
  }
  if (const std::size_t at = text.find('@'); at != std::string_view::npos) {
    name.revision = text.substr(at + 1);
    text = text.substr(0, at);
    if (!is_revision(name.revision)) return {};
  }
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return {};
  if (!is_name(text.substr(0, slash)) || !is_name(text.substr(slash + 1))) return {};
  name.repository = text;
  return name;
}

bool is_safe_path(std::string_view path) {
  if (path.empty() || path.size() > kMaxPath) return false;
  if (std::ranges::any_of(path, [](char c) { return is_control(c) || c == '\\'; })) return false;
  for (std::size_t begin = 0, depth = 1; begin <= path.size(); ++depth) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view component = path.substr(begin, end - begin);
    if (component.empty() || component == "." || component == "..") return false;
    if (component.size() > kMaxComponent || depth > kMaxDepth) return false;
    begin = end + 1;
  }
  return true;
}

void require_safe_path(std::string_view path, std::string_view where) {
  if (is_safe_path(path)) return;
  constexpr std::size_t kShown = 100;
  std::string shown(path.substr(0, kShown));
  std::ranges::replace_if(shown, is_control, '?');  // a zero byte would end the message
  throw Error(ErrorCode::kInvalid,
              fmt::format("{}: '{}' is no name of a file inside a repository", where, shown),
              "nothing was written for it; do not trust this server");
}

bool is_revision(std::string_view text) {
  return is_safe_path(text) && text.find_first_of(" ~^:?*[") == std::string_view::npos &&
         text.front() != '-';
}

bool is_hex(std::string_view text, std::size_t n) {
  return text.size() == n && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool is_commit(std::string_view text) { return is_hex(text, 40); }
bool is_blob(std::string_view text) { return is_hex(text, 40) || is_hex(text, 64); }

std::string url_encode(std::string_view text, bool keep_slash) {
  std::string out;
  for (const char c : text) {
    if (is_word(c) || c == '-' || c == '.' || c == '~' || (c == '/' && keep_slash)) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace kogia::hub
