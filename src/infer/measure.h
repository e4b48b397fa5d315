#pragma once
// How fast a model reads prompts and writes tokens, on random tokens: what `kogia bench` prints.

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "infer/engine.h"
#include "model/active_weights.h"

namespace kogia {

/// Timelines side by side in a cache of their own, each with a random text of its own that never
/// changes: the token at a position is a function of seed, timeline and position. So what is in the
/// cache stays right however often a stretch is computed again.
class RandomTimelines {
 public:
  /// Room for room[i] tokens in timeline i.
  RandomTimelines(Engine& engine, std::span<const Index> room, std::uint64_t seed);
  /// Memory that so many tokens take in the cache, once all are there.
  static Index cache_bytes(Engine& engine, std::span<const Index> room);

  using OnTokens = std::function<void(Index n)>;
  /// Positions [0, depth) of timelines [0, n): what is missing is computed, several timelines in a
  /// step. Returns how many tokens that were. Ctrl-C is looked for between steps (throws).
  Index fill(Index n, Index depth, const OnTokens& on_tokens = {});
  Index n_missing(Index n, Index depth) const;
  /// Positions [begin, begin + n) of timeline 0 in chunks, logits after the last. All before must
  /// be there.
  void prefill(Index begin, Index n);
  /// The token at `position` of each of timelines [0, n), and logits after it. All before must be
  /// there. Returns the bytes of routed experts that the step read.
  Index decode(Index n, Index position);

  TokenId token(Index timeline, Index position) const;
  Index cached(Index timeline) const { return timelines_[index(timeline)].cached; }
  /// Of the last step: [rows asked for, vocab_size].
  ConstMat logits() const { return logits_; }

 private:
  struct Timeline {
    std::vector<std::int32_t> pages;
    Index cached = 0;  // positions [0, cached) are in the cache
  };
  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }
  /// Adds rows to the next step.
  void add(Index timeline, Index begin, Index n, bool want_logits);
  void run();

  Engine& engine_;
  CachePool pool_;
  std::uint64_t seed_;
  std::vector<Timeline> timelines_;
  std::vector<TokenId> ids_;
  std::vector<SequenceRows> sequences_;
  std::vector<std::int32_t> logit_rows_;
  ConstMat logits_;
};

/// What a repetition took.
struct Elapsed {
  double wall_s = 0;
  double cpu_s = 0;  // of all threads of the program, waiting in a loop included
};

/// Tokens per second over several repetitions, at least one.
struct Speed {
  double median = 0, least = 0, most = 0;
  double per_cpu_s = 0;  // tokens per second of processor time, of all repetitions together
};
Speed speed_of(std::span<const Elapsed> repetitions, Index n_tokens);

struct MeasureOptions {
  Index repeat = 3;
  std::uint64_t seed = 0;
  bool show_progress = true;
};

struct MeasureCase {
  Index prompt = 512;  // tokens of one prompt at this depth; 0: no prefill
  Index gen = 64;      // steps of decode at this depth; 0: none
  Index depth = 0;     // tokens that every timeline holds in the cache before
  Index batch = 1;     // timelines that decode together
};

struct Measurement {
  std::optional<Speed> prefill;  // of one timeline, whatever the batch
  std::optional<Speed> decode;   // tokens of all timelines together
  // Of a decoded token: what a step reads, by the number of timelines that share it. Routed experts
  // are counted as the steps touched them, each once a step.
  double weight_bytes_per_token = 0, cache_bytes_per_token = 0;
};

/// Measures cases that differ in prompt, gen, depth and batch. What two of them have in common is
/// measured once.
class Measurer {
 public:
  Measurer(Engine& engine, std::span<const MeasureCase> cases, const MeasureOptions& options);

  /// `c` is one of the cases. Ctrl-C throws kInterrupted.
  Measurement measure(const MeasureCase& c);
  const ActiveWeights& active() const { return active_; }

  /// Tokens that each timeline needs room for, so that every case can run.
  static std::vector<Index> room_for(std::span<const MeasureCase> cases);

 private:
  struct Decode {
    Speed speed;
    double weight_bytes_per_token = 0;
  };
  Speed measure_prefill(const MeasureCase& c);
  Decode measure_decode(const MeasureCase& c);
  void fill(Index n, Index depth);
  double cache_bytes_per_token(const MeasureCase& c) const;

  Engine& engine_;
  MeasureOptions options_;
  ActiveWeights active_;
  RandomTimelines timelines_;
  Index warmed_rows_ = 0;  // of the largest step so far: buffers have grown to it
  std::map<std::pair<Index, Index>, Speed> prefill_;          // by prompt, depth
  std::map<std::tuple<Index, Index, Index>, Decode> decode_;  // by gen, depth, batch
};

}  // namespace kogia
