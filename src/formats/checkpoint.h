#pragma once
// A model on disk, whatever its format: named tensors, mapped, and the texts that lie beside them.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"
#include "tensor/view.h"

namespace kogia {

class GgufFile;
class MappedFile;

enum class CheckpointKind { kSafetensors, kGguf };

struct TensorEntry {
  std::string name;  // as in the file
  TensorView view;   // shape slowest first; a GGUF's `ne` is reversed
  std::string file;  // file name, for messages
};

/// An opened checkpoint. Everything is checked on opening (counts, offsets, shapes, overlaps,
/// lengths); tensor data is mapped and read only when touched.
///
/// Ownership  views point into mappings that live as long as the checkpoint
/// Errors     throws Error that names the file, tensor or key, what was found and what was expected
/// Threads    const and safe to share after opening
class Checkpoint {
 public:
  /// `path`: a directory (config.json + *.safetensors, or one *.gguf), a .gguf file (any part of a
  /// split set), or a .safetensors file with config.json beside it.
  static std::unique_ptr<Checkpoint> open(const std::filesystem::path& path);
  /// A directory or config.json alone, without weights (for `inspect`): tensors() is empty.
  static std::unique_ptr<Checkpoint> open_config_only(const std::filesystem::path& path);

  virtual ~Checkpoint() = default;
  virtual CheckpointKind kind() const = 0;
  virtual std::string path() const = 0;

  /// In file order.
  virtual const std::vector<TensorEntry>& tensors() const = 0;
  /// Null if there is none of that name.
  virtual const TensorEntry* find(std::string_view name) const = 0;
  /// Throws kNotFound naming the tensor and the checkpoint.
  const TensorEntry& require(std::string_view name) const;

  /// Bytes of config.json, tokenizer.json, tokenizer_config.json, generation_config.json or
  /// chat_template.jinja beside the weights; nullopt where there is none (always so for GGUF).
  virtual std::optional<std::string> text_file(std::string_view file_name) const = 0;
  /// The GGUF behind it (metadata, tokenizer); null for safetensors.
  virtual const GgufFile* gguf() const = 0;

  /// The files that hold the tensors.
  virtual std::span<const MappedFile> files() const = 0;
  /// Bytes of a tensor that are not needed soon: their pages stop counting as this program's
  /// memory, and come back when they are touched.
  void release(const std::byte* data, Index n) const;
};

}  // namespace kogia
