#pragma once
// A file with a request on each line.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"
#include "base/mapped_file.h"
#include "infer/request_json.h"

namespace kogia::cli {

/// Lines are found once and parsed as they are needed, so that memory holds the file (mapped) and
/// sixteen bytes a line.
class PromptFile {
 public:
  /// A file; "-" (standard input) and pipes are read to their end. Throws Error where there is no
  /// such file, or no line that holds anything.
  static PromptFile open(const std::string& path);

  /// Lines that are not blank: the requests.
  Index size() const { return static_cast<Index>(lines_.size()); }
  std::string_view line(Index i) const;
  /// Throws Error that begins with where(i).
  RequestLine parse(Index i) const { return parse_request_line(line(i), where(i)); }
  /// "prompts.jsonl:17"
  std::string where(Index i) const;

 private:
  struct Line {
    std::uint64_t begin = 0;
    std::uint32_t n_bytes = 0, number = 0;
  };
  std::string_view text() const;
  void find_lines();

  std::string name_;
  MappedFile file_;
  std::string stream_;  // what was read from a pipe
  std::vector<Line> lines_;
};

/// What a look at every line has found: nothing is wrong with them.
struct PromptPlan {
  std::vector<Index> first_slot;     // of the answers to request i; one more at the end
  std::vector<std::string> ignored;  // keys that say nothing to us, each once
  Index n_slots() const { return first_slot.back(); }
  /// Which request a slot belongs to.
  Index request_of(Index slot) const;
};

/// Parses every line. Throws the Error of the first bad one, and for an id that two have.
PromptPlan check_prompts(const PromptFile& file);

}  // namespace kogia::cli
