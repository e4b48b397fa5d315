#pragma once
// A checkpoint from one container into another: safetensors folder <-> GGUF, any type into any.

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "formats/checkpoint.h"
#include "model/rewrite.h"

namespace kogia {

struct ConvertOptions {
  /// Of matrices; unset: as in the source (FP8 becomes bf16; in a folder GGUF's blocks do too).
  /// Norms, biases and routers are f32 in a GGUF, as llama.cpp wants them.
  std::optional<DType> type = {};
  bool mtp = false;       // multi-token prediction layers in a GGUF (folders keep them)
  bool tokenizer = true;  // false: left out
  Index max_shard_bytes = Index{4} << 30;
  int n_threads = 0;
  std::function<void(Index done_bytes, Index total_bytes)> on_progress = {};
};

struct ConvertReport {
  Index n_bytes = 0;                     // of tensors
  std::map<std::string, Index> tensors;  // how many of each type
  bool has_tokenizer = false;
  bool left_out_mtp = false;
};

/// `target` ends in .gguf: one file; else a folder to make. Appears whole or not at all; the same
/// bytes for any number of threads.
/// Errors  what is there already and not empty, a target that is the source, a type that the
///         container or the row cannot hold: Error kUsage; what the other format cannot say:
///         kUnsupported naming it
ConvertReport convert_checkpoint(const Checkpoint& source, const std::filesystem::path& target,
                                 const ConvertOptions& options);

/// Types that `convert` writes, as its flag spells them.
std::vector<std::string> convert_types();

}  // namespace kogia
