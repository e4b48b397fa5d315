#include "train/event_file.h"

#include <array>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/mapped_file.h"

namespace kogia {
namespace fs = std::filesystem;
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as memory has them");

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0);
    table[i] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kTable = make_table();

/// Checksums of data that may hold checksums are rotated and shifted.
std::uint32_t masked(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

template <class T>
void put(std::string& to, T value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <class T>
T get(std::string_view from) {
  T value;
  std::memcpy(&value, from.data(), sizeof(value));
  return value;
}

// Protocol Buffers: a field's number and type, then its value.
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void put_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += static_cast<char>(value | 0x80);
  to += static_cast<char>(value);
}

void put_key(std::string& to, int field, Wire wire) {
  put_varint(to, static_cast<std::uint64_t>(field << 3 | wire));
}

void put_bytes(std::string& to, int field, std::string_view bytes) {
  put_key(to, field, kBytes);
  put_varint(to, bytes.size());
  to += bytes;
}

// Event: wall_time 1, step 2, file_version 3, summary 5
std::string event(double wall_time, Index step) {
  std::string out;
  put_key(out, 1, kFixed64);
  put(out, wall_time);
  put_key(out, 2, kVarint);
  put_varint(out, static_cast<std::uint64_t>(step));
  return out;
}

/// The step of an event of ours: what stands behind wall_time.
Index step_of(std::string_view event) {
  constexpr std::size_t kStep = 1 + sizeof(double) + 1;
  std::uint64_t step = 0;
  for (std::size_t i = kStep, shift = 0; i < event.size() && shift < 64; ++i, shift += 7) {
    step |= static_cast<std::uint64_t>(event[i] & 0x7F) << shift;
    if ((event[i] & 0x80) == 0) break;
  }
  return static_cast<Index>(step);
}

constexpr std::size_t kHead = sizeof(std::uint64_t) + sizeof(std::uint32_t);
constexpr std::size_t kTail = sizeof(std::uint32_t);

/// Bytes of the whole records of steps up to `step`.
std::size_t kept_bytes(std::string_view text, Index step) {
  std::size_t at = 0;
  while (text.size() - at >= kHead + kTail) {
    const std::string_view length = text.substr(at, sizeof(std::uint64_t));
    const auto n = get<std::uint64_t>(length);
    if (get<std::uint32_t>(text.substr(at + sizeof(n))) != masked(length)) break;
    if (n > text.size() - at - kHead - kTail) break;
    const std::string_view event = text.substr(at + kHead, n);
    if (get<std::uint32_t>(text.substr(at + kHead + n)) != masked(event)) break;
    if (step_of(event) > step) break;
    at += kHead + n + kTail;
  }
  return at;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0U;
  for (const char c : bytes) {
    crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  }
  return ~crc;
}

EventFile::EventFile(fs::path file, Index step) : file_(std::move(file)) {
  std::error_code failed;
  fs::create_directories(file_.parent_path(), failed);
  std::size_t kept = 0;
  if (fs::exists(file_)) {
    kept = kept_bytes(MappedFile::open(file_).text(), step);
    fs::resize_file(file_, kept, failed);
  }
  out_.open(file_, std::ios::app | std::ios::binary);
  if (!out_ || failed) throw_error(ErrorCode::kIo, "{}: cannot be written", file_.string());
  if (kept > 0) return;
  std::string version = event(0, 0);
  put_bytes(version, 3, "brain.Event:2");
  write(version);
}

void EventFile::add(Index step, double wall_time, const std::vector<Scalar>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;  // Summary.Value: tag 1, simple_value 2
    put_bytes(value, 1, tag);
    put_key(value, 2, kFixed32);
    put(value, static_cast<float>(number));
    put_bytes(summary, 1, value);
  }
  std::string out = event(wall_time, step);
  put_bytes(out, 5, summary);
  write(out);
}

void EventFile::write(std::string_view event) {
  std::string record;
  put(record, static_cast<std::uint64_t>(event.size()));
  put(record, masked(record));
  record += event;
  put(record, masked(event));
  out_.write(record.data(), static_cast<std::streamsize>(record.size()));
  out_.flush();
  if (!out_) throw_error(ErrorCode::kIo, "{}: cannot be written", file_.string());
}

}  // namespace kogia
