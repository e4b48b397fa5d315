#pragma once
// Many requests at once: the scheduler chooses the rows of a step, the runner computes them, and
// here tokens are drawn and become text.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "infer/engine.h"
#include "infer/generate.h"

namespace kogia {

class BatchDrafter;
class Drafter;
class LowerTier;
class PrefixTree;

/// What is asked for. Prompt and settings are the caller's own of this request alone; nothing of
/// another request changes the answer.
struct Request {
  std::vector<TokenId> prompt;
  GenerateOptions options = {};
  /// Prefixes are shared only among requests of one tenant.
  std::string tenant = {};
};

using RequestId = std::uint64_t;

/// Told from inside step(), of one request; any may be empty. They may submit() and cancel().
struct RequestEvents {
  std::function<void(Index done, Index total)> on_prefill = {};
  std::function<void(const GeneratedPiece&)> on_piece = {};
  std::function<void(Generation)> on_done = {};
  /// Its logits cannot be drawn from (NaN, or everything is masked): the others go on. Where it is
  /// empty, step() throws.
  std::function<void(const Error&)> on_error = {};
};

struct BatcherOptions {
  /// Rows of a step, at most: bounds the gap between two tokens of an answer. 0:
  /// EngineOptions::chunk
  Index step_tokens = 0;
  /// Rows of prompts in a step that others wait for, at most. Products are near their best speed
  /// from there on, so a shorter gap costs little. 0: step_tokens
  Index beside_tokens = 128;
  Index max_sequences = 256;  // that run at once; the others wait
  /// Length of an answer that memory is planned for when a request is let in. Longer ones are right
  /// too: where the pool runs dry the youngest request is set back and computed again.
  Index planned_tokens = 256;
  bool reuse_prefixes = true;
  /// Pages on disk under the tree in memory (infer/disk_tier.h), or null. Outlives the batcher.
  LowerTier* lower_tier = nullptr;
  /// Makes the drafts of one request, or is empty: no speculation.
  std::function<std::unique_ptr<Drafter>(const Request&)> make_drafter = {};
  /// Makes the drafts of all requests together, or is empty. Of the two one at most.
  std::function<std::unique_ptr<BatchDrafter>(Engine&)> make_batch_drafter = {};
};

struct BatcherStats {
  Index n_waiting = 0, n_running = 0;
  // Since the beginning:
  Index n_steps = 0, n_rows = 0;
  Index n_prompt_tokens = 0, n_cached_tokens = 0;  // of them, found in memory or on disk
  Index n_generated = 0, n_drafted = 0, n_accepted = 0;
  Index n_preempted = 0;
  // Of the cache:
  Index n_pages = 0, n_free_pages = 0, n_tree_pages = 0;
};

/// Runs requests until each is done. Answers do not depend on what else runs, on the order of
/// arrival, on what is cached or on preemption: bit for bit those of a request alone.
///
/// Threads  one at a time. step() computes on the device's threads.
class Batcher {
 public:
  Batcher(Engine& engine, BatcherOptions options);
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  /// Throws Error (usage) where the request could never run: no prompt, a token out of range,
  /// longer than the context, settings out of range, stop strings without a tokenizer.
  RequestId submit(Request request, RequestEvents events);
  /// Ends a request with what it has, at once, or called from an event at the end of the step.
  /// False: it is not (any more) here.
  bool cancel(RequestId id, FinishReason reason = FinishReason::kCancelled);
  /// Computes one step. False: nothing to do.
  bool step();
  /// Steps until nothing is left. Ctrl-C ends all with kInterrupted.
  void run();
  /// Ends all requests, as cancel() does.
  void end_all(FinishReason reason);

  /// What is in memory; for saving and loading sessions between steps (infer/session_pages.h).
  PrefixTree& prefixes();
  BatcherStats stats() const;
  /// Scheduler::check_pages().
  void check_pages() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace kogia
