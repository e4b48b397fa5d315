#include "cli/prompt_file.h"

#include <algorithm>
#include <limits>
#include <span>
#include <unordered_map>

#include "base/error.h"
#include "base/hash.h"
#include "base/interrupt.h"
#include "cli/prompt.h"

namespace kogia::cli {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::size_t kMostIgnored = 20;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
}

}  // namespace

PromptFile PromptFile::open(const std::string& path) {
  PromptFile file;
  file.name_ = path == "-" ? "standard input" : path;
  if (is_stream(path)) {
    file.stream_ = read_text(path);
  } else {
    file.file_ = MappedFile::open(path);
  }
  file.find_lines();
  if (file.lines_.empty()) {
    throw Error(ErrorCode::kInvalid, file.name_ + ": holds no request",
                "a line is a JSON object, for example {\"messages\": [{\"role\": \"user\", "
                "\"content\": \"Hello\"}]}");
  }
  return file;
}

std::string_view PromptFile::text() const { return file_.size() > 0 ? file_.text() : stream_; }

void PromptFile::find_lines() {
  const std::string_view all = text();
  std::size_t begin = all.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  for (std::uint32_t number = 1; begin < all.size(); ++number) {
    const std::size_t end = std::min(all.find('\n', begin), all.size());
    if (end - begin > std::numeric_limits<std::uint32_t>::max() ||
        number == std::numeric_limits<std::uint32_t>::max()) {
      throw_error(ErrorCode::kInvalid, "{}:{}: more than four billion bytes or lines", name_,
                  number);
    }
    if (!is_blank(all.substr(begin, end - begin))) {
      lines_.push_back({begin, static_cast<std::uint32_t>(end - begin), number});
    }
    begin = end + 1;
  }
}

std::string_view PromptFile::line(Index i) const {
  const Line& line = lines_[static_cast<std::size_t>(i)];
  return text().substr(line.begin, line.n_bytes);
}

std::string PromptFile::where(Index i) const {
  return fmt::format("{}:{}", name_, lines_[static_cast<std::size_t>(i)].number);
}

Index PromptPlan::request_of(Index slot) const {
  return std::ranges::upper_bound(first_slot, slot) - first_slot.begin() - 1;
}

PromptPlan check_prompts(const PromptFile& file) {
  PromptPlan plan;
  plan.first_slot.reserve(static_cast<std::size_t>(file.size()) + 1);
  plan.first_slot.push_back(0);
  std::unordered_map<std::uint64_t, Index> seen;  // hash of an id, the request that has it
  for (Index i = 0; i < file.size(); ++i) {
    throw_if_interrupted();
    const RequestLine line = file.parse(i);
    if (!line.id_json.empty()) {
      const auto [at, is_new] = seen.emplace(hash_bytes(std::as_bytes(std::span(line.id_json))), i);
      if (!is_new) {
        throw_error(ErrorCode::kInvalid, "{}: {} {} is that of {} too, expected one of its own",
                    file.where(i), line.id_key, line.id_json, file.where(at->second));
      }
    }
    for (const std::string& key : line.body.ignored) {
      const bool known = std::ranges::find(plan.ignored, key) != plan.ignored.end();
      if (!known && plan.ignored.size() < kMostIgnored) plan.ignored.push_back(key);
    }
    plan.first_slot.push_back(plan.first_slot.back() + line.body.n);
  }
  return plan;
}

}  // namespace kogia::cli
