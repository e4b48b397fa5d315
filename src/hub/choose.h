#pragma once
// Which files of a repository make a model: the texts beside it and one form of its weights.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hub/listing.h"
#include "hub/names.h"

namespace kogia::hub {

struct Choice {
  std::vector<RemoteFile> files;
  /// Where set, `files` holds model.safetensors.index.json, and the weights are those it names.
  bool by_index = false;
};

/// Without `name.file`: the safetensors form and the texts beside it, else the only GGUF. With it:
/// the one GGUF that it names (a path, a file name, or a quantisation such as Q4_K_M; all parts of
/// a split set), or any other one file by its path.
/// Errors: Error(kUsage) that lists the choices where there are several; kNotFound, kUnsupported.
Choice choose_files(const Listing& listing, const ModelName& name);

/// The files of the listing that an index names.
std::vector<RemoteFile> choose_weights(const Listing& listing, std::span<const std::string> files,
                                       std::string_view where);

/// A GGUF or all parts of a split one.
struct GgufSet {
  std::string stem;                // "sub/Model-Q4_K_M": without .gguf and -00001-of-00002
  std::vector<std::string> paths;  // in order
  std::size_t n_parts = 1;         // more than paths: parts are missing
};

/// Models only: projectors, drafts and importance matrices are left out.
std::vector<GgufSet> gguf_sets(std::vector<std::string> paths);

/// The set that `wanted` names; an empty one means the only one there is. Several: Error(kUsage)
/// that lists them. None: nullptr.
const GgufSet* find_gguf(std::span<const GgufSet> sets, std::string_view wanted,
                         const std::string& repository);

}  // namespace kogia::hub
