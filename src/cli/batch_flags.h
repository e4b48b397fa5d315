#pragma once
// Flags of commands that answer many requests at once.

#include <string>
#include <vector>

#include "cli/command_line.h"
#include "infer/batcher.h"

namespace kogia::cli {

struct BatchFlags {
  std::string speculate = "none";
  Index max_sequences = 256, step_tokens = 0;

  /// --speculate
  std::vector<OptionRow> rows();
  /// --max-sequences, --step-tokens
  std::vector<OptionRow> many_rows();

  BatcherOptions options() const;
};

}  // namespace kogia::cli
