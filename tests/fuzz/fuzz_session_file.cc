// A saved session from a stranger: read or refused; every page it promises is there. What is
// damaged is stopped by checksums, so it is read a second time with checksums that fit.

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "infer/session_file.h"

namespace {

using Bytes = std::vector<std::byte>;
constexpr kogia::Index kPageBytes = 32;
const std::string kFingerprint = "weights: 12\ndevice: cpu/avx2\n";

void read(const Bytes& file) {
  try {
    const auto session = kogia::parse_session_file(file, "s", kFingerprint, kPageBytes);
    if (session.pages.size() != session.ids.size() / 64) std::abort();
    for (const auto& page : session.pages) {
      if (page.size() != kPageBytes) std::abort();
    }
  } catch (const kogia::Error&) {
  }
}

template <class T>
T number_at(const Bytes& file, std::size_t at) {
  T value;
  std::memcpy(&value, file.data() + at, sizeof(value));
  return value;
}

/// Checksums as the reader expects them, wherever the sizes put them.
void mend(Bytes& file) {
  constexpr std::size_t kHead = 32, kSum = sizeof(kogia::Hash128);
  if (file.size() < kHead + 2 * kSum) return;
  const std::size_t room = file.size() - kHead - 2 * kSum;
  const std::size_t text = number_at<std::uint32_t>(file, 12);
  const auto n_ids = number_at<std::uint64_t>(file, 24);
  if (text > room || n_ids > (room - text) / 4) return;
  const std::size_t front = kHead + text + 4 * static_cast<std::size_t>(n_ids);
  const std::size_t back = file.size() - kSum;
  const auto put = [&](std::size_t at, std::span<const std::byte> what) {
    const kogia::Hash128 hash = kogia::hash_bytes_128(what);
    std::memcpy(file.data() + at, &hash, kSum);
  };
  put(front, std::span(file).first(front));
  put(back, std::span(file).subspan(front + kSum, back - front - kSum));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  Bytes file(bytes, bytes + size);
  read(file);
  mend(file);
  read(file);
  return 0;
}
