#pragma once
// Writes GGUF v3 (layout: gguf_reader.h).

#include <cstdint>
#include <functional>
#include <set>

#include "base/atomic_file.h"
#include "formats/tensor_writer.h"

namespace kogia {

class GgufWriter : public TensorWriter {
 public:
  explicit GgufWriter(std::filesystem::path file);

  // Keys, before begin(). Each key once; general.alignment is the writer's own affair.
  void set(std::string_view key, std::uint32_t value);
  void set(std::string_view key, float value);
  void set(std::string_view key, bool value);
  void set(std::string_view key, std::string_view value);
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, std::span<const std::string> values);
  void set(std::string_view key, std::span<const std::int32_t> values);
  void set(std::string_view key, std::span<const float> values);

  /// A key of another file as it lies there (GgufStoredKey).
  void set_stored(std::string_view key, std::span<const std::byte> type_and_value);

  void begin() override;
  void commit() override;

 protected:
  void begin_tensor(std::size_t) override {}
  void append_to_tensor(std::span<const std::byte> bytes) override { file_.append(bytes); }
  void end_tensor(std::size_t) override;

 private:
  void key(std::string_view name);
  void key(std::string_view name, std::uint32_t type);
  template <class T>
  void numbers(std::string_view name, std::uint32_t type, std::span<const T> values);

  AtomicFile file_;
  std::string keys_;  // as they will lie in the file
  std::set<std::string, std::less<>> names_;
  bool begun_ = false;
};

}  // namespace kogia
