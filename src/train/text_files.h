#pragma once
// The documents of a corpus: .txt and .jsonl, also packed (.gz, .zst).

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/index.h"

namespace kogia {

/// A file as a stream of bytes, unpacked by its name's ending.
/// Errors  what cannot be read or unpacked, or ends too early, throws Error naming the file
class ByteStream {
 public:
  static std::unique_ptr<ByteStream> open(const std::filesystem::path& path);
  virtual ~ByteStream() = default;
  /// Up to n bytes; 0 at the end.
  virtual std::size_t read(char* to, std::size_t n) = 0;
  /// Bytes of the file itself that have been read so far.
  virtual Index n_file_bytes() const = 0;
};

struct TextFileOptions {
  std::string field = "text";  // of a line of JSON: a string; "a.b" reaches into objects
  /// Longer documents are refused: no file makes the program ask for more memory than this.
  std::size_t max_document_bytes = std::size_t{1} << 30;
};

/// Calls document(text) for each in order: a .txt is one, each line of a .jsonl is one (empty lines
/// are none). Bytes that are no UTF-8 are handed on as they are. Between documents and while a long
/// one is read, on_bytes(n) tells how much more of the file was read.
///
/// Errors  a line that is no JSON object or has no such string is an Error "FILE:LINE: …"; another
///         ending of the name is a usage error that lists those known
void for_each_document(const std::filesystem::path& path, const TextFileOptions& options,
                       const std::function<void(std::string_view text)>& document,
                       const std::function<void(Index n)>& on_bytes = {});

}  // namespace kogia
