#include "formats/packed_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "base/error.h"
#include "base/hash.h"

namespace kogia {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are read as they lie in the file");

constexpr std::string_view kMagic = "KOGIAKPK";
constexpr std::uint32_t kVersion = 1, kByteOrder = 0x01020304;
constexpr Index kPrefixBytes = 64, kHashedPrefix = 40;
constexpr std::uint32_t kMaxText = 65535;
constexpr Index kLeastSource = 4 + 8 + 8 + 8, kLeastEntry = 4 + 4 + 4 + 8 + 8 + 8 + 8;

class Writer {
 public:
  template <class T>
  void number(T value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), p, p + sizeof(T));
  }
  void text(std::string_view t) {
    KOGIA_CHECK(t.size() <= kMaxText);
    number(static_cast<std::uint32_t>(t.size()));
    const auto* p = reinterpret_cast<const std::byte*>(t.data());
    bytes.insert(bytes.end(), p, p + t.size());
  }
  std::vector<std::byte> bytes;
};

/// A place in the table. Each read first asks whether the bytes are there.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string text() {
    const auto n = number<std::uint32_t>();
    if (n > kMaxText) fail("a text of {} bytes, expected at most {}", n, kMaxText);
    return {reinterpret_cast<const char*>(take(n)), n};
  }
  /// A size or an offset.
  Index index() {
    const auto n = number<std::uint64_t>();
    if (n > static_cast<std::uint64_t>(INT64_MAX)) fail("a size of {}", n);
    return static_cast<Index>(n);
  }
  /// How many things of at least `least` bytes follow.
  Index count(Index least) {
    const Index n = index();
    if (n > static_cast<Index>(bytes_.size()) / least) fail("{} items, more than it can hold", n);
    return n;
  }
  void expect_end() const {
    if (!bytes_.empty()) fail("{} bytes after the table", bytes_.size());
  }
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(ErrorCode::kInvalid, "{}: damaged: {}", name_,
                fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const std::byte* take(std::size_t n) {
    if (n > bytes_.size()) fail("it ends within the table");
    const std::byte* p = bytes_.data();
    bytes_ = bytes_.subspan(n);
    return p;
  }
  std::span<const std::byte> bytes_;
  const std::string& name_;
};

std::vector<std::byte> write_table(const PackedTable& table) {
  Writer w;
  w.number(static_cast<std::uint64_t>(table.sources.size()));
  for (const PackedSource& s : table.sources) {
    w.text(s.path);
    w.number(static_cast<std::uint64_t>(s.n_bytes));
    w.number(s.mtime_ns);
    w.number(s.head_hash);
  }
  w.number(static_cast<std::uint64_t>(table.entries.size()));
  for (const PackedEntry& e : table.entries) {
    w.text(e.id);
    w.text(e.form);
    w.number(static_cast<std::uint32_t>(e.variant));
    w.number(static_cast<std::uint64_t>(e.offset));
    w.number(static_cast<std::uint64_t>(e.n_bytes));
    w.number(e.source_hash);
    w.number(e.packed_hash);
  }
  return std::move(w.bytes);
}

PackedTable read_table(Reader& r) {
  PackedTable table;
  for (Index n = r.count(kLeastSource); n > 0; --n) {
    PackedSource& s = table.sources.emplace_back();
    s.path = r.text();
    s.n_bytes = r.index();
    s.mtime_ns = r.number<std::int64_t>();
    s.head_hash = r.number<std::uint64_t>();
  }
  for (Index n = r.count(kLeastEntry); n > 0; --n) {
    PackedEntry& e = table.entries.emplace_back();
    e.id = r.text();
    e.form = r.text();
    e.variant = static_cast<int>(r.number<std::uint32_t>());
    e.offset = r.index();
    e.n_bytes = r.index();
    e.source_hash = r.number<std::uint64_t>();
    e.packed_hash = r.number<std::uint64_t>();
  }
  r.expect_end();
  return table;
}

Index file_end(const PackedTable& table, Index begin) {
  return table.entries.empty() ? begin : table.entries.back().offset + table.entries.back().n_bytes;
}

void check_places(const PackedTable& table, Index begin, Index file_bytes, const Reader& r) {
  Index end = begin;
  for (const PackedEntry& e : table.entries) {
    if (e.offset % kPackedAlignment != 0 || e.offset < end || e.offset > file_bytes ||
        e.n_bytes > file_bytes - e.offset) {
      r.fail("{} is at {}, {} bytes", e.id, e.offset, e.n_bytes);
    }
    end = e.offset + e.n_bytes;
  }
  if (end != file_bytes) r.fail("its matrices end at {} of {} bytes", end, file_bytes);
}

template <class T>
T number_at(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

Index begin_after(Index table_bytes) {
  return round_up(kPrefixBytes + table_bytes, kPackedAlignment);
}

/// Its magic, version and hash are right: gives the size of the table.
Index check_prefix(std::span<const std::byte> file, const Reader& r, const std::string& name) {
  const auto magic = std::as_bytes(std::span(kMagic));
  if (file.size() < kPrefixBytes || !std::ranges::equal(file.first(magic.size()), magic)) {
    throw_error(ErrorCode::kInvalid, "{}: not a file of packed weights", name);
  }
  if (number_at<std::uint32_t>(file, 8) != kVersion ||
      number_at<std::uint32_t>(file, 12) != kByteOrder) {
    throw_error(ErrorCode::kInvalid, "{}: written by another version of Kogia", name);
  }
  if (number_at<std::uint64_t>(file, kHashedPrefix) != hash_bytes(file.first(kHashedPrefix))) {
    r.fail("its first bytes do not have their hash");
  }
  const auto table_bytes = number_at<std::uint64_t>(file, 16);
  const auto file_bytes = number_at<std::uint64_t>(file, 24);
  if (file_bytes != file.size()) r.fail("it has {} bytes, expected {}", file.size(), file_bytes);
  if (table_bytes > kMaxPackedTable || table_bytes > file.size() - kPrefixBytes) {
    r.fail("a table of {} bytes", table_bytes);
  }
  return static_cast<Index>(table_bytes);
}

}  // namespace

Index packed_data_begin(const PackedTable& table) {
  return begin_after(static_cast<Index>(write_table(table).size()));
}

std::vector<std::byte> write_packed_head(const PackedTable& table) {
  const std::vector<std::byte> body = write_table(table);
  const Index begin = begin_after(static_cast<Index>(body.size()));
  Writer w;
  for (const char c : kMagic) w.number(c);
  w.number(kVersion);
  w.number(kByteOrder);
  w.number(static_cast<std::uint64_t>(body.size()));
  w.number(static_cast<std::uint64_t>(file_end(table, begin)));
  w.number(hash_bytes(body));
  w.number(hash_bytes(w.bytes));
  w.bytes.resize(kPrefixBytes);
  w.bytes.insert(w.bytes.end(), body.begin(), body.end());
  w.bytes.resize(static_cast<std::size_t>(begin));
  return std::move(w.bytes);
}

PackedTable parse_packed_file(std::span<const std::byte> file, const std::string& name) {
  const Index table_bytes = check_prefix(file, Reader({}, name), name);
  const auto body = file.subspan(kPrefixBytes, static_cast<std::size_t>(table_bytes));
  Reader r(body, name);
  if (number_at<std::uint64_t>(file, 32) != hash_bytes(body)) r.fail("its table lacks its hash");
  PackedTable table = read_table(r);
  const Index begin = begin_after(table_bytes);
  const auto size = static_cast<Index>(file.size());
  if (begin > size) r.fail("it ends within the table");
  check_places(table, begin, size, r);
  return table;
}

}  // namespace kogia
