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
// whose first term left out is below 2^-52 for |r| <= ln2 / 2.
double exp_of_nonpositive(double x) {
  if (!(x > -708)) return 0;
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;
  const double n = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 0;
  for (const double coefficient : kInverseFactorials) sum = sum * r + coefficient;
  const auto exponent = static_cast<std::uint64_t>(1023 + static_cast<std::int64_t>(n));
  return sum * std::bit_cast<double>(exponent << 52);
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

// The first of the largest; refuses what cannot be a distribution.
std::size_t arg_max(std::span<const float> logits) {
  std::size_t best = 0;
  float largest = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > largest) {
      largest = logits[i];
      best = i;
    } else if (std::isnan(logits[i])) {
      throw Error(ErrorCode::kInvalid, fmt::format("the logit of token {} is not a number", i),
                  "the weights are damaged, or an activation overflowed; try --compute f32");
    }
  }
  if (std::isinf(largest)) {
    throw_error(ErrorCode::kInvalid, "{}",
                largest > 0 ? fmt::format("the logit of token {} is infinite", best)
                            : std::string("no token can be drawn: every logit is -inf"));
  }
  return best;
}

using Candidate = SamplerScratch::Candidate;

bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// The stages, on scratch.
class Drawing {
 public:
  Drawing(const SamplingParams& params, std::size_t n_valid_ids, SamplerScratch& scratch)
      : p_(params), n_valid_ids_(n_valid_ids), s_(scratch) {}

  std::span<const float> adjust(std::span<const float> logits, std::span<const TokenId> history,
                                Index n_prompt);
  void keep_all(std::span<const float> logits, float largest);
  void keep_top_k(std::span<const float> logits, std::size_t k, float largest);
  void cut_min_p();
  void cut_top_p();
  SampledToken draw(double uniform);

 private:
  void apply_penalties(std::span<const TokenId> history, Index n_prompt);

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

void Drawing::keep_all(std::span<const float> logits, float largest) {
  s_.candidates.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double weight = exp_of_nonpositive(
        (static_cast<double>(logits[i]) - static_cast<double>(largest)) / p_.temperature);
    s_.candidates.push_back({static_cast<TokenId>(i), logits[i], weight});
  }
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

void Drawing::cut_min_p() {
  std::erase_if(s_.candidates, [&](const Candidate& c) { return c.weight < p_.min_p; });
}

// Keeps a token while those before it fall short of top_p. The slack is for logits that are floats:
// 0.5 and 0.3 do reach 0.8. Only as many as needed are sorted, a few at first, then more.
void Drawing::cut_top_p() {
  double total = 0;
  for (const Candidate& c : s_.candidates) total += c.weight;
  const double enough = p_.top_p * total * (1 - 1e-6);

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

// The inverse of the cumulative distribution, in order of id: the choice depends on which tokens
// are left, not on how the stages found them.
SampledToken Drawing::draw(double uniform) {
  if (!std::ranges::is_sorted(s_.candidates, {}, &Candidate::id)) {
    std::ranges::sort(s_.candidates, {}, &Candidate::id);
  }
  double total = 0;
  for (const Candidate& c : s_.candidates) total += c.weight;
  const double target = uniform * total;
  double sum = 0;
  const Candidate* chosen = nullptr;
  for (const Candidate& c : s_.candidates) {
    if (c.weight == 0) continue;
    chosen = &c;  // the last of any weight, should rounding leave the target beyond the end
    sum += c.weight;
    if (target < sum) break;
  }
  KOGIA_CHECK(chosen != nullptr);  // the best has weight 1 and no stage drops it
  return {.id = chosen->id, .drawn_logprob = static_cast<float>(std::log(chosen->weight / total))};
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

  const auto k = static_cast<std::size_t>(params_.top_k);
  if (k > 0 && k < logits.size()) {
    drawing.keep_top_k(logits, k, logits[best]);
  } else {
    drawing.keep_all(logits, logits[best]);
  }
  if (params_.min_p > 0) drawing.cut_min_p();
  if (params_.top_p < 1) drawing.cut_top_p();
  const Philox random(params_.seed, prompt_key, sample_key);
  return drawing.draw(random.uniform(history.size()));
}

}  // namespace kogia
