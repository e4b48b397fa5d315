#pragma once
// What a model makes of a text that is there: its log-probabilities, token by token.

#include <functional>
#include <span>
#include <vector>

#include "infer/engine.h"

namespace kogia {

/// Log-probability of each token of `ids` but the first, scored in windows of `ctx` tokens (each
/// window begins anew and its first token is not scored). One entry per scored token.
struct ScoredToken {
  Index pos = 0;
  TokenId id = 0;
  float logprob = 0;
};
std::vector<ScoredToken> score(Engine& engine, std::span<const TokenId> ids, Index ctx,
                               const std::function<void(Index done, Index total)>& on_chunk = {});

/// Hands every row of logits to `visit` (the row of position pos predicts pos + 1); ids fit the
/// context.
void for_each_logits(Engine& engine, std::span<const TokenId> ids,
                     const std::function<void(Index pos, std::span<const float> logits)>& visit);

}  // namespace kogia
