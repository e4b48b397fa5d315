#pragma once
// Tokenised texts on disk: what a corpus is read from, step by step.
//
//   ids, 2 or 4 bytes each, end to end; then where each document ends (u64, counted in ids); then
//   a footer of fixed size. Little-endian. The file is made whole or not at all (AtomicFile).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/hash.h"
#include "base/index.h"
#include "base/mapped_file.h"

namespace kogia {

class TokenFileWriter {
 public:
  /// `key` names what the ids are made of. Ids fit into 2 bytes where n_vocabulary does.
  TokenFileWriter(const std::filesystem::path& path, Index n_vocabulary, const Hash128& key);
  void add_document(std::span<const std::int32_t> ids);
  void commit();
  Index n_documents() const { return static_cast<Index>(ends_.size()); }

 private:
  AtomicFile file_;
  Hash128 key_;
  Index id_bytes_;
  std::vector<std::uint64_t> ends_;
};

/// Const and safe to share.
class TokenFile {
 public:
  /// Null where there is no such file, or it is of something else, or damaged.
  static std::unique_ptr<TokenFile> open(const std::filesystem::path& path, const Hash128& key);

  Index n_documents() const { return static_cast<Index>(ends_.size()); }
  Index n_tokens() const { return ends_.empty() ? 0 : static_cast<Index>(ends_.back()); }
  Index document_tokens(Index document) const { return end(document) - begin(document); }
  /// Ids [first, first + n) of a document, appended to `to`.
  void append(Index document, Index first, Index n, std::vector<std::int32_t>& to) const;

 private:
  explicit TokenFile(MappedFile file) : file_(std::move(file)) {}
  Index end(Index document) const {
    return static_cast<Index>(ends_[static_cast<std::size_t>(document)]);
  }
  Index begin(Index document) const { return document == 0 ? 0 : end(document - 1); }

  MappedFile file_;
  Index id_bytes_ = 4;
  std::vector<std::uint64_t> ends_;
};

}  // namespace kogia
