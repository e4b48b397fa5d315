#pragma once
// What an answer is: how its tokens are drawn, where it ends, and what is told of it.

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "infer/engine.h"
#include "infer/sampler.h"

namespace kogia {

struct GenerateOptions {
  SamplingParams sampling = {};
  Index max_tokens = -1;  // -1: until the end of text or of the context
  /// Compared over token borders; the match and what follows is left out of the text. They are
  /// looked for in the answer alone: a thought that quotes one goes on. Any number of them, none
  /// empty. The prompt does not count.
  std::vector<std::string> stop = {};
  bool ignore_eos = false;
  /// Tells thought and answer apart (ReasoningParser). Off: all text is content, as it comes.
  bool split_reasoning = true;
  /// What the random numbers are for, beside the seed (rollouts: which prompt, which sample of it).
  std::uint64_t prompt_key = 0, sample_key = 0;
  /// The likeliest tokens to report beside each drawn one; 0: none.
  Index n_top_logprobs = 0;
};

enum class FinishReason { kStop, kLength, kInterrupted, kCancelled };
std::string_view name(FinishReason reason);  // "stop", "length", "interrupted", "cancelled"

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;
};

/// What a step adds. Text is valid UTF-8, never holds the beginning of a stop string, and has
/// thought and answer apart. The text of all pieces together is the text of the Generation.
struct GeneratedPiece {
  TokenId id = 0;  // -1: no token, only text that was held back until the end
  float logprob = 0;
  std::vector<TokenLogprob> top = {};  // likeliest first, equal ones by id
  std::string reasoning = {}, content = {};
};

/// Guesses at tokens, and how many of them were right.
struct DraftCount {
  Index n_drafted = 0, n_accepted = 0;
};
struct DraftStats {
  Index n_steps = 0;  // that drew tokens
  DraftCount all;
  std::vector<DraftCount> at;  // of the first guess of a step, of the second, …

  /// A step: of its guesses the first n_accepted were right.
  void count(Index n_drafted, Index n_accepted);
  void add(const DraftStats& other);
};

struct Generation {
  std::vector<TokenId> ids;     // new ones; a token that ended the text (EOS) is not among them
  std::vector<float> logprobs;  // of the model (Device::log_prob), before any sampling stage
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // one an id, where asked for
  std::string reasoning, content;
  FinishReason finish_reason = FinishReason::kStop;
  Index n_prompt = 0, n_prompt_computed = 0;  // the rest was in the cache
  DraftStats drafts;
  double wait_s = 0, prefill_s = 0, decode_s = 0;
};

/// Told after each chunk of the prompt, and of each piece. Either may be empty.
struct GenerateEvents {
  std::function<void(const GeneratedPiece&)> on_piece = {};
  std::function<void(Index done, Index total)> on_prefill = {};
};

class Batcher;

/// One prompt to its end, and whatever else the batcher has to do meanwhile. Ctrl-C, seen through
/// base/interrupt.h, ends it with kInterrupted and leaves the batcher usable.
/// Works without a tokenizer: then no text is made and stop strings are a usage error.
/// Prompt and answer together never exceed the context: where it is full, kLength.
Generation generate(Batcher& batcher, std::span<const TokenId> prompt,
                    const GenerateOptions& options, const GenerateEvents& events = {});

}  // namespace kogia
