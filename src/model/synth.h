#pragma once
// Checkpoints with random weights of sane scales, for tests and measurements.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/index.h"

namespace kogia {

struct SynthOptions {
  std::string name;  // one of synth_names()
  std::string weights =
      "BF16";  // one of synth_weights(); rows that a K-quant cannot hold fall back
  std::filesystem::path output;  // ends in .gguf: one file with a dummy tokenizer; else a folder
  std::uint64_t seed = 0;        // the same seed, the same bytes, whatever n_threads is
  int n_threads = 0;             // 0: all cores
  std::function<void(Index done_bytes, Index total_bytes)> on_progress = {};  // one call at a time
};

/// "mini", "v2-lite", "r1-distill-qwen-1.5b", "v3-tiny".
std::vector<std::string> synth_names();
/// "BF16", "FP8", "Q8_0", "Q4_K", "Q5_K", "IQ4_NL", "MXFP4".
std::vector<std::string> synth_weights();

/// Writes it as a stream: a file of 10 GB needs no 10 GB of memory. Appears whole or not at all.
/// Ctrl-C  is looked for between rows (base/interrupt.h) and leaves nothing behind
/// Errors  an unknown name, or weights that the container cannot hold (FP8 in a GGUF, K-quants in a
///         folder), is a usage error; what the disk refuses names the file
void synthesize(const SynthOptions& options);

}  // namespace kogia
