#include "infer/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace kogia {
namespace {

// 1/13!, 1/12!, … 1/1!, 1/0!
constexpr auto kInverseFactorials = [] {
  std::array<double, 14> c{};
  double factorial = 1;
  for (std::size_t i = 0; i < c.size(); ++i) {
    c[c.size() - 1 - i] = 1 / factorial;
    factorial *= static_cast<double>(i + 1);
  }
  return c;
}();

// exp(x) for x <= 0, the same bits whatever the libm: x = n ln2 + r, exp(r) by its Taylor series,
// whose first term left out is below 2^-52 for |r| <= ln2 / 2. Without a branch or a call, so that
// a loop over it becomes vectors.
double exp_of_nonpositive(double x) {
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  constexpr double kToWhole = 0x1.8p52;  // what is added to it loses its fraction
  const double shifted = x * 1.4426950408889634 + kToWhole;
  const double n = shifted - kToWhole;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 0;
  for (const double coefficient : kInverseFactorials) sum = sum * r + coefficient;
  // The lowest bits of `shifted` are n.
  const auto power = (std::bit_cast<std::uint64_t>(shifted) + 1023) << 52;
  const double y = sum * std::bit_cast<double>(power);
  return x > -708 ? y : 0;
}

void check_range(std::string_view name, double value, double low, double high) {
  if (value >= low && value <= high) return;  // false for NaN
  throw_error(ErrorCode::kUsage, "{} is {}, expected a number from {} to {}", name, value, low,
              high);
}

float clamp_to_float(double x) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (x == -std::numeric_limits<double>::infinity()) return static_cast<float>(x);
  return static_cast<float>(std::clamp(x, -kLargest, kLargest));
}

[[noreturn]] void refuse_nan(std::span<const float> logits) {
  const auto at = std::ranges::find_if(logits, [](float x) { return std::isnan(x); });
  throw Error(
      ErrorCode::kInvalid,
      fmt::format("the logit of token {} is not a number", std::distance(logits.begin(), at)),
      "the weights are damaged, or an activation overflowed; try --compute f32");
}

// The first of the largest; refuses what cannot be a distribution. Lane by lane, as vectors are,
// through blocks of which only the best is looked through again.
std::size_t arg_max(std::span<const float> logits) {
  constexpr std::size_t kLanes = 16, kBlock = 1024;
  constexpr float kLeast = -std::numeric_limits<float>::infinity();
  float largest = kLeast;
  std::size_t best_block = 0;
  bool any_nan = false;
  for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const auto block = logits.subspan(begin, std::min(kBlock, logits.size() - begin));
    std::array<float, kLanes> top;
    std::array<std::int32_t, kLanes> nan{};
    top.fill(kLeast);
    std::size_t i = 0;
    for (; i + kLanes <= block.size(); i += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const float x = block[i + lane];
        top[lane] = x > top[lane] ? x : top[lane];
        nan[lane] |= x != x ? 1 : 0;
      }
    }
    for (; i < block.size(); ++i) {
      top[0] = block[i] > top[0] ? block[i] : top[0];
      nan[0] |= block[i] != block[i] ? 1 : 0;
    }
    any_nan |= std::ranges::any_of(nan, [](std::int32_t x) { return x != 0; });
    const float of_block = *std::ranges::max_element(top);
    if (of_block > largest) largest = of_block, best_block = begin;
  }
  if (any_nan) refuse_nan(logits);
  if (largest == kLeast) {
    throw Error(ErrorCode::kInvalid, "no token can be drawn: every logit is -inf");
  }
  std::size_t best = best_block;
  while (logits[best] != largest) ++best;
  if (std::isinf(largest)) {
    throw_error(ErrorCode::kInvalid, "the logit of token {} is infinite", best);
  }
  return best;
}

using Candidate = SamplerScratch::Candidate;

bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// log(u) for 0 < u < 1, the same bits whatever the libm: u = m 2^e with m around 1, log m = 2
// artanh of (m - 1) / (m + 1) by its series.
double log_of_uniform(double u) {
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  const auto bits = std::bit_cast<std::uint64_t>(u);
  // So that m is in [1/sqrt 2, sqrt 2): its exponent is that of u / sqrt 2, rounded up.
  constexpr std::uint64_t kRootHalf = 0x3FE6A09E667F3BCD;
  const auto e = static_cast<std::int64_t>(bits - kRootHalf) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<std::uint64_t>(e) << 52));
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  const auto whole = static_cast<double>(e);
  return whole * kLn2High + (whole * kLn2Low + 2 * s * sum);
}

/// A random number for each token, of one position.
class TokenNoise {
 public:
  static constexpr std::size_t kBlock = 64;
  explicit TokenNoise(const Philox& stream) : stream_(stream) {}

  /// In (0, 1), never one of them.
  double uniform(TokenId id) const {
    const Philox::Block b = stream_.bits(static_cast<std::uint64_t>(id) / 2);
    return id % 2 == 0 ? of(b[0], b[1]) : of(b[2], b[3]);
  }
  /// Of kBlock tokens; begin is even.
  void uniforms(TokenId begin, std::array<double, kBlock>& out) const {
    const auto counter = static_cast<std::uint64_t>(begin) / 2;
    for (std::size_t i = 0; i < kBlock / 2; ++i) {
      const Philox::Block b = stream_.bits(counter + i);
      out[2 * i] = of(b[0], b[1]);
      out[2 * i + 1] = of(b[2], b[3]);
    }
  }

 private:
  static double of(std::uint32_t low, std::uint32_t high) {
    const std::uint64_t bits = std::uint64_t{high} << 32 | low;
    return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
  }
  Philox stream_;
};

/// Each token comes at a random time, exponential with its weight as the rate; who comes first has
/// won, with a chance of weight / Σ weights. (The logarithm of this is the Gumbel-max trick.) A
/// token's luck is its own: where weights are nearly the same, so is the winner, which is what
/// makes drafts come true at any temperature.
class Race {
 public:
  void enter(TokenId id, double weight, double uniform) {
    // -log u >= 1 - u, so most need no logarithm. (The slack is for rounding.)
    if (!(1 - uniform < best_ * weight * (1 + 1e-9))) return;
    const double time = -log_of_uniform(uniform) / weight;
    if (time > best_ || (time == best_ && id > id_)) return;
    best_ = time, id_ = id, weight_ = weight;
  }
  SampledToken winner(double total) const {
    KOGIA_CHECK(weight_ > 0);  // the best has weight 1 and no stage drops it
    return {.id = id_, .drawn_logprob = static_cast<float>(std::log(weight_ / total))};
  }

 private:
  double best_ = std::numeric_limits<double>::infinity(), weight_ = 0;
  TokenId id_ = 0;
};

/// The stages, on scratch.
class Drawing {
 public:
  Drawing(const SamplingParams& params, std::size_t n_valid_ids, SamplerScratch& scratch)
      : p_(params), n_valid_ids_(n_valid_ids), s_(scratch) {}

  std::span<const float> adjust(std::span<const float> logits, std::span<const TokenId> history,
                                Index n_prompt);
  void weigh_all(std::span<const float> logits, float largest);
  double keep_likely(std::span<const float> logits);
  void keep_top_k(std::span<const float> logits, std::size_t k, float largest);
  double cut_min_p();
  void cut_top_p(double whole);
  SampledToken draw(const TokenNoise& noise) const;
  SampledToken draw_from_all(const TokenNoise& noise) const;

 private:
  void apply_penalties(std::span<const TokenId> history, Index n_prompt);
  double mass_above(double least) const;

  const SamplingParams& p_;
  std::size_t n_valid_ids_;
  SamplerScratch& s_;
};

// Stages 1 and 2. Without any, the logits stay where they are.
std::span<const float> Drawing::adjust(std::span<const float> logits,
                                       std::span<const TokenId> history, Index n_prompt) {
  const bool penalised =
      p_.repetition_penalty != 1 || p_.frequency_penalty != 0 || p_.presence_penalty != 0;
  if (!penalised && p_.logit_bias.empty()) return logits;
  s_.logits.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : p_.logit_bias) {
    float& logit = s_.logits[static_cast<std::size_t>(id)];
    if (std::isfinite(logit)) logit = clamp_to_float(static_cast<double>(logit) + bias);
  }
  if (penalised) apply_penalties(history, n_prompt);
  return s_.logits;
}

void Drawing::apply_penalties(std::span<const TokenId> history, Index n_prompt) {
  s_.counts.resize(n_valid_ids_);
  const auto is_valid = [&](TokenId id) {
    return id >= 0 && static_cast<std::size_t>(id) < n_valid_ids_;
  };
  const auto output = history.subspan(static_cast<std::size_t>(n_prompt));
  for (const TokenId id : output) {
    if (is_valid(id)) ++s_.counts[static_cast<std::size_t>(id)];
  }
  constexpr std::int32_t kDone = -1;
  for (const TokenId id : history) {
    if (!is_valid(id) || s_.counts[static_cast<std::size_t>(id)] == kDone) continue;
    const auto i = static_cast<std::size_t>(id);
    if (std::isfinite(s_.logits[i])) {
      double x = s_.logits[i];
      x = x > 0 ? x / p_.repetition_penalty : x * p_.repetition_penalty;
      x -= p_.frequency_penalty * s_.counts[i];
      x -= s_.counts[i] > 0 ? p_.presence_penalty : 0;
      s_.logits[i] = clamp_to_float(x);
    }
    s_.counts[i] = kDone;
  }
  for (const TokenId id : history) {
    if (is_valid(id)) s_.counts[static_cast<std::size_t>(id)] = 0;
  }
}

// exp((logit - largest) / temperature) of all.
void Drawing::weigh_all(std::span<const float> logits, float largest) {
  s_.weights.resize(logits.size());
  const double top = largest, temperature = p_.temperature;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    s_.weights[i] = exp_of_nonpositive((static_cast<double>(logits[i]) - top) / temperature);
  }
}

// The weights of at least `least`, added up.
double Drawing::mass_above(double least) const {
  constexpr std::size_t kLanes = 4;
  std::array<double, kLanes> sums{};
  const auto add = [&](std::size_t lane, double w) { sums[lane] += w >= least ? w : 0; };
  std::size_t i = 0;
  for (; i + kLanes <= s_.weights.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) add(lane, s_.weights[i + lane]);
  }
  for (; i < s_.weights.size(); ++i) add(0, s_.weights[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Gathers what min-p leaves, of which top-p may need no more than the likeliest: those above a
// weight that is lowered until they have its share together. So few are gathered where few are
// likely. Returns the mass of all that min-p leaves.
double Drawing::keep_likely(std::span<const float> logits) {
  double least = p_.min_p, mass = 0;
  if (p_.top_p < 1) {
    mass = mass_above(least);
    constexpr double kStep = 0x1p-4, kLowest = 0x1p-40;
    double above = kStep;
    while (above > kLowest && mass_above(above) < p_.top_p * mass) above *= kStep;
    if (above > kLowest) least = std::max(least, above);
  }
  s_.candidates.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (s_.weights[i] < least) continue;
    s_.candidates.push_back({static_cast<TokenId>(i), logits[i], s_.weights[i]});
  }
  return mass;
}

// One pass: what cannot be among the k best is dropped on sight, the rest is cut down to k whenever
// 2k have gathered. About n comparisons and a few selections of 2k; the vocabulary is never sorted.
void Drawing::keep_top_k(std::span<const float> logits, std::size_t k, float largest) {
  s_.candidates.clear();
  float threshold = -std::numeric_limits<float>::infinity();
  const auto cut = [&] {
    if (s_.candidates.size() <= k) return;
    const auto kth = s_.candidates.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(s_.candidates.begin(), kth, s_.candidates.end(), better);
    threshold = kth->logit;
    s_.candidates.resize(k);
  };
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // Equal to the threshold loses: k tokens with lower ids are at least as good.
    if (!(logits[i] > threshold)) continue;
    s_.candidates.push_back({static_cast<TokenId>(i), logits[i], 0});
    if (s_.candidates.size() >= 2 * k) cut();
  }
  cut();
  std::ranges::sort(s_.candidates, better);
  for (Candidate& c : s_.candidates) {
    c.weight = exp_of_nonpositive((static_cast<double>(c.logit) - static_cast<double>(largest)) /
                                  p_.temperature);
  }
}

double Drawing::cut_min_p() {
  std::erase_if(s_.candidates, [&](const Candidate& c) { return c.weight < p_.min_p; });
  double mass = 0;
  for (const Candidate& c : s_.candidates) mass += c.weight;
  return mass;
}

// Keeps a token while those before it fall short of top_p of the whole. The slack is for logits
// that are floats: 0.5 and 0.3 do reach 0.8. Only as many as needed are sorted, a few at first,
// then more.
void Drawing::cut_top_p(double whole) {
  const double enough = p_.top_p * whole * (1 - 1e-6);

  double mass = 0;
  std::size_t kept = 0, sorted = 0, block = 64;
  const auto at = [&](std::size_t i) {
    return s_.candidates.begin() + static_cast<std::ptrdiff_t>(i);
  };
  while (kept < s_.candidates.size() && (kept == 0 || mass < enough)) {
    if (kept == sorted) {
      sorted = std::min(s_.candidates.size(), sorted + block);
      block *= 4;
      if (sorted < s_.candidates.size()) {
        std::nth_element(at(kept), at(sorted), s_.candidates.end(), better);
      }
      std::sort(at(kept), at(sorted), better);
    }
    mass += s_.candidates[kept++].weight;
  }
  s_.candidates.resize(kept);
}

SampledToken Drawing::draw(const TokenNoise& noise) const {
  Race race;
  double total = 0;
  for (const Candidate& c : s_.candidates) {
    race.enter(c.id, c.weight, noise.uniform(c.id));
    total += c.weight;
  }
  return race.winner(total);
}

// The same where nothing was cut.
SampledToken Drawing::draw_from_all(const TokenNoise& noise) const {
  Race race;
  std::array<double, TokenNoise::kBlock> uniforms;
  const std::size_t n = s_.weights.size();
  for (std::size_t begin = 0; begin < n; begin += uniforms.size()) {
    noise.uniforms(static_cast<TokenId>(begin), uniforms);
    const std::size_t end = std::min(n, begin + uniforms.size());
    for (std::size_t i = begin; i < end; ++i) {
      race.enter(static_cast<TokenId>(i), s_.weights[i], uniforms[i - begin]);
    }
  }
  return race.winner(mass_above(0));
}

}  // namespace

void validate(const SamplingParams& p) {
  constexpr double kMost = 1e6;
  check_range("temperature", p.temperature, 0, kMost);
  if (p.top_k < 0) {
    throw_error(ErrorCode::kUsage, "top_k is {}, expected 0 (off) or a positive number", p.top_k);
  }
  check_range("top_p", p.top_p, 0, 1);
  check_range("min_p", p.min_p, 0, 1);
  check_range("repetition_penalty", p.repetition_penalty, 0.01, 100);
  check_range("frequency_penalty", p.frequency_penalty, -2, 2);
  check_range("presence_penalty", p.presence_penalty, -2, 2);
  constexpr double kLargestBias = 100;
  for (const auto& [id, bias] : p.logit_bias) {
    check_range(fmt::format("logit_bias of token {}", id), bias, -kLargestBias, kLargestBias);
  }
}

Sampler::Sampler(SamplingParams params, Index n_valid_ids)
    : params_(std::move(params)), n_valid_ids_(static_cast<std::size_t>(n_valid_ids)) {
  KOGIA_CHECK(n_valid_ids > 0);
  validate(params_);
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id < 0 || id >= n_valid_ids) {
      throw_error(ErrorCode::kUsage, "logit_bias names token {}, expected an id from 0 to {}", id,
                  n_valid_ids - 1);
    }
  }
}

SampledToken Sampler::sample(std::span<const float> all_logits, std::span<const TokenId> history,
                             Index n_prompt, std::uint64_t prompt_key, std::uint64_t sample_key,
                             SamplerScratch& scratch) const {
  KOGIA_CHECK(all_logits.size() >= n_valid_ids_);
  KOGIA_CHECK(n_prompt >= 0 && static_cast<std::size_t>(n_prompt) <= history.size());
  Drawing drawing(params_, n_valid_ids_, scratch);
  const auto logits = drawing.adjust(all_logits.first(n_valid_ids_), history, n_prompt);
  const std::size_t best = arg_max(logits);
  if (params_.temperature == 0) return {.id = static_cast<TokenId>(best), .drawn_logprob = 0};

  const TokenNoise noise(Philox(params_.seed, prompt_key, sample_key, history.size()));
  const auto k = static_cast<std::size_t>(params_.top_k);
  double whole = 0;  // the mass that top_p is a share of
  if (k > 0 && k < logits.size()) {
    drawing.keep_top_k(logits, k, logits[best]);
    whole = drawing.cut_min_p();
  } else {
    drawing.weigh_all(logits, logits[best]);
    if (params_.min_p == 0 && params_.top_p == 1) return drawing.draw_from_all(noise);
    whole = drawing.keep_likely(logits);
  }
  if (params_.top_p < 1) drawing.cut_top_p(whole);
  return drawing.draw(noise);
}

}  // namespace kogia
