#pragma once
// Learns a byte-level BPE vocabulary from text.                          arXiv:1508.07909

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/index.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

namespace kogia {

struct BpeTrainerOptions {
  Index vocab_size = 32768;         // special tokens and the 256 bytes included
  std::int64_t min_frequency = 2;   // pairs rarer than this are not merged
  std::string pre = "deepseek-v3";  // a name of gguf_pretokenizer(): where text is cut first
};

/// The tokens that come first, as DeepSeek's chat format needs them: begin and end of sentence and
/// padding (control tokens, ids 0 to 2), then <｜User｜>, <｜Assistant｜>, <think> and </think>.
const std::vector<std::string>& trained_special_tokens();

/// Counts the pieces of a corpus, then merges the most frequent pair of tokens again and again; of
/// pairs as frequent, the one with the lower ids. The same text gives the same vocabulary, in
/// whatever order it comes, and the one that the `tokenizers` package learns with the same
/// settings.
///
/// Memory  the distinct pieces of the corpus
/// Errors  options that cannot be met (usage): a vocabulary smaller than bytes and special tokens
/// Threads one at a time
class BpeTrainer {
 public:
  explicit BpeTrainer(BpeTrainerOptions options);

  /// Counts a document. Merges never cross its ends.
  void add(std::string_view text);
  Index n_bytes() const { return n_bytes_; }
  Index n_distinct_pieces() const { return static_cast<Index>(pieces_.size()); }

  /// on_merge(done, total) after each merge (may be empty). Has fewer tokens than asked for where
  /// the text has no more pairs. Ctrl-C throws kInterrupted.
  GgufVocab train(const std::function<void(Index done, Index total)>& on_merge = {}) const;

 private:
  BpeTrainerOptions options_;
  Pretokenizer pretokenizer_;
  std::unordered_map<std::string, std::int64_t> pieces_;
  Index n_bytes_ = 0;
};

}  // namespace kogia
