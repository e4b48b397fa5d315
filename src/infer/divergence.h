#pragma once
// How far a model is from what a file says another one expects of the same text.

#include <filesystem>
#include <functional>
#include <span>

#include "infer/engine.h"
#include "infer/logits_file.h"

namespace kogia {

using OnScored = std::function<void(Index done, Index total)>;

/// Of the second half of each window, as llama-perplexity does: there every token has at least
/// ctx/2 others before it.
struct HalfScore {
  Index tokens = 0;
  double nll = 0;  // summed
};

/// Writes what the model expects after the tokens of whole windows (the rest of `ids` is left out;
/// Error(kUsage) where there is none) and scores them. Where the tokenizer adds a BOS, the model
/// sees it in place of the first token of each window, as llama-perplexity does.
HalfScore save_logits(Engine& engine, std::span<const TokenId> ids, Index ctx,
                      const std::filesystem::path& target, const OnScored& on_scored = {});

struct DivergenceReport {
  Index tokens = 0;
  double kl = 0, kl_error = 0;  // mean of all positions and its standard error, in nats
  double kl_median = 0, kl_99 = 0, kl_most = 0;
  double nll = 0, nll_kept = 0;  // summed: of this model, of the file's
  double same_top = 0;           // share of positions where both rank the same token first
};
/// The model on the text of the file. Throws Error where the vocabularies differ.
DivergenceReport measure_divergence(Engine& engine, const LogitsFile& file,
                                    const OnScored& on_scored = {});

}  // namespace kogia
