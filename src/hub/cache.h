#pragma once
// The cache that the hub's Python library uses too:
//
//   CACHE/models--ORG--NAME/blobs/HASH                      the bytes of a file
//                           snapshots/COMMIT/PATH           a relative link to its blob
//                           refs/REVISION                   the commit it stood for when fetched
//   CACHE/.locks/models--ORG--NAME/                         locks

#include <filesystem>
#include <optional>
#include <string>

#include "hub/names.h"

namespace kogia::hub {

/// "models--org--name".
std::string cache_folder_name(const std::string& repository);

/// The snapshot that a revision stands for; nullopt if it was never fetched.
std::optional<std::filesystem::path> find_snapshot(const std::filesystem::path& cache,
                                                   const std::string& repository,
                                                   const std::string& revision);

/// What to open for a name: the snapshot's folder, or the first file of a GGUF, or the named file.
/// Nothing is fetched. Throws Error(kNotFound) saying how to fetch it, Error(kUsage) listing the
/// choices where the name fits several.
std::filesystem::path find_pulled(const std::filesystem::path& cache, const ModelName& name);

/// A MODEL of a command line: a path that exists stays as it is; else the name of a repository
/// becomes what find_pulled() says; any other text stays.
std::filesystem::path find_model(const std::filesystem::path& cache, const std::string& model);

}  // namespace kogia::hub
