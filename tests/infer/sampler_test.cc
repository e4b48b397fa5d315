#include "infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"

namespace kogia {
namespace {

using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
const std::vector<TokenId> kNoHistory;

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<float> random_logits(std::size_t n, std::uint64_t seed) {
  const Philox random(seed);
  std::vector<float> logits(n);
  for (std::size_t i = 0; i < n; ++i) logits[i] = 3 * random.normal(i);
  return logits;
}

// The same definitions, written for clarity: sort everything, cut, renormalise.
std::vector<double> plain_distribution(const std::vector<float>& logits, const SamplingParams& p) {
  const std::size_t n = logits.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](auto a, auto b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  if (p.top_k > 0) order.resize(std::min(n, static_cast<std::size_t>(p.top_k)));
  std::vector<double> weight(n, 0);
  for (const std::size_t i : order) {
    weight[i] = std::exp((double{logits[i]} - double{logits[order[0]]}) / p.temperature);
  }
  std::erase_if(order, [&](std::size_t i) { return weight[i] < p.min_p; });
  double total = 0, before = 0;
  for (const std::size_t i : order) total += weight[i];
  std::vector<double> kept(n, 0);
  for (const std::size_t i : order) {
    if (before > 0 && before >= p.top_p * total * (1 - 1e-6)) break;
    before += weight[i];
    kept[i] = weight[i];
  }
  for (double& w : kept) w /= before;
  return kept;
}

SamplerScratch scratch;  // shared by all, as samplers do

SampledToken sample_at(Sampler& sampler, const std::vector<float>& logits, std::uint64_t sample) {
  return sampler.sample(logits, kNoHistory, 0, /*prompt_key=*/0, sample, scratch);
}

std::vector<double> measured_distribution(const std::vector<float>& logits,
                                          const SamplingParams& params, int n_draws) {
  Sampler sampler(params, static_cast<Index>(logits.size()));
  std::vector<double> share(logits.size(), 0);
  for (int i = 0; i < n_draws; ++i) {
    const auto token = sample_at(sampler, logits, static_cast<std::uint64_t>(i));
    share[static_cast<std::size_t>(token.id)] += 1.0 / n_draws;
  }
  return share;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

TEST(Sampler, TemperatureZeroTakesTheLargestAndTiesGoToTheLowerId) {
  Sampler sampler({.temperature = 0}, 5);
  EXPECT_EQ(sample_at(sampler, {1, 3, 2, 3, 3}, 0).id, 1);
  EXPECT_EQ(sample_at(sampler, {-1, -1, -1, -1, -1}, 7).id, 0);
  EXPECT_EQ(sample_at(sampler, {-kInf, -kInf, -3, -kInf, -3}, 7).id, 2);
}

TEST(Sampler, RowsWithoutATokenAreNeverDrawn) {  // T09
  const std::vector<float> logits{0, 1, 2, 99, 99};
  Sampler greedy({.temperature = 0}, 3);
  EXPECT_EQ(sample_at(greedy, logits, 0).id, 2);
  Sampler hot({.temperature = 100}, 3);
  for (std::uint64_t i = 0; i < 200; ++i) EXPECT_LT(sample_at(hot, logits, i).id, 3);
}

TEST(Sampler, DrawnLogProbabilitiesAreThoseOfTheScaledLogits) {  // R05
  const std::vector<float> logits{2, 0, -1};
  const auto expect_log_probs = [&](double temperature, const std::vector<double>& expected) {
    Sampler sampler({.temperature = temperature}, 3);
    std::set<TokenId> seen;
    for (std::uint64_t i = 0; i < 3000; ++i) {
      const auto token = sample_at(sampler, logits, i);
      seen.insert(token.id);
      ASSERT_NEAR(token.drawn_logprob, expected[static_cast<std::size_t>(token.id)], 1e-6);
    }
    EXPECT_EQ(seen.size(), 3U);
  };
  expect_log_probs(0.6, {-0.041537, -3.374871, -5.041537});
  expect_log_probs(1.0, {-0.169846, -2.169846, -3.169846});
}

TEST(Sampler, TopPRenormalisesOverWhatItKeeps) {  // R05
  const auto logits = logs({0.5, 0.3, 0.15, 0.05});
  Sampler sampler({.top_p = 0.8}, 4);
  std::set<TokenId> seen;
  for (std::uint64_t i = 0; i < 500; ++i) {
    const auto token = sample_at(sampler, logits, i);
    seen.insert(token.id);
    ASSERT_NEAR(token.drawn_logprob, token.id == 0 ? -0.470004 : std::log(0.3 / 0.8), 1e-6);
  }
  EXPECT_EQ(seen, (std::set<TokenId>{0, 1})) << "0.5 + 0.3 reach 0.8";
}

TEST(Sampler, TopPKeepsTheTokenThatCrossesTheBorderAndAtLeastOne) {
  const auto logits = logs({0.15, 0.5, 0.05, 0.3});
  for (const auto& [top_p, kept] : std::vector<std::pair<double, std::set<TokenId>>>{
           {0, {1}}, {0.4, {1}}, {0.6, {1, 3}}, {0.81, {0, 1, 3}}, {0.96, {0, 1, 2, 3}}}) {
    Sampler sampler({.top_p = top_p}, 4);
    std::set<TokenId> seen;
    for (std::uint64_t i = 0; i < 500; ++i) seen.insert(sample_at(sampler, logits, i).id);
    EXPECT_EQ(seen, kept) << top_p;
  }
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  const auto logits = logs({0.5, 0.26, 0.19, 0.05});
  Sampler sampler({.min_p = 0.5}, 4);
  std::set<TokenId> seen;
  for (std::uint64_t i = 0; i < 500; ++i) seen.insert(sample_at(sampler, logits, i).id);
  EXPECT_EQ(seen, (std::set<TokenId>{0, 1}));
}

TEST(Sampler, TopKCutsTiesByLowerId) {
  const std::vector<float> logits{1, 2, 2, 2, 0, 2};
  Sampler sampler({.top_k = 3}, 6);
  std::set<TokenId> seen;
  for (std::uint64_t i = 0; i < 300; ++i) seen.insert(sample_at(sampler, logits, i).id);
  EXPECT_EQ(seen, (std::set<TokenId>{1, 2, 3}));
}

TEST(Sampler, StagesAgreeWithSortingEverything) {
  const std::vector<float> logits = random_logits(1501, /*seed=*/5);
  const std::vector<SamplingParams> cases{
      {.temperature = 0.7},
      {.temperature = 1.3, .top_k = 1},
      {.temperature = 1.3, .top_k = 41},
      {.temperature = 1.0, .top_k = 1500, .top_p = 0.5},
      {.temperature = 0.8, .top_p = 0.95},
      {.temperature = 3.0, .top_p = 0.99},
      {.temperature = 1.0, .top_k = 100, .top_p = 0.9, .min_p = 0.02},
      {.temperature = 2.0, .min_p = 0.1},
  };
  for (std::size_t c = 0; c < cases.size(); ++c) {
    SCOPED_TRACE(c);
    const auto expected = plain_distribution(logits, cases[c]);
    Sampler sampler(cases[c], 1501);
    for (std::uint64_t i = 0; i < 300; ++i) {
      const auto token = sample_at(sampler, logits, i);
      const double p = expected[static_cast<std::size_t>(token.id)];
      ASSERT_GT(p, 0) << "token " << token.id << " should have been cut";
      ASSERT_NEAR(token.drawn_logprob, std::log(p), 2e-6);
    }
  }
}

// Pearson's statistic over 20 000 draws; 12 degrees of freedom, 0.1 % level 32.9. Seeds are fixed,
// so the test gives one answer for ever; the level says that it is not a lucky one.
TEST(Sampler, DrawsFollowTheDistribution) {
  const std::vector<float> logits = random_logits(13, /*seed=*/9);
  constexpr int kDraws = 20000;
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const SamplingParams params{.temperature = 1.5, .seed = seed};
    const auto expected = plain_distribution(logits, params);
    const auto measured = measured_distribution(logits, params, kDraws);
    double statistic = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double difference = (measured[i] - expected[i]) * kDraws;
      statistic += difference * difference / (expected[i] * kDraws);
    }
    EXPECT_LT(statistic, 32.9) << "seed " << seed;
    EXPECT_GT(statistic, 2.2) << "suspiciously even, seed " << seed;
  }
}

TEST(Sampler, TheNumberDependsOnSeedPromptSampleAndPositionAlone) {
  const std::vector<float> logits(1000, 0.0f);
  const std::vector<TokenId> history{4, 5, 6};
  const auto draw = [&](std::uint64_t seed, std::uint64_t prompt, std::uint64_t sample,
                        std::size_t position, int calls_before = 0) {
    Sampler sampler({.seed = seed}, 1000);
    for (int i = 0; i < calls_before; ++i) sample_at(sampler, logits, 99);
    return sampler.sample(logits, std::span(history).first(position), 0, prompt, sample, scratch)
        .id;
  };
  const TokenId base = draw(1, 2, 3, 3);
  EXPECT_EQ(draw(1, 2, 3, 3, /*calls_before=*/5), base);
  EXPECT_NE(draw(2, 2, 3, 3), base);
  EXPECT_NE(draw(1, 3, 3, 3), base);
  EXPECT_NE(draw(1, 2, 4, 3), base);
  EXPECT_NE(draw(1, 2, 3, 2), base);
}

// What drafts live from: whatever the distribution, another one near to it draws another token
// seldom, at most with twice the chance by which they differ.
TEST(Sampler, NearlyTheSameLogitsDrawNearlyAlwaysTheSameToken) {
  constexpr int kDraws = 4000;
  for (const SamplingParams& p : {SamplingParams{}, SamplingParams{.top_k = 50},
                                  SamplingParams{.top_p = 0.9}, SamplingParams{.min_p = 0.01}}) {
    const std::vector<float> logits = random_logits(1000, 3);
    std::vector<float> other = logits;
    const std::vector<float> off = random_logits(1000, 4);
    for (std::size_t i = 0; i < other.size(); ++i) other[i] += 0.05F * off[i];
    const auto a = plain_distribution(logits, p), b = plain_distribution(other, p);
    double differ = 0;
    for (std::size_t i = 0; i < a.size(); ++i) differ += 0.5 * std::abs(a[i] - b[i]);
    Sampler sampler(p, 1000);
    int n_other = 0;
    for (std::uint64_t i = 0; i < kDraws; ++i) {
      n_other += sample_at(sampler, logits, i).id != sample_at(sampler, other, i).id;
    }
    const double share = static_cast<double>(n_other) / kDraws;
    EXPECT_GT(share, 0.5 * differ) << "less than that no two draws of these can differ";
    EXPECT_LT(share, 2 * differ / (1 + differ) + 0.02);
  }
}

// A large vocabulary goes through other code than a few candidates, with the same luck.
TEST(Sampler, ATokenHasTheSameLuckHoweverManyThereAre) {
  std::vector<float> logits(301, -kInf);
  for (const std::size_t i : {3U, 64U, 130U, 255U, 300U})
    logits[i] = 0.1F * static_cast<float>(i % 7);
  Sampler all({}, 301), few({.top_k = 5}, 301);
  std::set<TokenId> drawn;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const TokenId id = sample_at(all, logits, i).id;
    EXPECT_EQ(id, sample_at(few, logits, i).id);
    drawn.insert(id);
  }
  EXPECT_EQ(drawn.size(), 5U);
}

TEST(Sampler, PenaltiesAreThoseOfVllm) {
  // prompt 0 1, output 1 2 2: repetition sees 0, 1, 2; frequency and presence see the output.
  const std::vector<TokenId> history{0, 1, 1, 2, 2};
  const std::vector<float> logits{2, -2, 4, 1};
  Sampler sampler({.repetition_penalty = 2, .frequency_penalty = 0.25, .presence_penalty = 0.5}, 4);
  // 2/2, -2*2 - 0.25 - 0.5, 4/2 - 2*0.25 - 0.5, 1
  const std::vector<float> adjusted{1, -4.75, 1, 1};
  const auto expected = plain_distribution(adjusted, {});
  std::set<TokenId> seen;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const auto token = sampler.sample(logits, history, 2, 0, i, scratch);
    seen.insert(token.id);
    ASSERT_NEAR(token.drawn_logprob, std::log(expected[static_cast<std::size_t>(token.id)]), 1e-6);
  }
  EXPECT_EQ(seen.size(), 4U);
  // Nothing stays behind for the next call.
  EXPECT_EQ(sampler.sample(logits, {}, 0, 0, 1, scratch).id,
            Sampler({}, 4).sample(logits, {}, 0, 0, 1, scratch).id);
}

TEST(Sampler, HistoryMayHoldIdsWithoutAToken) {
  const std::vector<TokenId> history{-1, 3, 7, 1};
  Sampler sampler({.temperature = 0, .repetition_penalty = 10}, 3);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 2, 1.5, 9}, history, 2, 0, 0, scratch).id, 2);
}

TEST(Sampler, BiasComesBeforePenaltiesAndCannotReviveWhatIsImpossible) {
  Sampler biased({.temperature = 0, .logit_bias = {{2, 100.0}, {0, -100.0}}}, 3);
  EXPECT_EQ(sample_at(biased, {5, 4, -3}, 0).id, 2);
  EXPECT_EQ(sample_at(biased, {5, 4, -kInf}, 0).id, 1);
  // (1 + 3) / 2 = 2 beats 1.9; were the bias added after the penalty, 0.5 + 3 would beat 3.2 too.
  Sampler both({.temperature = 0, .repetition_penalty = 2, .logit_bias = {{0, 3.0}}}, 2);
  EXPECT_EQ(both.sample(std::vector<float>{1, 1.9f}, std::vector<TokenId>{0}, 1, 0, 0, scratch).id,
            0);
  EXPECT_EQ(both.sample(std::vector<float>{1, 3.2f}, std::vector<TokenId>{0}, 1, 0, 0, scratch).id,
            1);
}

TEST(Sampler, LogitsThatAreNoNumbersAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature, .top_k = 2}, 3);
    EXPECT_THAT(message_of([&] { sample_at(sampler, {1, nan, 2}, 0); }),
                HasSubstr("the logit of token 1 is not a number"));
    EXPECT_THAT(message_of([&] { sample_at(sampler, {1, 0, kInf}, 0); }),
                HasSubstr("the logit of token 2 is infinite"));
    EXPECT_THAT(message_of([&] { sample_at(sampler, {-kInf, -kInf, -kInf}, 0); }),
                HasSubstr("every logit is -inf"));
  }
}

TEST(Sampler, ExtremeSettingsStayDefined) {
  const std::vector<float> logits{3e38f, -3e38f, 3e38f, -kInf};
  Sampler cold({.temperature = 1e-300}, 4);
  Sampler hot({.temperature = 1e6, .repetition_penalty = 0.01}, 4);
  const std::vector<TokenId> history{0, 1, 2, 3};
  for (std::uint64_t i = 0; i < 100; ++i) {
    const auto token = cold.sample(logits, {}, 0, 0, i, scratch);
    EXPECT_TRUE(token.id == 0 || token.id == 2);
    EXPECT_NEAR(token.drawn_logprob, std::log(0.5), 1e-6);
    EXPECT_NE(hot.sample(logits, history, 0, 0, i, scratch).id, 3);
  }
}

TEST(Sampler, ParametersOutOfRangeAreNamed) {
  const double nan = std::nan("");
  EXPECT_THAT(message_of([] { validate({.temperature = -1}); }), HasSubstr("temperature is -1"));
  EXPECT_THAT(message_of([&] { validate({.temperature = nan}); }), HasSubstr("temperature is nan"));
  EXPECT_THAT(message_of([] { validate({.top_k = -3}); }), HasSubstr("top_k is -3"));
  EXPECT_THAT(message_of([] { validate({.top_p = 1.5}); }), HasSubstr("top_p is 1.5"));
  EXPECT_THAT(message_of([] { validate({.min_p = -0.1}); }), HasSubstr("min_p is -0.1"));
  EXPECT_THAT(message_of([] { validate({.repetition_penalty = 0}); }),
              HasSubstr("repetition_penalty is 0"));
  EXPECT_THAT(message_of([] { validate({.frequency_penalty = 3}); }),
              HasSubstr("frequency_penalty is 3, expected a number from -2 to 2"));
  EXPECT_THAT(message_of([] { validate({.logit_bias = {{7, 101.0}}}); }),
              HasSubstr("logit_bias of token 7 is 101"));
  EXPECT_THAT(message_of([] { Sampler({.logit_bias = {{7, 1.0}}}, 7); }),
              HasSubstr("logit_bias names token 7, expected an id from 0 to 6"));
  EXPECT_EQ(message_of([] { validate({}); }), "(no error)");
}

}  // namespace
}  // namespace kogia
