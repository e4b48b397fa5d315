// What `kogia bench` times is what it says: every sequence computes its own tokens at its own
// depth, and the bytes and parameters are those of the model. Time itself is not tested.

#include "infer/measure.h"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/measure_arrival.h"
#include "infer/score.h"
#include "model/config.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

using testing::ElementsAre;

std::unique_ptr<Engine> open(const std::string& name, Index chunk = 512) {
  return Engine::open(golden_folder(name), {.cpu = {.n_threads = 2, .isa = {}},
                                            .compute = {},
                                            .cache_dtype = {},
                                            .ctx = 256,
                                            .chunk = chunk,
                                            .show_progress = false});
}

// The logits of timeline t after position `last`, computed alone and from the beginning.
std::vector<float> alone(Engine& engine, const RandomTimelines& timelines, Index t, Index last) {
  std::vector<TokenId> ids;
  for (Index p = 0; p <= last; ++p) ids.push_back(timelines.token(t, p));
  std::vector<float> result;
  for_each_logits(engine, ids, [&](Index pos, std::span<const float> logits) {
    if (pos == last) result.assign(logits.begin(), logits.end());
  });
  return result;
}

void expect_logits(const RandomTimelines& timelines, Index row,
                   const std::vector<float>& expected) {
  const ConstMat logits = timelines.logits();
  ASSERT_LT(row, logits.rows);
  ASSERT_EQ(logits.cols, static_cast<Index>(expected.size()));
  EXPECT_EQ(std::memcmp(logits.row(row), expected.data(), expected.size() * sizeof(float)), 0)
      << "row " << row;
}

class RandomTimelinesOf : public testing::TestWithParam<const char*> {};

TEST_P(RandomTimelinesOf, DecodeTogetherAsEachWouldAlone) {
  const auto engine = open(GetParam(), /*chunk=*/48);
  const auto reference = open(GetParam());
  constexpr Index kDepth = 70;
  const std::vector<Index> room(3, kDepth + 2);
  RandomTimelines timelines(*engine, room, /*seed=*/9);
  EXPECT_EQ(timelines.fill(3, kDepth), 3 * kDepth);
  EXPECT_EQ(timelines.fill(3, kDepth), 0) << "all is there";
  for (const Index position : {kDepth, kDepth + 1, kDepth}) {
    timelines.decode(3, position);
    // The reference's logits lie in another engine's workspace.
    for (Index t = 0; t < 3; ++t) {
      expect_logits(timelines, t, alone(*reference, timelines, t, position));
    }
  }
}

TEST_P(RandomTimelinesOf, PrefillStandsOnTheDepthBelowIt) {
  const auto engine = open(GetParam(), /*chunk=*/16);
  const auto reference = open(GetParam());
  const std::vector<Index> room{65 + 40};
  RandomTimelines timelines(*engine, room, /*seed=*/9);
  timelines.fill(1, 65);
  for (int repetition = 0; repetition < 2; ++repetition) {
    timelines.prefill(65, 40);
    expect_logits(timelines, 0, alone(*reference, timelines, 0, 104));
  }
  timelines.prefill(0, 20);  // anew at another depth: what lies deeper stays right
  timelines.decode(1, 100);
  expect_logits(timelines, 0, alone(*reference, timelines, 0, 100));
}

INSTANTIATE_TEST_SUITE_P(Models, RandomTimelinesOf, testing::Values("v2_lite", "qwen2"),
                         [](const auto& param) { return std::string(param.param); });

TEST(RandomTimelines, HaveTextsOfTheirOwn) {
  const auto engine = open("qwen2");
  const std::vector<Index> room(2, 64);
  const RandomTimelines a(*engine, room, 1), b(*engine, room, 1), c(*engine, room, 2);
  std::vector<TokenId> first, again, second, other;
  for (Index p = 0; p < 64; ++p) {
    first.push_back(a.token(0, p));
    again.push_back(b.token(0, p));
    second.push_back(a.token(1, p));
    other.push_back(c.token(0, p));
  }
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second);
  EXPECT_NE(first, other);
}

TEST(Measurer, RoomIsThatOfTheLongestCase) {
  const std::vector<MeasureCase> cases{{.prompt = 32, .gen = 8, .depth = 100, .batch = 2},
                                       {.prompt = 512, .gen = 0, .depth = 0, .batch = 3},
                                       {.prompt = 0, .gen = 600, .depth = 0, .batch = 1}};
  EXPECT_THAT(Measurer::room_for(cases), ElementsAre(600, 108, 1));
}

TEST(Measurer, CountsBytesOfTheExpertsThatAStepTouches) {
  const auto engine = open("v2_lite");
  const std::vector<MeasureCase> cases{{.prompt = 0, .gen = 5, .depth = 3, .batch = 1},
                                       {.prompt = 8, .gen = 5, .depth = 3, .batch = 4}};
  Measurer measurer(*engine, cases, {.repeat = 2, .show_progress = false});
  const ActiveWeights& active = measurer.active();
  const Measurement one = measurer.measure(cases[0]), four = measurer.measure(cases[1]);
  EXPECT_NEAR(one.weight_bytes_per_token, active.bytes(), 0.5);
  const ModelConfig& c = engine->model().config();
  const double always = active.always.bytes + active.head.bytes;
  const double all_experts = active.routed.bytes * static_cast<double>(c.n_routed_experts) /
                             static_cast<double>(c.num_experts_per_tok);
  EXPECT_GT(active.routed.bytes, 0);
  EXPECT_GE(4 * four.weight_bytes_per_token, always + active.routed.bytes - 0.5);
  EXPECT_LE(4 * four.weight_bytes_per_token,
            always + std::min(all_experts, 4 * active.routed.bytes) + 0.5);
  EXPECT_FALSE(one.prefill.has_value());
  EXPECT_TRUE(four.prefill.has_value());
}

// Matrices are what is left of the active parameters without the embedding and the vectors.
TEST(ActiveWeights, AreTheMatricesThatATokenPasses) {
  for (const char* name : {"v2_lite", "v3", "llama", "llama_tied"}) {
    SCOPED_TRACE(name);
    const auto engine = open(name);
    const ModelConfig& c = engine->model().config();
    Index vectors = c.hidden_size * (1 + 2 * c.num_hidden_layers);
    if (c.is_mla()) vectors += c.num_hidden_layers * (c.kv_lora_rank + c.q_lora_rank);
    for (Index layer = 0; layer < c.num_hidden_layers; ++layer) {
      const bool bias = c.topk_method == ModelConfig::TopkMethod::kNoauxTc && c.is_moe_layer(layer);
      if (bias) vectors += c.n_routed_experts;
    }
    const Index embedding = c.tie_word_embeddings ? 0 : c.vocab_size * c.hidden_size;
    const ActiveWeights active = engine->model().active_weights();
    EXPECT_NEAR(active.parameters(),
                static_cast<double>(count_parameters(c).active - vectors - embedding), 0.5);
    EXPECT_NEAR(active.head.parameters, static_cast<double>(c.vocab_size * c.hidden_size), 0.5);
    EXPECT_GT(active.bytes(), active.parameters()) << "bf16 or f32: more than a byte each";
  }
}

TEST(Speed, TheMedianCounts) {
  const std::vector<Elapsed> odd{{4, 8}, {1, 2}, {2, 2}}, even{{1, 1}, {3, 3}};
  const Speed speed = speed_of(odd, 8);
  EXPECT_EQ(speed.median, 4);
  EXPECT_EQ(speed.least, 2);
  EXPECT_EQ(speed.most, 8);
  EXPECT_EQ(speed.per_cpu_s, 2) << "24 tokens in 12 seconds of processor time";
  EXPECT_EQ(speed_of(even, 8).median, 4);
}

TEST(MeasureArrival, EachStepOfReadersHoldsAChunkOfThePrompt) {
  const ArrivalCase c{.n_readers = 3, .prompt = 100, .chunk = 17};
  const auto engine = Engine::open(golden_folder("qwen2"), {.cpu = {.n_threads = 1, .isa = {}},
                                                            .compute = {},
                                                            .cache_dtype = {},
                                                            .ctx = 128,
                                                            .cache_tokens = arrival_tokens(c),
                                                            .show_progress = false});
  const Arrival a = measure_arrival(*engine, c);
  EXPECT_EQ(a.beside.size(), 6u) << "17 rows of it a step";
  EXPECT_EQ(a.chunks.size(), a.beside.size());
  EXPECT_FALSE(a.alone.empty());
  EXPECT_EQ(engine->pages().n_free(), engine->pages().n_pages());
}

TEST(MeasureArrival, TheWorstStepCounts) {
  const Arrival a{.alone = {1, 1, 1}, .beside = {3, 6}, .chunks = {2, 3}};
  EXPECT_DOUBLE_EQ(a.unexplained(), 1.5);
}

}  // namespace
}  // namespace kogia::test
