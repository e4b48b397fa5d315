#pragma once
// From logits to a token: bias, penalties, temperature, top-k, min-p, top-p, and a keyed random
// number.
//
// The stages run in this order, which is vLLM's and, but for the place of min-p, Hugging Face's
// (top-k and min-p keep the same tokens in either order):
//   1. logit_bias is added
//   2. repetition, frequency and presence penalties
//   3. ids that are no token (n_valid_ids and above) leave
//   4. temperature 0 takes the largest; else logits are divided by it
//   5. top-k, then min-p (relative to the best), then top-p over what is left, renormalised
//   6. a token is drawn: each has a random number of its own
// Equal logits: the lower id comes first, at every border.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/index.h"
#include "text/tokenizer.h"

namespace kogia {

/// Names and meanings as in vLLM and llama.cpp. A neutral value switches a stage off.
struct SamplingParams {
  double temperature = 1.0;         // 0: the largest logit, ties to the lowest id
  Index top_k = 0;                  // 0: off
  double top_p = 1.0;               // the likeliest tokens that reach this mass together
  double min_p = 0.0;               // at least this share of the likeliest token's probability
  double repetition_penalty = 1.0;  // over prompt and output: positive logits divided, negative
                                    // multiplied
  double frequency_penalty = 0.0;   // times the count in the output
  double presence_penalty = 0.0;    // once per token of the output
  std::uint64_t seed = 0;
  std::map<TokenId, double> logit_bias = {};  // each in [-100, 100]
};

/// Throws Error (usage) that names the parameter and its range.
void validate(const SamplingParams& params);

struct SampledToken {
  TokenId id = 0;
  /// Log of the probability it was drawn with, after every stage (0 when greedy). The model's own
  /// log-probability is Device::log_prob().
  float drawn_logprob = 0;
};

/// What a sampler needs while it draws one token: a few times the size of the vocabulary, so that
/// many samplers share one. Threads: one sampler at a time.
struct SamplerScratch {
  struct Candidate {
    TokenId id;
    float logit;
    double weight;  // exp((logit - largest) / temperature)
  };
  std::vector<Candidate> candidates;
  std::vector<double> weights;  // of all tokens, where no top_k comes first
  std::vector<float> logits;
  std::vector<std::int32_t> counts;  // [n_valid_ids], zero between calls; see apply_penalties()
};

/// A pure function of its arguments: random numbers are keyed by (seed, prompt, sample, position,
/// token), never by the order of calls. Nearly the same logits draw the same token nearly always,
/// as far as that is possible: the chance of another one is at most twice that by which the
/// distributions differ.
///
/// Errors   the constructor checks the parameters and the ids of the bias (usage); sample() refuses
///          logits that hold NaN or +inf, and a distribution that is empty
/// Threads  one at a time
class Sampler {
 public:
  Sampler(SamplingParams params, Index n_valid_ids);
  /// `history` is prompt then output; n_prompt says where the output begins. The token drawn has
  /// the position history.size().
  SampledToken sample(std::span<const float> logits, std::span<const TokenId> history,
                      Index n_prompt, std::uint64_t prompt_key, std::uint64_t sample_key,
                      SamplerScratch& scratch) const;

 private:
  SamplingParams params_;
  std::size_t n_valid_ids_;
};

}  // namespace kogia
