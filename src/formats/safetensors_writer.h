#pragma once
// Writes a Hugging Face folder: model.safetensors, or shards and their index, and config.json.

#include <optional>

#include "base/atomic_file.h"
#include "base/temporary.h"
#include "formats/tensor_writer.h"

namespace kogia {

/// The folder is made beside its final place and renamed by commit(); one that is there already and
/// is not empty is refused at once. What a killed process left of the same folder is removed.
class SafetensorsWriter : public TensorWriter {
 public:
  /// A shard ends before the tensor that would make it longer than max_shard_bytes.
  explicit SafetensorsWriter(std::filesystem::path folder, Index max_shard_bytes = Index{4} << 30);
  ~SafetensorsWriter() override;
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// Another file of the folder: config.json, tokenizer.json.
  void add_text(std::string_view file_name, std::string_view text);
  void begin() override;
  void commit() override;

 protected:
  void begin_tensor(std::size_t index) override;
  void append_to_tensor(std::span<const std::byte> bytes) override { file_->append(bytes); }
  void end_tensor(std::size_t index) override;

 private:
  struct Shard {
    std::size_t first, end;  // tensors [first, end)
  };
  std::string shard_name(std::size_t shard) const;
  std::string header(const Shard& shard) const;
  void write_index() const;

  std::filesystem::path target_;
  Temporary staging_;
  Index max_shard_bytes_;
  std::vector<Shard> shards_;
  std::size_t shard_ = 0;  // the one being written
  std::optional<AtomicFile> file_;
  bool committed_ = false;
};

}  // namespace kogia
