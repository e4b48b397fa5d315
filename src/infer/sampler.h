#pragma once
// From logits to a token: penalties, bias, temperature, top-k, min-p, top-p, and a keyed random number.

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
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;  // over prompt and output: positive logits divided, negative multiplied
  double frequency_penalty = 0.0;   // times the count in the output
  double presence_penalty = 0.0;    // once per token of the output
  std::uint64_t seed = 0;
  std::map<TokenId, double> logit_bias;
};

/// Throws Error (usage) that names the parameter and its range.
void validate(const SamplingParams& params);

struct SampledToken {
  TokenId id = 0;
  float logprob = 0;  // log softmax of the logits as the model gave them, before any stage
};

/// A pure function of its arguments: the random number is keyed by (seed, prompt, sample, position).
class Sampler {
 public:
  Sampler(SamplingParams params, Index n_valid_ids);
  /// `history` is prompt then output; n_prompt says where the output begins. `position` is the index of
  /// the token to be drawn.
  SampledToken sample(std::span<const float> logits, std::span<const TokenId> history, Index n_prompt,
                      std::uint64_t prompt_key, std::uint64_t sample_key);

 private:
  SamplingParams params_;
  Index n_valid_ids_;
  struct Candidate {
    TokenId id;
    float logit;
  };
  std::vector<Candidate> candidates_;  // scratch, reused from token to token
  std::vector<float> logits_;
};

}  // namespace kogia
