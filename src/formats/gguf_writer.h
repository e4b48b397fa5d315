#pragma once
// Writes GGUF v3 (layout: gguf_reader.h).

#include <cstdint>

#include "base/atomic_file.h"
#include "formats/tensor_writer.h"

namespace kogia {

class GgufWriter : public TensorWriter {
 public:
  explicit GgufWriter(std::filesystem::path file);

  // Keys, before begin(). Each key once.
  void set(std::string_view key, std::uint32_t value);
  void set(std::string_view key, float value);
  void set(std::string_view key, bool value);
  void set(std::string_view key, std::string_view value);
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, std::span<const std::string> values);
  void set(std::string_view key, std::span<const std::int32_t> values);

  void begin() override;
  void commit() override;

 protected:
  void begin_tensor(std::size_t) override {}
  void append_to_tensor(std::span<const std::byte> bytes) override { file_.append(bytes); }
  void end_tensor(std::size_t) override;

 private:
  void key(std::string_view name, std::uint32_t type);

  AtomicFile file_;
  std::string keys_;  // as they will lie in the file
  std::uint64_t n_keys_ = 0;
};

}  // namespace kogia
