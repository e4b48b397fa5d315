#pragma once
// A checkpoint again with smaller weights: any of ours into a GGUF of llama.cpp's mixtures, or into
// a folder as DeepSeek's FP8. The stream is that of model/rewrite.h.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/imatrix.h"
#include "formats/quantize_types.h"

namespace kogia {

struct QuantizeOptions {
  Quantization target = Quantization::kQ8_0;
  const ImportanceMatrix* importance = nullptr;  // of GGUF types
  /// Of FP8: tensors whose names contain one of these stay in bf16.
  std::vector<std::string> keep_bf16 = {};
  bool mtp = false;  // multi-token prediction layers of a folder into a GGUF; others keep theirs
  int n_threads = 0;
  /// Bytes of the target that are done. Ctrl-C is looked for between calls (throws).
  std::function<void(Index done, Index total)> on_progress = {};
};

struct QuantizeReport {
  Index bytes_before = 0, bytes_after = 0;      // of all tensors
  std::map<std::string, Index> tensors;         // how many of each type were written
  std::vector<std::string> fallbacks;           // "NAME: rows of 576 values: q5_0"
  std::vector<std::string> without_importance;  // quantised, and not in the importance matrix
  Index n_requantized = 0;                      // whose source was quantised already, differently
  bool left_out_mtp = false;
};

/// GGUF types: a GGUF at `target`. Of a GGUF the tensors and metadata as they are but for their
/// types; of a folder what `convert` writes. Where the importance matrix knows none of the tensors,
/// or one of another size, throws Error.
///
/// kFp8: a folder at `target` as `convert` writes it, with FP8 weights in blocks of 128 x 128: E4M3
/// weights, f32 X.weight_scale_inv beside them, the rest in bf16 (e_score_correction_bias in f32),
/// and quantization_config in config.json. A part of keep_bf16 that no such weight's name contains
/// throws Error kUsage.
///
/// The same bytes for any number of threads. Nothing is at `target` before it is whole.
QuantizeReport quantize_checkpoint(const Checkpoint& source, const std::filesystem::path& target,
                                   const QuantizeOptions& options);

}  // namespace kogia
