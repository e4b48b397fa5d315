#pragma once
// Importance matrices of llama.cpp: how much each column of a weight matters, as the mean square
// of what it was multiplied with on some text. Both of its formats:
//
//   GGUF    NAME.in_sum2 [matrices, columns] f32 and NAME.counts [matrices] f32, where a mixture of
//           experts has a matrix each; the mean is sum / count, and 1 where nothing was counted
//   legacy  i32 entries, then for each: i32 length, name, i32 calls, i32 n, f32[n]; then perhaps
//           the number of chunks and the name of the text

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"

namespace kogia {

class ImportanceMatrix {
 public:
  /// Throws Error naming file, entry and what is wrong with it.
  static ImportanceMatrix open(const std::filesystem::path& path);
  /// One file that lies in memory; `file` is for messages.
  static ImportanceMatrix parse(std::span<const std::byte> bytes, const std::string& file);

  Index n_entries() const { return static_cast<Index>(entries_.size()); }
  /// The mean squares of a tensor by its GGUF name, matrix after matrix, all finite and >= 0;
  /// empty where the file has none. Throws Error where they are not `n_values` many.
  std::span<const float> find(std::string_view tensor, Index n_values) const;

 private:
  static ImportanceMatrix parse_legacy(std::span<const std::byte> bytes, const std::string& file);
  void add(std::string name, std::vector<float> values);

  std::string file_;
  std::map<std::string, std::vector<float>, std::less<>> entries_;
};

}  // namespace kogia
