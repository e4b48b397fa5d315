#include "infer/session_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "device/device.h"
#include "infer/cache_fingerprint.h"

namespace kogia {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are written as they lie in memory");

namespace fs = std::filesystem;
using Span = std::span<const std::byte>;

constexpr std::string_view kMagic = "KOGIASES";
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kMaxFingerprint = 65536;

/// What stands between magic and fingerprint.
struct Head {
  std::uint32_t version = kVersion, fingerprint_bytes = 0;
  std::uint64_t page_bytes = 0, n_ids = 0;
};
static_assert(sizeof(Head) == 24);

template <class T>
Span bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

/// A place in the file; each step first asks whether the bytes are there.
class Reader {
 public:
  Reader(Span bytes, const std::string& name) : all_(bytes), rest_(bytes), name_(name) {}

  Span take(std::uint64_t n) {
    if (n > rest_.size()) fail("it ends too early, after {} bytes", all_.size());
    const Span taken = rest_.first(static_cast<std::size_t>(n));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  template <class T>
  T value() {
    T v;
    std::memcpy(&v, take(sizeof(T)).data(), sizeof(T));
    return v;
  }
  Span so_far() const { return all_.first(all_.size() - rest_.size()); }
  std::size_t n_left() const { return rest_.size(); }

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(ErrorCode::kInvalid, "{}: damaged: {}", name_,
                fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  Span all_, rest_;
  const std::string& name_;
};

Head read_head(Reader& r, const std::string& name) {
  if (r.n_left() < kMagic.size() ||
      !std::ranges::equal(r.take(kMagic.size()), std::as_bytes(std::span(kMagic)))) {
    throw_error(ErrorCode::kInvalid, "{}: not a saved session", name);
  }
  const auto head = r.value<Head>();
  if (head.version != kVersion) {
    throw_error(ErrorCode::kInvalid, "{}: a session of version {}, expected {}", name, head.version,
                kVersion);
  }
  if (head.fingerprint_bytes > kMaxFingerprint) {
    r.fail("a fingerprint of {} bytes", head.fingerprint_bytes);
  }
  return head;
}

std::vector<TokenId> read_ids(Reader& r, std::uint64_t n) {
  if (n > r.n_left() / sizeof(TokenId)) r.fail("{} tokens, more than it can hold", n);
  std::vector<TokenId> ids(static_cast<std::size_t>(n));
  const Span bytes = r.take(n * sizeof(TokenId));
  if (n > 0) std::memcpy(ids.data(), bytes.data(), bytes.size());
  return ids;
}

void check_model(const std::string& name, const std::string& saved, const std::string& own) {
  if (saved == own) return;
  throw Error(ErrorCode::kInvalid,
              fmt::format("{}: its cache is of another model or arithmetic (fingerprint {}, here "
                          "{}): {}",
                          name, fingerprint_digest(saved), fingerprint_digest(own),
                          fingerprint_difference(saved, own)),
              "run with the model and the flags that it was saved with, or begin anew");
}

Index n_pages_of(std::uint64_t n_ids) { return static_cast<Index>(n_ids) / kPageTokens; }

std::vector<std::vector<std::byte>> read_pages(Reader& r, Index n_pages, Index page_bytes) {
  constexpr std::size_t kSum = sizeof(Hash128);
  // n_ids stood in the file, so that there are fewer pages than it has bytes.
  const auto n = static_cast<std::size_t>(n_pages), size = static_cast<std::size_t>(page_bytes);
  if (r.n_left() < kSum || n > (r.n_left() - kSum) / size || n * size != r.n_left() - kSum) {
    r.fail("{} bytes follow its tokens, expected {} pages of {} and a checksum", r.n_left(), n,
           size);
  }
  const Span all = r.take(n * size);
  if (r.value<Hash128>() != hash_bytes_128(all)) r.fail("its pages do not have their checksum");
  std::vector<std::vector<std::byte>> pages;
  pages.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Span page = all.subspan(i * size, size);
    pages.emplace_back(page.begin(), page.end());
  }
  return pages;
}

}  // namespace

void save_session_file(const fs::path& file, const std::string& fingerprint,
                       std::span<const TokenId> ids, const std::vector<Span>& pages) {
  KOGIA_CHECK(static_cast<Index>(pages.size()) == n_pages_of(ids.size()));
  KOGIA_CHECK(fingerprint.size() <= kMaxFingerprint);
  Head head{.fingerprint_bytes = static_cast<std::uint32_t>(fingerprint.size()),
            .page_bytes = pages.empty() ? 0 : pages.front().size(),
            .n_ids = ids.size()};
  AtomicFile out(file);
  Hasher128 front, back;
  for (const Span part : {std::as_bytes(std::span(kMagic)), bytes_of(head),
                          std::as_bytes(std::span(fingerprint)), std::as_bytes(ids)}) {
    out.append(part);
    front.update(part);
  }
  out.append(bytes_of(front.finish()));
  for (const Span page : pages) {
    KOGIA_CHECK(page.size() == head.page_bytes);
    out.append(page);
    back.update(page);
  }
  out.append(bytes_of(back.finish()));
  out.commit();
}

SessionFile parse_session_file(Span bytes, const std::string& name, const std::string& fingerprint,
                               Index page_bytes) {
  KOGIA_CHECK(page_bytes > 0);
  Reader r(bytes, name);
  const Head head = read_head(r, name);
  const Span saved = r.take(head.fingerprint_bytes);
  SessionFile session{.ids = read_ids(r, head.n_ids), .pages = {}};
  const Span front = r.so_far();
  if (r.value<Hash128>() != hash_bytes_128(front)) {
    r.fail("what stands before its pages does not have its checksum");
  }
  check_model(name, {reinterpret_cast<const char*>(saved.data()), saved.size()}, fingerprint);
  if (n_pages_of(head.n_ids) > 0 && head.page_bytes != static_cast<std::uint64_t>(page_bytes)) {
    r.fail("pages of {} bytes, expected {}", head.page_bytes, page_bytes);
  }
  session.pages = read_pages(r, n_pages_of(head.n_ids), page_bytes);
  return session;
}

SessionFile load_session_file(const fs::path& file, const std::string& fingerprint,
                              Index page_bytes) {
  const MappedFile map = MappedFile::open(file);
  return parse_session_file(map.bytes(), file.string(), fingerprint, page_bytes);
}

}  // namespace kogia
