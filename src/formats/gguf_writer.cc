#include "formats/gguf_writer.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "formats/gguf_reader.h"

namespace kogia {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are written as they lie in memory");

constexpr Index kAlignment = 32;  // the default, so that no key needs to say it

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}
void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint64_t>(text.size()));
  out.append(text);
}

constexpr std::uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9;

}  // namespace

GgufWriter::GgufWriter(std::filesystem::path file) : file_(std::move(file)) {}

void GgufWriter::key(std::string_view name) {
  KOGIA_CHECK(!begun_ && name != "general.alignment");
  KOGIA_CHECK(names_.emplace(name).second);
  put_text(keys_, name);
}
void GgufWriter::key(std::string_view name, std::uint32_t type) {
  key(name);
  put(keys_, type);
}
void GgufWriter::set_stored(std::string_view name, std::span<const std::byte> type_and_value) {
  key(name);
  keys_.append(reinterpret_cast<const char*>(type_and_value.data()), type_and_value.size());
}
void GgufWriter::set(std::string_view name, std::uint32_t value) {
  key(name, kU32);
  put(keys_, value);
}
void GgufWriter::set(std::string_view name, float value) {
  key(name, kF32);
  put(keys_, value);
}
void GgufWriter::set(std::string_view name, bool value) {
  key(name, kBool);
  put(keys_, static_cast<std::uint8_t>(value));
}
void GgufWriter::set(std::string_view name, std::string_view value) {
  key(name, kString);
  put_text(keys_, value);
}
void GgufWriter::set(std::string_view name, std::span<const std::string> values) {
  key(name, kArray);
  put(keys_, kString);
  put(keys_, static_cast<std::uint64_t>(values.size()));
  for (const std::string& value : values) put_text(keys_, value);
}
template <class T>
void GgufWriter::numbers(std::string_view name, std::uint32_t type, std::span<const T> values) {
  key(name, kArray);
  put(keys_, type);
  put(keys_, static_cast<std::uint64_t>(values.size()));
  for (const T value : values) put(keys_, value);
}
void GgufWriter::set(std::string_view name, std::span<const std::int32_t> values) {
  numbers(name, kI32, values);
}
void GgufWriter::set(std::string_view name, std::span<const float> values) {
  numbers(name, kF32, values);
}

void GgufWriter::begin() {
  KOGIA_CHECK(!begun_);
  begun_ = true;
  std::string head = "GGUF";
  put(head, std::uint32_t{3});
  put(head, static_cast<std::uint64_t>(tensors_.size()));
  put(head, static_cast<std::uint64_t>(names_.size()));
  head += keys_;
  Index offset = 0;
  for (const Declared& t : tensors_) {
    KOGIA_CHECK(!t.shape.empty() && t.shape.size() <= 4);
    put_text(head, t.name);
    put(head, static_cast<std::uint32_t>(t.shape.size()));
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d)
      put(head, static_cast<std::uint64_t>(*d));
    const auto type = gguf_type_number(t.dtype);
    KOGIA_CHECK(type);
    put(head, *type);
    put(head, static_cast<std::uint64_t>(offset));
    offset = round_up(offset + t.n_bytes, kAlignment);
  }
  require_space(file_.target(), static_cast<Index>(head.size()) + offset);
  file_.append(head);
  file_.append_zeros(round_up(file_.size(), kAlignment) - file_.size());
}

void GgufWriter::end_tensor(std::size_t) {
  file_.append_zeros(round_up(file_.size(), kAlignment) - file_.size());
}

void GgufWriter::commit() {
  KOGIA_CHECK(all_written());
  file_.commit();
}

}  // namespace kogia
