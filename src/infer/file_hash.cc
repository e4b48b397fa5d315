#include "infer/file_hash.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
using std::string_view;

constexpr Index kPiece = Index{16} << 20;
/// A file written to twice within a tick of its clock shows one time: only an older one is known.
constexpr std::int64_t kSettledSeconds = 2;

std::span<const std::byte> bytes_of(string_view text) { return std::as_bytes(std::span(text)); }

Hash128 compute(const MappedFile& file, Device& device, const FileHashOptions& options) {
  std::vector<Hash128> pieces(static_cast<std::size_t>(ceil_div(file.size(), kPiece)));
  device.parallel(static_cast<Index>(pieces.size()), [&](Index i) {
    throw_if_interrupted();
    const Index begin = i * kPiece, n = std::min(kPiece, file.size() - begin);
    const auto bytes =
        file.bytes().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n));
    file.advise_sequential(begin, n);
    pieces[static_cast<std::size_t>(i)] = hash_bytes_128(bytes);
    if (options.release) file.advise_dontneed(begin, n);
    if (options.on_bytes) options.on_bytes(n);
  });
  return hash_bytes_128(std::as_bytes(std::span(pieces)));
}

/// All by which a file is known again. Every write changes its ctime, whatever is done to mtime.
/// Nothing where the file is too young, or is another one than was mapped.
std::optional<std::string> identity_of(const MappedFile& file) {
  std::error_code error;
  const fs::path path = fs::canonical(file.name(), error);
  struct stat info{};
  if (error || ::stat(path.c_str(), &info) != 0) return {};
  const auto ns = [](const timespec& t) { return t.tv_sec * 1'000'000'000 + t.tv_nsec; };
  if (ns(info.st_mtim) != file.mtime_ns() || info.st_size != file.size()) return {};
  if (std::max(info.st_mtim.tv_sec, info.st_ctim.tv_sec) + kSettledSeconds > ::time(nullptr)) {
    return {};
  }
  return fmt::format("kogia-hash 1\n{}\n{} {} {} {} {}\n", path.string(), info.st_size,
                     ns(info.st_mtim), ns(info.st_ctim), info.st_dev, info.st_ino);
}

fs::path place_of(const fs::path& cache_folder, const std::string& identity) {
  return cache_folder / "hashes" / hash_bytes_128(bytes_of(identity)).hex();
}

/// The file is the identity, the hash, and a hash of both.
std::string record_of(const std::string& identity, const Hash128& hash) {
  const std::string text =
      fmt::format("{}{:016x} {:016x}\n", identity, hash.words[0], hash.words[1]);
  return fmt::format("{}{:016x}\n", text, hash_bytes(bytes_of(text)));
}

std::optional<Hash128> find_kept(const fs::path& place, const std::string& identity) {
  std::ifstream in(place, std::ios::binary);
  std::string record(identity.size() + 64, '\0');  // longer than a right one
  in.read(record.data(), static_cast<std::streamsize>(record.size()));
  record.resize(static_cast<std::size_t>(in.gcount()));
  if (record.size() < identity.size() + 33) return {};
  Hash128 hash;
  for (const std::size_t i : {0u, 1u}) {
    const char* digits = record.data() + identity.size() + 17 * i;
    std::from_chars(digits, digits + 16, hash.words[i], 16);
  }
  if (record != record_of(identity, hash)) return {};
  return hash;
}

void keep(const fs::path& place, const std::string& identity, const Hash128& hash) {
  try {
    fs::create_directories(place.parent_path());
    write_file_atomically(place, record_of(identity, hash));
  } catch (const std::exception& e) {  // read-only, full: it is computed again
    log_debug("{}", e.what());
  }
}

}  // namespace

Hash128 file_hash(const MappedFile& file, Device& device, const FileHashOptions& options) {
  const auto identity = options.cache_folder.empty() ? std::nullopt : identity_of(file);
  if (!identity) return compute(file, device, options);
  const fs::path place = place_of(options.cache_folder, *identity);
  if (const auto kept = find_kept(place, *identity)) {
    if (options.on_bytes) options.on_bytes(file.size());
    return *kept;
  }
  const Hash128 hash = compute(file, device, options);
  if (identity_of(file) == identity) keep(place, *identity, hash);
  return hash;
}

}  // namespace kogia
