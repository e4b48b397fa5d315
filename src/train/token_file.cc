#include "train/token_file.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace kogia {
namespace {

constexpr std::uint64_t kMagic = 0x324B4F5441474F4BULL;  // "KOGATOK2"

struct Footer {
  std::uint64_t n_tokens = 0, n_documents = 0, id_bytes = 0;
  std::uint64_t key[2] = {};
  std::uint64_t magic = kMagic;
};

}  // namespace

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, Index n_vocabulary,
                                 const Hash128& key)
    : file_(path), key_(key), id_bytes_(n_vocabulary <= 65536 ? 2 : 4) {}

void TokenFileWriter::add_document(std::span<const std::int32_t> ids) {
  if (id_bytes_ == 4) {
    file_.append(std::as_bytes(ids));
  } else {
    const std::vector<std::uint16_t> small(ids.begin(), ids.end());
    file_.append(std::as_bytes(std::span(small)));
  }
  ends_.push_back((ends_.empty() ? 0 : ends_.back()) + ids.size());
}

void TokenFileWriter::commit() {
  file_.append_zeros(round_up(file_.size(), 8) - file_.size());
  file_.append(std::as_bytes(std::span(ends_)));
  Footer footer;
  footer.n_tokens = ends_.empty() ? 0 : ends_.back();
  footer.n_documents = ends_.size();
  footer.id_bytes = static_cast<std::uint64_t>(id_bytes_);
  std::copy_n(key_.words, 2, footer.key);
  file_.append(std::as_bytes(std::span(&footer, 1)));
  file_.commit();
}

std::unique_ptr<TokenFile> TokenFile::open(const std::filesystem::path& path, const Hash128& key) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error || size < sizeof(Footer)) return nullptr;
  std::unique_ptr<TokenFile> file(new TokenFile(MappedFile::open(path)));
  const std::span<const std::byte> bytes = file->file_.bytes();
  Footer footer;
  std::memcpy(&footer, bytes.data() + bytes.size() - sizeof(footer), sizeof(footer));
  const bool known = footer.magic == kMagic && std::equal(footer.key, footer.key + 2, key.words) &&
                     (footer.id_bytes == 2 || footer.id_bytes == 4);
  // Bounds before products: nothing here can overflow.
  if (!known || footer.n_documents > size / 8 || footer.n_tokens > size / footer.id_bytes) {
    return nullptr;
  }
  const std::uint64_t ids = (footer.n_tokens * footer.id_bytes + 7) / 8 * 8;
  if (ids + 8 * footer.n_documents + sizeof(Footer) != size) return nullptr;
  file->id_bytes_ = static_cast<Index>(footer.id_bytes);
  file->ends_.resize(footer.n_documents);
  if (footer.n_documents > 0) {  // of nothing, data() may be null
    std::memcpy(file->ends_.data(), bytes.data() + ids, 8 * footer.n_documents);
  }
  if (!std::ranges::is_sorted(file->ends_)) return nullptr;
  if (static_cast<std::uint64_t>(file->n_tokens()) != footer.n_tokens) return nullptr;
  return file;
}

void TokenFile::append(Index document, Index first, Index n, std::vector<std::int32_t>& to) const {
  KOGIA_CHECK(first >= 0 && n >= 0 && first + n <= document_tokens(document));
  const std::byte* from = file_.bytes().data() + (begin(document) + first) * id_bytes_;
  for (Index i = 0; i < n; ++i, from += id_bytes_) {
    std::uint32_t id = 0;
    std::memcpy(&id, from, static_cast<std::size_t>(id_bytes_));
    to.push_back(static_cast<std::int32_t>(id));
  }
}

}  // namespace kogia
