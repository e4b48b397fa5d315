#pragma once
// The loop from a prompt to an answer: sample, decode, look for stop strings, append.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "infer/sampler.h"
#include "infer/session.h"

namespace kogia {

struct GenerateOptions {
  SamplingParams sampling;
  Index max_tokens = -1;  // -1: until the end of text or of the context
  std::vector<std::string> stop;  // compared over token borders; the match and what follows is left out
  bool ignore_eos = false;
};

enum class FinishReason { kStop, kLength, kInterrupted };
std::string_view name(FinishReason reason);  // "stop", "length", "interrupted"

/// What a step adds. Text is valid UTF-8, never holds the beginning of a stop string, and has thought
/// and answer apart (ReasoningParser).
struct GeneratedPiece {
  TokenId id = 0;
  float logprob = 0;
  std::string reasoning, content;
};

struct Generation {
  std::vector<TokenId> ids;  // new ones; a token that ended the text (EOS) is not among them
  std::vector<float> logprobs;
  std::string reasoning, content;
  FinishReason finish_reason = FinishReason::kStop;
  Index n_prompt = 0, n_prompt_computed = 0;
  double prefill_s = 0, decode_s = 0;
};

/// Runs on a session (which keeps the cached prefix of earlier turns). Ctrl-C, seen through
/// base/interrupt.h, ends it with kInterrupted and leaves the session usable.
/// Works without a tokenizer: then no text is made and stop strings are a usage error.
Generation generate(Session& session, Engine& engine, std::span<const TokenId> prompt,
                    const GenerateOptions& options,
                    const std::function<void(const GeneratedPiece&)>& on_piece = {});

/// Looks for stop strings in text that arrives in pieces: what could be the beginning of one is held
/// back until it is decided. With several matches the earliest beginning wins.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);
  /// Text that is safe to show. After a match stopped() is true and nothing more comes.
  std::string push(std::string_view text);
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace kogia
