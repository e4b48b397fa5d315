#pragma once
// Guesses at the next tokens, cheap to make, which the model checks several at a time.

#include <memory>
#include <span>
#include <vector>

#include "base/index.h"
#include "text/tokenizer.h"

namespace kogia {

/// Of one request. A draft is accepted iff it equals the token that plain decoding draws at its
/// position, so that drafts change how long an answer takes and never what it says.
class Drafter {
 public:
  virtual ~Drafter() = default;
  /// What may follow `tokens` (prompt and answer so far; what was there at the call before, and
  /// more): at most `max_tokens` ids, best none where a guess would not pay.
  virtual std::vector<TokenId> propose(std::span<const TokenId> tokens, Index max_tokens) = 0;
  /// How the last proposal went, once its step is over: n_accepted of n_drafted, in a step of
  /// `n_rows` rows (of all requests) that took `seconds`. Told of steps without drafts too
  /// (n_drafted = 0), whose seconds are what a plain step takes, and not of steps that also
  /// computed a part of some prompt.
  virtual void record(Index n_drafted, Index n_accepted, Index n_rows, double seconds) = 0;
};

/// What the drafters of one model learn together: what steps take, and how often guesses are right.
/// Threads  one at a time, with all drafters that share it.
class DraftExperience;
std::shared_ptr<DraftExperience> make_draft_experience();

/// Looks the last tokens up in what is there already and proposes what followed them then (prompt
/// lookup). It measures what it costs and saves, and drafts as far as that pays: see
/// infer/draft_governor.h. A proposal takes microseconds, however long the text is.
std::unique_ptr<Drafter> make_prompt_lookup(std::shared_ptr<DraftExperience> experience);

}  // namespace kogia
