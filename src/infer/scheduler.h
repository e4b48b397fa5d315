#pragma once
// Which rows the next step computes: continuous batching over a pool of pages, with prompts cut
// into chunks and prefixes shared. Plain data in, plain data out: no model is needed.

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "infer/page_pool.h"
#include "infer/prefix_tree.h"

namespace kogia {

using SequenceId = std::uint64_t;

struct SchedulerLimits {
  Index page_tokens = 64;
  Index step_tokens = 512;     // rows of a step, at most
  Index beside_tokens = 512;   // of them, those of prompts in a step that has readers, at most
  Index max_sequences = 256;   // that run at once
  Index planned_tokens = 256;  // of an answer, that memory is planned for when one is let in
  bool reuse_prefixes = true;
};

/// A timeline to be computed. Each of its tokens is known; those drawn later are appended.
struct NewSequence {
  SequenceId id = 0;  // ascending in the order of arrival, never used again
  std::string tenant;
  std::vector<TokenId> tokens;
  Index max_tokens = 0;  // of the whole timeline, prompt and answer; fits the pool
};

/// Before the rows: tokens [0, n) of one page are needed in another.
struct PageCopy {
  std::int32_t from = -1, to = -1;
};
/// Rows of one sequence: its tokens from first_pos on, then drafts. `pages` lives until the next
/// call of the scheduler.
struct ScheduledRows {
  SequenceId id = 0;
  Index first_pos = 0;
  std::vector<TokenId> ids;
  std::span<const std::int32_t> pages;
  Index n_drafts = 0;  // of ids, at the end
  /// Logits of the last 1 + n_drafts rows are wanted; else of none: the prompt goes on.
  bool wants_logits = false;
};
struct Admission {
  SequenceId id = 0;
  Index n_cached = 0;  // tokens found in the tree
  TokenId other = -1;  // what a cached text has behind them instead (PrefixMatch)
};
struct StepPlan {
  std::vector<PageCopy> copies;
  std::vector<ScheduledRows> rows;
  std::vector<Admission> admitted;
  std::vector<SequenceId> preempted;
  Index n_rows = 0;
};

/// The order is that of arrival: older requests get pages first, and where none is left the
/// youngest gives its pages up, waits in its old place and is computed again. Readers come before
/// prompts, so a step holds one row of each of them and fills up with a chunk of a prompt.
///
/// A waiting sequence is let in when the memory planned for it is there, beside what those that run
/// are still going to take; where none runs, always. One whose beginning another is just computing
/// waits for it, so that a prompt asked for many times at once is computed once.
/// Threads: one at a time.
class Scheduler {
 public:
  Scheduler(PagePool& pool, PrefixTree& tree, SchedulerLimits limits);

  /// Asked of a sequence about to be let in: puts what another tier holds of its beginning into the
  /// tree.
  std::function<void(std::string_view tenant, std::span<const TokenId> ids)> restore = {};
  /// Told of pages whose tokens are computed, full ones and the first time only: tokens up to the
  /// end of the last of them, and the pages from first_page on.
  std::function<void(std::string_view tenant, std::span<const TokenId> ids,
                     std::span<const std::int32_t> pages, Index first_page)>
      on_full_pages = {};

  void add(NewSequence sequence);
  /// Done or cancelled; what it has computed stays in the tree.
  void remove(SequenceId id);
  /// For the next step of a sequence whose prompt is computed: guesses at what follows its last
  /// token. As many of them as there is room for are computed.
  void set_drafts(SequenceId id, std::vector<TokenId> drafts);

  StepPlan plan();
  /// The rows of the last plan are in the cache. Comes before append() and remove().
  void computed(const StepPlan& plan);
  /// Tokens drawn after the last one; all but the last of them were accepted drafts of the last
  /// plan, and so are in the cache already.
  void append(SequenceId id, std::span<const TokenId> drawn);

  Index n_waiting() const { return static_cast<Index>(waiting_.size()); }
  Index n_running() const { return static_cast<Index>(running_.size()); }
  bool idle() const { return waiting_.empty() && running_.empty(); }
  /// Sequences whose next row is their last token, oldest first: those that may have drafts.
  std::vector<SequenceId> readers() const;
  /// Of one that runs: the pages of its tokens so far. They live until the next call.
  std::span<const std::int32_t> pages(SequenceId id);
  /// Room for drafts in the next step, over all readers.
  Index draft_room() const { return std::max<Index>(limits_.step_tokens - n_readers(), 0); }
  /// Every page is free or has just the holders that it should have; KOGIA_CHECKs it (for tests).
  void check_pages() const;

 private:
  struct Sequence {
    NewSequence given;  // tokens grow
    std::vector<std::int32_t> pages;
    Index n_cached = 0;     // tokens whose keys and values are in pages
    Index n_announced = 0;  // full pages told of
    std::vector<TokenId> drafts;
    Index n_tokens() const { return static_cast<Index>(given.tokens.size()); }
    bool reads() const { return n_cached + 1 == n_tokens(); }
    /// What may come from elsewhere: logits after the last token are always computed.
    std::span<const TokenId> before_last() const {
      return std::span(given.tokens).first(given.tokens.size() - 1);
    }
  };
  using SequencePtr = std::unique_ptr<Sequence>;

  Index pages_of(Index n_tokens) const { return ceil_div(n_tokens, limits_.page_tokens); }
  Index planned_pages(const Sequence& s) const;
  Index n_readers() const;
  Sequence* find_running(SequenceId id);
  std::int32_t take_page();
  bool grow(Sequence& s, Index n_tokens, StepPlan& plan);
  void preempt(std::size_t index, StepPlan& plan);
  void release_pages(Sequence& s);
  void publish(Sequence& s, bool with_tail);
  void schedule(Sequence& s, Index n, StepPlan& plan);
  void plan_readers(StepPlan& plan);
  void plan_prompts(StepPlan& plan);
  Index room(const StepPlan& plan) const;
  void admit_waiting(StepPlan& plan);
  bool another_computes(const Sequence& s, Index n_matched) const;
  bool fits(const Sequence& s, Index n_matched_pages) const;
  bool try_admit(Sequence& s, StepPlan& plan);
  bool take_prompt_pages(Sequence& s, PrefixMatch& match);

  PagePool& pool_;
  PrefixTree& tree_;
  SchedulerLimits limits_;
  std::vector<SequencePtr> running_;  // by id
  std::deque<SequencePtr> waiting_;   // by id
  Index most_rows_ = 0;               // of the plan that is being made
  std::vector<std::int32_t> copied_;  // sources of the last plan's copies, retained until it ran
};

}  // namespace kogia
