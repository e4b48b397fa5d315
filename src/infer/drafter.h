#pragma once
// Guesses at the next tokens, cheap to make, which the model checks several at a time.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/index.h"
#include "tensor/view.h"
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

class Answer;
class Engine;
struct StepPlan;
using SequenceId = std::uint64_t;

/// Of all requests of a batcher together: drafts that are computed, several texts at a time, along
/// with the steps of the batcher. What is said of Drafter's drafts holds.
/// Threads: as the batcher.
class BatchDrafter {
 public:
  /// A text whose last token's row comes next.
  struct Reader {
    SequenceId id = 0;
    Answer* answer = nullptr;
    std::span<const std::int32_t> pages;  // of all its tokens but the last
    Index max_drafts = 0;
    std::vector<TokenId> drafts;  // filled in by propose()
  };
  /// Rows of one text that a step computed, once its tokens are drawn.
  struct Computed {
    SequenceId id = 0;
    Index first_pos = 0;
    std::span<const TokenId> ids;      // those that were computed, drafts included …
    std::span<const TokenId> history;  // … and what the text is now
    std::span<const std::int32_t> pages;
    ConstMat hidden;  // a row for each of ids
    bool of_prompt = false;
  };

  virtual ~BatchDrafter() = default;
  virtual void propose(std::span<Reader> readers) = 0;
  /// Before the rows of a step are computed: pages are copied, texts come and go.
  virtual void begin(const StepPlan& plan) = 0;
  virtual void computed(std::span<const Computed> rows) = 0;
  /// As Drafter::record().
  virtual void record(SequenceId id, Index n_drafted, Index n_accepted, Index n_rows,
                      double seconds) = 0;
  /// The text ends; its pages are still there.
  virtual void remove(SequenceId id) = 0;
};

struct MtpDrafterOptions {
  /// So many at each step, whether they pay or not; unset: as measured (infer/draft_governor.h).
  std::optional<Index> n_drafts = {};
};
/// Drafts of the model's own layers of multi-token prediction: see infer/mtp_drafter.cc. They have
/// to be loaded.
std::unique_ptr<BatchDrafter> make_mtp_drafter(Engine& engine, const MtpDrafterOptions& options);

}  // namespace kogia
