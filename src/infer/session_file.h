#pragma once
// One timeline as a file, for another process or machine. Little-endian:
//
//   "KOGIASES", version u32, bytes of the fingerprint u32, bytes of a page u64, number of ids u64,
//   the fingerprint, a text (cache_fingerprint.h), the ids, i32 each,
//   checksum, 16 bytes: XXH3-128 of all that stands before it
//   the pages, one for each 64 ids that are full
//   checksum, 16 bytes: XXH3-128 of the pages

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/index.h"
#include "text/tokenizer.h"

namespace kogia {

/// Written whole or not at all. `pages` are of one size, one for each kPageTokens ids that are
/// there. The ids after the last full page have none, and are computed again: what else stands in
/// a page that is not full may be somebody else's.
void save_session_file(const std::filesystem::path& file, const std::string& fingerprint,
                       std::span<const TokenId> ids,
                       const std::vector<std::span<const std::byte>>& pages);

struct SessionFile {
  std::vector<TokenId> ids;  // as they are in the file: whoever uses them checks their range
  std::vector<std::vector<std::byte>> pages;
};

/// Throws Error that names the file and what is wrong: damaged, cut, or of another model or
/// arithmetic (both fingerprints named).
SessionFile load_session_file(const std::filesystem::path& file, const std::string& fingerprint,
                              Index page_bytes);
/// The same from memory; messages begin with `name`.
SessionFile parse_session_file(std::span<const std::byte> bytes, const std::string& name,
                               const std::string& fingerprint, Index page_bytes);

}  // namespace kogia
