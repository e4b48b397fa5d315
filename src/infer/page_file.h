#pragma once
// A page of the cache as a file. Little-endian:
//
//   "KOGIAPAG", version u32, number of ids u32, bytes of the page u64,
//   fingerprint, key and key of the page before, 16 bytes each, the ids, i32 each,
//   checksum, 16 bytes: XXH3-128 of all that stands before it, and of the page
//   the page
//
// Whoever looks for a page knows all of this but the checksum. So nothing is parsed: what does not
// begin with the expected bytes is not the page.

#include <filesystem>
#include <span>
#include <vector>

#include "base/file_descriptor.h"
#include "base/hash.h"
#include "base/index.h"
#include "infer/page_key.h"

namespace kogia {

struct PageTag {
  Hash128 fingerprint;
  PageKey key, before;
  std::vector<TokenId> ids;
};

Index page_file_bytes(Index n_ids, Index page_bytes);

/// Writes all of it. False: the system did not, and errno says why.
bool write_page(const FileDescriptor& fd, const PageTag& tag, std::span<const std::byte> page);

/// Reads `page`. False: it is not that page, or damaged; what `page` holds then are zeros.
bool read_page(const FileDescriptor& fd, const PageTag& tag, std::span<std::byte> page);

}  // namespace kogia
