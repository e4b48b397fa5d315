#pragma once
// Sources of a run as tokens, made once and kept.

#include <functional>
#include <memory>

#include "text/tokenizer.h"
#include "train/corpus.h"
#include "train/run_config.h"
#include "train/run_folder.h"

namespace kogia {

struct TokeniseOptions {
  int n_threads = 0;                           // 0: all cores
  std::function<void(Index n)> on_bytes = {};  // so many more of the files were read
};

/// The tokenizer of a run, and what every checkpoint repeats of it.
struct RunTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  CheckpointTokenizer parts;
};

/// Errors  a tokenizer without an end of text, or with more tokens than the model's vocabulary, is
/// a
///         usage error
RunTokenizer load_tokenizer(const RunConfig& config);

/// Bytes of the files that have to be tokenised for the run: 0 where all of it is kept from before.
Index bytes_to_tokenise(const RunConfig& config, const RunTokenizer& tokenizer);

/// The corpus of a run. Sources that are not in data.cache yet, or changed, are tokenised into it.
/// Each document gets the tokenizer's end of text behind it (and what it puts before every text,
/// where it does). A document is held out iff the hash of its text falls below data.holdout: it is
/// whatever else there is, and in whatever order.
///
/// Errors   as for_each_document()
/// Ctrl-C   leaves nothing behind (InterruptGuard)
std::unique_ptr<Corpus> open_corpus(const RunConfig& config, const RunTokenizer& tokenizer,
                                    const TokeniseOptions& options);

}  // namespace kogia
