#include "hub/content_range.h"

#include <charconv>
#include <optional>

#include "base/error.h"

namespace kogia::hub {
namespace {

// Takes a number off the front of the text.
std::optional<Index> take_number(std::string_view& text) {
  Index value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || value < 0) return {};
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

}  // namespace

void check_content_range(const Response& response, Index first, Index last, const RemoteFile& file,
                         const std::string& host) {
  const std::string* header = response.header("content-range");
  const std::string found = header != nullptr ? *header : "no Content-Range";
  std::string_view text = found;
  std::optional<Index> begin, end, size;
  const bool parsed = take(text, "bytes ") && (begin = take_number(text)) && take(text, "-") &&
                      (end = take_number(text)) && take(text, "/") &&
                      (text == "*" || ((size = take_number(text)) && text.empty()));
  const bool size_fits = !size || *size == file.size;
  if (parsed && begin == first && *end >= first && *end <= last && size_fits) return;
  throw_error(ErrorCode::kInvalid,
              "{}: {}: answers '{}', asked for bytes {}-{} of a file that its listing gives {}",
              host, file.path, found, first, last, file.size);
}

}  // namespace kogia::hub
