#pragma once
// A text with its cache, out of the prefix tree into a file and back.

#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "infer/engine.h"
#include "infer/prefix_tree.h"

namespace kogia {

/// The text and its full pages as a file that another process or machine goes on from
/// (infer/session_file.h). Throws Error where not all of those pages are in the tree.
void save_session(Engine& engine, PrefixTree& tree, const std::filesystem::path& file,
                  std::string_view tenant, std::span<const TokenId> ids);

/// Puts such a file into the tree, as far as memory has room, and returns its tokens. Throws Error
/// where it is damaged or of another model.
std::vector<TokenId> load_session(Engine& engine, PrefixTree& tree,
                                  const std::filesystem::path& file, std::string_view tenant);

}  // namespace kogia
