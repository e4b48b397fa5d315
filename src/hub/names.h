#pragma once
// Models of the Hugging Face hub, fetched over HTTP and kept in the cache that its Python library
// uses too. This file: the names of repositories, revisions and files, and which are safe to use.

#include <optional>
#include <string>
#include <string_view>

namespace kogia::hub {

/// "org/name", "org/name:FILE", "org/name@REVISION:FILE".
struct ModelName {
  std::string repository;         // "org/name"
  std::string revision = "main";  // branch, tag or commit
  std::string file;               // a file's path or a quantisation such as Q4_K_M; may be empty

  /// As people write it.
  std::string text() const;
};

/// nullopt where the text has not the form of a name (a path, a word, a name the hub refuses).
std::optional<ModelName> parse_model_name(std::string_view text);

/// A relative path that stays where it is put and is no trouble to a terminal or a file system: no
/// empty, "." or ".." component, no backslash, no control character, bounded lengths.
bool is_safe_path(std::string_view path);
/// Throws Error(kInvalid) naming `where` and the path.
void require_safe_path(std::string_view path, std::string_view where);
/// What git takes for a branch or a tag, and a safe path.
bool is_revision(std::string_view text);

/// n lower-case hexadecimal digits.
bool is_hex(std::string_view text, std::size_t n);
/// 40 of them.
bool is_commit(std::string_view text);
/// The name of a blob that can be checked: 40 digits (git's SHA-1) or 64 (SHA-256).
bool is_blob(std::string_view text);

/// Part of a URL's path: everything but letters, digits and "-._~" as %XX; "/" stays if
/// `keep_slash`.
std::string url_encode(std::string_view text, bool keep_slash);

}  // namespace kogia::hub
