// The choice of experts: cases N03, ties, masks, and against a plain sort.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "device/device_testing.h"

namespace kogia::testing {
namespace {

struct Choice {
  std::vector<std::int32_t> experts;
  std::vector<float> weights;
};

Choice run_route(Device& device, RouteArgs args, const std::vector<float>& logits,
                 const std::vector<float>& bias = {}) {
  args.logits = logits.data();
  args.bias = bias.empty() ? nullptr : bias.data();
  args.rows = static_cast<Index>(logits.size()) / args.n_experts;
  const auto n = static_cast<std::size_t>(args.rows * args.top_k);
  Choice out = {std::vector<std::int32_t>(n), std::vector<float>(n)};
  args.experts = out.experts.data();
  args.weights = out.weights.data();
  device.route(args);
  return out;
}

const RouteArgs kV3 = {.n_experts = 8,
                       .top_k = 3,
                       .n_group = 4,
                       .topk_group = 2,
                       .score = RouterScore::kSigmoid,
                       .group_score = GroupScore::kTop2Sum,
                       .normalise = true,
                       .scale = 2.5F};

// cases N03
TEST(Route, V3ChoosesByBiasedScoresInTheBestGroupsAndWeighsByUnbiasedOnes) {
  const std::vector<float> logits = {1.9F, -0.5F, 1.2F, -0.3F, -1.3F, -0.7F, -1.5F, 1.6F};
  const std::vector<float> bias = {0.1F, -1.0F, -0.4F, -0.6F, -1.0F, -0.8F, -0.9F, -0.2F};
  for_each_cpu_target([&](Device& device) {
    const Choice c = run_route(device, kV3, logits, bias);
    EXPECT_EQ(c.experts, (std::vector<std::int32_t>{0, 2, 3}));
    expect_near(c.weights, std::vector<float>{1.053661F, 0.930880F, 0.515459F}, {.abs = 1e-6});

    RouteArgs max = kV3;
    max.group_score = GroupScore::kMax;
    EXPECT_EQ(run_route(device, max, logits, bias).experts, (std::vector<std::int32_t>{0, 7, 1}));
  });
}

TEST(Route, V2LiteIsSoftmaxOverAllExpertsWithoutRenormalising) {
  RouteArgs args = {.n_experts = 4, .top_k = 2, .score = RouterScore::kSoftmax, .scale = 16};
  for_each_cpu_target([&](Device& device) {
    const Choice c = run_route(device, args, {2, 1, 0, -1});
    EXPECT_EQ(c.experts, (std::vector<std::int32_t>{0, 1}));
    expect_near(c.weights, std::vector<float>{16 * 0.643914F, 16 * 0.236883F}, {.rel = 1e-6});
  });
}

TEST(Route, MaskedGroupsStayOutEvenWhenAllKeptChoicesAreNegative) {
  // Groups {0,1} and {2,3}; the second is better by its sum, and every choice value is below 0.
  RouteArgs args = {.n_experts = 4,
                    .top_k = 2,
                    .n_group = 2,
                    .topk_group = 1,
                    .score = RouterScore::kSigmoid,
                    .group_score = GroupScore::kTop2Sum};
  for_each_cpu_target([&](Device& device) {
    const Choice c = run_route(device, args, {0, 0, 1, 1}, {-5, -5, -4, -4.5F});
    EXPECT_EQ(c.experts, (std::vector<std::int32_t>{2, 3}));
  });
}

TEST(Route, EqualScoresGoToTheLowerId) {
  for_each_cpu_target([](Device& device) {
    const std::vector<float> logits(16, 0.25F);
    RouteArgs args = {.n_experts = 16, .top_k = 5, .score = RouterScore::kSoftmax};
    EXPECT_EQ(run_route(device, args, logits).experts, (std::vector<std::int32_t>{0, 1, 2, 3, 4}));
    args.n_group = 4;
    args.topk_group = 2;  // equal groups: the first two
    EXPECT_EQ(run_route(device, args, logits).experts, (std::vector<std::int32_t>{0, 1, 2, 3, 4}));
    args.score = RouterScore::kSigmoid;
    args.group_score = GroupScore::kTop2Sum;
    EXPECT_EQ(run_route(device, args, logits).experts, (std::vector<std::int32_t>{0, 1, 2, 3, 4}));
  });
}

// Sorting whole lists, with the standard library's exp.
Choice plain_route(const RouteArgs& a, const std::vector<float>& z,
                   const std::vector<float>& bias) {
  const auto n = static_cast<std::size_t>(a.n_experts);
  std::vector<double> s(n);
  double total = 0;
  for (std::size_t e = 0; e < n; ++e) total += std::exp(static_cast<double>(z[e]));
  for (std::size_t e = 0; e < n; ++e) {
    const double x = std::exp(static_cast<double>(z[e]));
    s[e] = a.score == RouterScore::kSoftmax ? x / total : x / (1 + x);
  }
  const auto choice = [&](std::size_t e) {
    return s[e] + (bias.empty() ? 0.0 : static_cast<double>(bias[e]));
  };
  const std::size_t size = n / static_cast<std::size_t>(a.n_group);
  std::vector<std::pair<double, std::size_t>> groups;
  for (std::size_t g = 0; g < static_cast<std::size_t>(a.n_group); ++g) {
    std::vector<double> in;
    for (std::size_t e = g * size; e < (g + 1) * size; ++e) in.push_back(choice(e));
    std::sort(in.rbegin(), in.rend());
    groups.emplace_back(-(a.group_score == GroupScore::kMax || size < 2 ? in[0] : in[0] + in[1]),
                        g);
  }
  std::sort(groups.begin(), groups.end());
  std::vector<std::pair<double, std::size_t>> experts;
  for (std::size_t i = 0; i < static_cast<std::size_t>(a.topk_group); ++i) {
    for (std::size_t e = groups[i].second * size; e < (groups[i].second + 1) * size; ++e)
      experts.emplace_back(-choice(e), e);
  }
  std::sort(experts.begin(), experts.end());
  Choice out;
  double sum = 0;
  for (std::size_t k = 0; k < static_cast<std::size_t>(a.top_k); ++k) sum += s[experts[k].second];
  for (std::size_t k = 0; k < static_cast<std::size_t>(a.top_k); ++k) {
    out.experts.push_back(static_cast<std::int32_t>(experts[k].second));
    out.weights.push_back(static_cast<float>(s[experts[k].second] / (a.normalise ? sum : 1) *
                                             static_cast<double>(a.scale)));
  }
  return out;
}

TEST(Route, AgreesWithSortingOverRealAndOddShapes) {
  struct Case {
    Index experts, top_k, n_group, topk_group;
  };
  for (const auto& [experts, top_k, n_group, topk_group] :
       {Case{256, 8, 8, 4}, Case{160, 6, 8, 3}, Case{64, 6, 1, 1}, Case{9, 3, 3, 2},
        Case{5, 5, 1, 1}, Case{6, 2, 6, 2}}) {
    for (const bool v3 : {false, true}) {
      SCOPED_TRACE(::testing::Message() << experts << " experts, v3 " << v3);
      const RouteArgs args = {.n_experts = experts,
                              .top_k = top_k,
                              .n_group = n_group,
                              .topk_group = topk_group,
                              .score = v3 ? RouterScore::kSigmoid : RouterScore::kSoftmax,
                              .group_score = v3 ? GroupScore::kTop2Sum : GroupScore::kMax,
                              .normalise = v3,
                              .scale = 2.5F};
      const auto logits = random_floats(50 * experts, /*seed=*/21);
      const auto bias = v3 ? random_floats(experts, /*seed=*/22, 0.3F) : std::vector<float>{};
      Choice expected;
      for (Index r = 0; r < 50; ++r) {
        const Choice one = plain_route(args, row(logits, r, experts), bias);
        expected.experts.insert(expected.experts.end(), one.experts.begin(), one.experts.end());
        expected.weights.insert(expected.weights.end(), one.weights.begin(), one.weights.end());
      }
      for (const int n_threads : {1, 3}) {
        for_each_cpu_target(
            [&](Device& device) {
              const Choice c = run_route(device, args, logits, bias);
              EXPECT_EQ(c.experts, expected.experts);
              expect_near(c.weights, expected.weights, {.rel = 1e-6});
              const Choice alone = run_route(device, args, row(logits, 17, experts), bias);
              EXPECT_TRUE(same_bits(alone.weights, row(c.weights, 17, top_k)));
            },
            n_threads);
      }
    }
  }
}

}  // namespace
}  // namespace kogia::testing
