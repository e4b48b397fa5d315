#pragma once
// A checkpoint again with smaller weights. Streams: memory holds a few megabytes of rows a thread,
// whatever the size of the model.

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "formats/imatrix.h"
#include "formats/quantize_types.h"

namespace kogia {

struct QuantizeOptions {
  Quantization target = Quantization::kQ8_0;
  const ImportanceMatrix* importance = nullptr;
  int n_threads = 0;
  /// Bytes of the source that are done. Ctrl-C is looked for between calls (throws).
  std::function<void(Index done, Index total)> on_progress = {};
};

struct QuantizeReport {
  Index bytes_before = 0, bytes_after = 0;      // of all tensors
  std::map<std::string, Index> tensors;         // how many of each type were written
  std::vector<std::string> fallbacks;           // "NAME: rows of 576 values: q5_0"
  std::vector<std::string> without_importance;  // quantised, and not in the importance matrix
  Index n_requantized = 0;                      // whose source was quantised already, differently
};

/// A GGUF into a GGUF at `target`, its metadata as they are but for the type of the file. Where the
/// importance matrix knows none of the tensors, or one of another size, throws Error.
/// The same bytes for any number of threads. Nothing is at `target` before it is whole.
QuantizeReport quantize_gguf(const Checkpoint& source, const std::filesystem::path& target,
                             const QuantizeOptions& options);

/// A Hugging Face folder into one with FP8 weights in blocks of 128 x 128, as DeepSeek's: E4M3
/// weights, f32 X.weight_scale_inv beside them, the rest in bf16 (e_score_correction_bias as it
/// is), quantization_config in config.json, and the tokenizer's files.
QuantizeReport quantize_fp8_folder(const Checkpoint& source, const std::filesystem::path& target,
                                   const QuantizeOptions& options);

}  // namespace kogia
