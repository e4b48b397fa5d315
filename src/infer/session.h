#pragma once
// One timeline of tokens with its cache.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "infer/engine.h"

namespace kogia {

/// Tokens whose keys and values are in the cache, and the logits after the last of them.
/// Logits do not depend on how the tokens arrived (docs/design, determinism).
class Session {
 public:
  explicit Session(Engine& engine);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Makes the timeline equal `ids`: keeps the longest common prefix that is cached, computes the
  /// rest in chunks of options().chunk. on_chunk(done, total) after each (may be empty); a pending
  /// Ctrl-C throws kInterrupted between chunks. Throws Error (usage) where ids do not fit the
  /// context, or an id is out of range. Returns how many tokens were computed.
  Index set_tokens(std::span<const TokenId> ids,
                   const std::function<void(Index done, Index total)>& on_chunk = {});
  /// Appends one token and computes the logits after it.
  void append(TokenId id);

  const std::vector<TokenId>& tokens() const { return tokens_; }
  /// [vocab_size]; valid until the session or the engine's workspace is used again.
  std::span<const float> logits() const { return logits_; }

 private:
  void step(std::span<const TokenId> ids, bool want_logits);
  void truncate(Index n);

  struct Timeline;  // the pages it holds
  Engine& engine_;
  std::unique_ptr<Timeline> timeline_;
  std::vector<TokenId> tokens_;
  std::vector<float> logits_;  // empty: not computed
};

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
