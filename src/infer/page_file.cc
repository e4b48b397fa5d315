#include "infer/page_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

namespace kogia {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are written as they lie in memory");

using Bytes = std::vector<std::byte>;

constexpr std::string_view kMagic = "KOGIAPAG";
constexpr std::uint32_t kVersion = 1;
constexpr Index kChecksumBytes = sizeof(Hash128);
constexpr Index kFixedBytes = 8 + 4 + 4 + 8 + 3 * 16;  // before the ids

template <class T>
void append(Bytes& bytes, std::span<const T> values) {
  const std::size_t at = bytes.size();  // (g++ 12 takes an insert() here for an overflow)
  bytes.resize(at + values.size_bytes());
  std::memcpy(bytes.data() + at, values.data(), values.size_bytes());
}
template <class T>
void append(Bytes& bytes, const T& value) {
  append(bytes, std::span<const T>(&value, 1));
}

/// All that stands before the checksum.
Bytes head_of(const PageTag& tag, std::size_t page_bytes) {
  Bytes head;
  head.reserve(static_cast<std::size_t>(kFixedBytes) + tag.ids.size() * sizeof(TokenId));
  append(head, std::span(kMagic));
  append(head, kVersion);
  append(head, static_cast<std::uint32_t>(tag.ids.size()));
  append(head, std::uint64_t{page_bytes});
  append(head, tag.fingerprint);
  append(head, tag.key);
  append(head, tag.before);
  append(head, std::span(tag.ids));
  return head;
}

Hash128 checksum(std::span<const std::byte> head, std::span<const std::byte> page) {
  Hasher128 hasher;
  hasher.update(head);
  hasher.update(page);
  return hasher.finish();
}

bool read_all(int fd, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::read(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return true;
}

}  // namespace

Index page_file_bytes(Index n_ids, Index page_bytes) {
  return kFixedBytes + n_ids * static_cast<Index>(sizeof(TokenId)) + kChecksumBytes + page_bytes;
}

bool write_page(const FileDescriptor& fd, const PageTag& tag, std::span<const std::byte> page) {
  Bytes head = head_of(tag, page.size());
  append(head, checksum(head, page));
  return write_all(fd, head) && write_all(fd, page);
}

bool read_page(const FileDescriptor& fd, const PageTag& tag, std::span<std::byte> page) {
  struct stat info{};
  const Index expected_bytes =
      page_file_bytes(static_cast<Index>(tag.ids.size()), static_cast<Index>(page.size()));
  if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode) || info.st_size != expected_bytes) {
    return false;
  }
  const Bytes expected = head_of(tag, page.size());
  Bytes head(expected.size());
  Hash128 sum;
  if (!read_all(fd.get(), head) || head != expected ||
      !read_all(fd.get(), std::as_writable_bytes(std::span(&sum, 1)))) {
    return false;
  }
  if (read_all(fd.get(), page) && checksum(head, page) == sum) return true;
  std::ranges::fill(page, std::byte{0});
  return false;
}

}  // namespace kogia
