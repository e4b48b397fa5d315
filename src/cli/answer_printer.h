#pragma once
// An answer as it grows, on standard output.

#include <optional>
#include <string>

#include "base/progress.h"
#include "cli/output.h"
#include "infer/generate.h"

namespace kogia::cli {

/// On a terminal thoughts are shown dimmed before the answer; elsewhere only the answer is written.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool terminal) : terminal_(terminal) {}
  /// An error in the middle of a thought does not leave the terminal dim.
  ~AnswerPrinter();
  AnswerPrinter(const AnswerPrinter&) = delete;
  AnswerPrinter& operator=(const AnswerPrinter&) = delete;
  void print(const GeneratedPiece& piece);
  /// Ends the line.
  void finish();

 private:
  enum class Part { kNone, kReasoning, kContent };
  void enter(Part part);

  bool terminal_;
  Part part_ = Part::kNone;
  bool at_line_begin_ = true;
};

/// How far a long prompt is read, on a terminal.
class PrefillProgress {
 public:
  explicit PrefillProgress(bool quiet) : quiet_(quiet || !err_is_terminal()) {}
  void operator()(Index done, Index total);
  void finish() { bar_.reset(); }

 private:
  bool quiet_;
  std::optional<Progress> bar_;
};

/// "37 tokens, 21.4 tok/s; prompt 120 tokens (12 new), 310.0 tok/s; stopped by Ctrl-C"
std::string speed_line(const Generation& generation);

}  // namespace kogia::cli
