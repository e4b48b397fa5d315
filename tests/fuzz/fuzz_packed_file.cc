// A file of packed weights from a stranger: read or refused; every matrix it promises is there.
// What is damaged is stopped by hashes, so it is read a second time with hashes that fit.

#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "formats/packed_file.h"

namespace {

using Bytes = std::vector<std::byte>;

void read(const Bytes& file) {
  try {
    unsigned sum = 0;
    for (const kogia::PackedEntry& e : kogia::parse_packed_file(file, "m.kpk").entries) {
      for (kogia::Index i = 0; i < e.n_bytes; ++i) {
        sum += std::to_integer<unsigned>(file[static_cast<std::size_t>(e.offset + i)]);
      }
    }
    volatile unsigned keep = sum;
    static_cast<void>(keep);
  } catch (const kogia::Error&) {
  }
}

template <class T>
void put(Bytes& file, std::size_t at, T value) {
  std::memcpy(file.data() + at, &value, sizeof(value));
}

/// Sizes and hashes as the reader expects them.
void mend(Bytes& file) {
  constexpr std::size_t kPrefix = 64;
  std::uint64_t table = 0;
  std::memcpy(&table, file.data() + 16, sizeof(table));
  if (table > file.size() - kPrefix) table = file.size() - kPrefix;
  put(file, 16, table);
  put(file, 24, std::uint64_t{file.size()});
  put(file, 32, kogia::hash_bytes(std::span(file).subspan(kPrefix, table)));
  put(file, 40, kogia::hash_bytes(std::span(file).first(40)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  Bytes file(bytes, bytes + size);
  read(file);
  if (size < 64) return 0;
  mend(file);
  read(file);
  return 0;
}
