#pragma once
// A checkpoint that lives in memory: what is trained is loaded from here as from a file.

#include <map>

#include "formats/checkpoint.h"

namespace kogia {

/// Tensors of official names and the config.json that describes them. Add everything, then load.
/// Ownership  the checkpoint owns the bytes; they stay where they are and may be rewritten
/// Threads    as of any container
class MemoryCheckpoint final : public Checkpoint {
 public:
  /// `path` is what messages call it.
  MemoryCheckpoint(std::string path, std::string config_json);
  ~MemoryCheckpoint() override;

  /// Zeros, at a multiple of 64. The name must be new.
  std::byte* add(std::string name, DType dtype, std::vector<Index> shape);
  /// Those of a tensor that is there.
  std::byte* data(std::string_view name);

  CheckpointKind kind() const override { return CheckpointKind::kSafetensors; }
  std::string path() const override { return path_; }
  const std::vector<TensorEntry>& tensors() const override { return tensors_; }
  const TensorEntry* find(std::string_view name) const override;
  std::optional<std::string> text_file(std::string_view file_name) const override;
  const GgufFile* gguf() const override { return nullptr; }
  std::span<const MappedFile> files() const override;

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::string path_, config_json_;
  std::vector<TensorEntry> tensors_;
  std::vector<std::unique_ptr<std::byte, Free>> memory_;  // of tensors_
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace kogia
