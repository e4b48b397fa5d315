#pragma once
// What the hub says a repository holds. Answers come from a stranger: every field is checked.

#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"

namespace kogia::hub {

struct RemoteFile {
  std::string path;  // inside the repository, safe
  Index size = -1;   // -1: not told
  std::string blob;  // its hash and its name in the cache, see is_blob(); empty: not told
};

struct Listing {
  std::string commit;
  std::vector<RemoteFile> files;

  const RemoteFile* find(std::string_view path) const;
};

/// The answer to api/models/REPOSITORY/revision/REVISION?blobs=true. Files whose names no file
/// system likes (backslashes, control characters) are left out; names that lead out of the
/// repository refuse the whole answer.
/// Errors: Error(kInvalid) that names `where`, the field and what was found.
Listing parse_listing(std::string_view json, std::string_view where);

/// The files that a model.safetensors.index.json names, each once, in order.
std::vector<std::string> parse_weight_files(std::string_view json, std::string_view where);

}  // namespace kogia::hub
