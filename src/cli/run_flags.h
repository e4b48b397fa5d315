#pragma once
// The flags of `kogia run`, for one prompt and for a file of them.

#include <optional>
#include <string>

#include "cli/batch_flags.h"
#include "cli/flags.h"

namespace kogia::cli {

struct RunFlags {
  std::string model, ids_file, system, prompts, out;
  std::optional<std::string> text;
  bool raw = false, json = false, logprobs = false;
  StopFlags stop;
  SamplingFlags sampling;
  BatchFlags batch;
  EngineFlags engine;
};

/// With --prompts. Refuses what contradicts itself, before anything is read.
void check_many(const RunFlags& f);
/// Answers all of --prompts; the exit code.
int run_many(const RunFlags& f);

}  // namespace kogia::cli
