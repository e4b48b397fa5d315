#include "infer/measure_arrival.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "infer/batcher.h"

namespace kogia {
namespace {

constexpr Index kReaderPrompt = 32, kAloneSteps = 48;

std::vector<TokenId> random_text(const Engine& engine, std::uint64_t seed, std::uint64_t which,
                                 Index n) {
  const Philox random(seed, which);
  const auto n_ids = static_cast<std::uint64_t>(engine.n_valid_ids());
  std::vector<TokenId> ids;
  for (Index i = 0; i < n; ++i) {
    ids.push_back(static_cast<TokenId>(random.below(n_ids, static_cast<std::uint64_t>(i))));
  }
  return ids;
}

GenerateOptions greedy(Index max_tokens) {
  return {.sampling = {.temperature = 0}, .max_tokens = max_tokens, .ignore_eos = true};
}

double timed_step(Batcher& batcher) {
  throw_if_interrupted();
  const auto begin = std::chrono::steady_clock::now();
  batcher.step();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Steps until the prompt has its first token.
std::vector<double> read_prompt(Batcher& batcher, std::vector<TokenId> prompt) {
  bool done = false;
  batcher.submit({.prompt = std::move(prompt), .options = greedy(1)},
                 {.on_done = [&](const Generation&) { done = true; }});
  std::vector<double> seconds;
  while (!done) seconds.push_back(timed_step(batcher));
  return seconds;
}

Index n_chunks(const ArrivalCase& c) { return ceil_div(c.prompt, c.chunk); }

}  // namespace

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double Arrival::unexplained() const {
  const double reading = median_of(alone);
  double worst = 0;
  for (std::size_t i = 0; i < std::min(beside.size(), chunks.size()); ++i) {
    worst = std::max(worst, beside[i] / (reading + chunks[i]));
  }
  return worst;
}

Index arrival_tokens(const ArrivalCase& c) {
  const Index reader = kReaderPrompt + kAloneSteps + n_chunks(c) + 8;
  return round_up(c.prompt + 1, kPageTokens) + c.n_readers * round_up(reader, kPageTokens);
}

Arrival measure_arrival(Engine& engine, const ArrivalCase& c) {
  const auto prompt = random_text(engine, c.seed, 0, c.prompt);
  Arrival result;
  {
    Batcher batcher(
        engine,
        {.step_tokens = c.n_readers + c.chunk, .beside_tokens = c.chunk, .reuse_prefixes = false});
    for (Index r = 0; r < c.n_readers; ++r) {
      batcher.submit(
          {.prompt = random_text(engine, c.seed, static_cast<std::uint64_t>(r + 1), kReaderPrompt),
           .options = greedy(kAloneSteps + n_chunks(c) + 4)},
          {});
    }
    for (int warm_up = 0; warm_up < 3; ++warm_up) timed_step(batcher);
    for (Index i = 0; i < kAloneSteps - 2; ++i) result.alone.push_back(timed_step(batcher));
    result.beside = read_prompt(batcher, prompt);
  }
  Batcher batcher(engine, {.step_tokens = c.chunk, .reuse_prefixes = false});
  result.chunks = read_prompt(batcher, prompt);
  return result;
}

}  // namespace kogia
