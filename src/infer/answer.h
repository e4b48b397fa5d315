#pragma once
// One answer while it is written: draws its tokens, makes them text, and knows where it ends.

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "infer/generate.h"

namespace kogia {

/// Threads: one at a time.
class Answer {
 public:
  /// Throws Error (usage) where the prompt has no tokens, does not fit the context or has one out
  /// of range, and where the options are out of range.
  Answer(const Engine& engine, std::span<const TokenId> prompt, const GenerateOptions& options);
  ~Answer();

  /// Prompt, then output.
  std::span<const TokenId> history() const { return history_; }
  Index n_prompt() const { return result_.n_prompt; }
  /// Of prompt and output together, at most.
  Index max_tokens() const { return max_tokens_; }
  /// Why no further token is to be drawn; empty: the answer goes on.
  std::optional<FinishReason> finished() const { return finished_; }

  /// Draws the token after history() and takes it, unless it ends the text. Empty: it did. The
  /// piece's log-probabilities are not known yet; see commit().
  std::optional<GeneratedPiece> draw(std::span<const float> logits, SamplerScratch& scratch);
  /// The token that would be drawn after history() and `drafts`, were these its logits. Empty: one
  /// that ends the text, or none could be drawn.
  std::optional<TokenId> guess(std::span<const float> logits, std::span<const TokenId> drafts,
                               SamplerScratch& scratch);
  /// The last drawn piece with its log-probabilities, before the next one is committed.
  void commit(const GeneratedPiece& piece);
  /// Ends it, and hands over what there is. `piece` is text that was held back, or empty.
  Generation finish(FinishReason reason, std::optional<GeneratedPiece>& piece);

  Generation& result() { return result_; }
  const GenerateOptions& options() const { return options_; }

 private:
  class TextStream;
  bool is_eos(TokenId id) const;
  void check_length();

  const Engine& engine_;
  GenerateOptions options_;
  Sampler sampler_;
  std::vector<TokenId> history_;
  std::unique_ptr<TextStream> text_;  // null without a tokenizer
  Index max_tokens_ = 0;
  std::optional<FinishReason> finished_;
  Generation result_;
};

}  // namespace kogia
