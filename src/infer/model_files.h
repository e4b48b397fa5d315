#pragma once
// A planned model written whole, metadata, tokenizer and all: what `convert` and `quantize` share.

#include <filesystem>
#include <optional>
#include <vector>

#include "model/rewrite.h"

namespace kogia {

/// What a source says of its model, llama3's scaling included, which lies in a tensor of a GGUF.
ModelConfig config_of(const Checkpoint& source);

/// The type of a tensor in a GGUF whose matrices are of the `wanted` type, or unset as they are:
/// norms, biases and routers are f32, as llama.cpp wants them.
DType gguf_type(const TargetTensor& target, std::optional<DType> wanted);
/// The type most of the weights are in.
DType main_type(const std::vector<TargetTensor>& targets);

struct FileOptions {
  bool mtp = false;       // the targets hold multi-token prediction layers
  bool tokenizer = true;  // false: left out
  Index max_shard_bytes = Index{4} << 30;
  RewriteOptions rewrite = {};
};

/// Both say whether a tokenizer is in what they wrote. It appears whole or not at all.
bool write_gguf_file(const Checkpoint& source, const ModelConfig& config,
                     const std::vector<TargetTensor>& targets, std::uint32_t file_type,
                     const std::filesystem::path& path, const FileOptions& options);
/// With FP8 targets config.json says so.
bool write_folder_files(const Checkpoint& source, ModelConfig config,
                        const std::vector<TargetTensor>& targets, const std::filesystem::path& path,
                        const FileOptions& options);

}  // namespace kogia
