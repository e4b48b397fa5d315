// Rates and batches are pure functions of the step: the first step counts, the last is not beyond.

#include "train/schedule.h"

#include <cmath>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/run_file.h"

namespace kogia::test {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;

constexpr const char* kRun = R"([model]
model_type = "llama"
vocab_size = 100
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
max_position_embeddings = 16
initializer_range = 0.02
[data]
sources = ["a.txt"]
tokenizer = "t.json"
sequence_length = 16
[trainer]
steps = 10
batch_size = 4
[optimizer]
lr = 1.0
)";

RunConfig run(std::vector<std::string> overrides) {
  return parse_run_file(kRun, "/run.toml",
                        {.overrides = std::move(overrides), .cache = "/c", .resolved = true});
}

std::vector<double> rates(const RunConfig& config, Index n) {
  std::vector<double> out;
  for (Index step = 0; step < n; ++step) out.push_back(learning_rate(config, step));
  return out;
}

// cases.md R11: factors for k = 0…9.
TEST(Schedule, LinearAfterWarmupWastesNoStep) {
  const RunConfig c = run({"schedule.kind=linear", "schedule.warmup_steps=4"});
  const std::vector<double> expected{0.25, 0.5, 0.75, 1, 1, 5. / 6, 4. / 6, 0.5, 2. / 6, 1. / 6};
  EXPECT_THAT(rates(c, 10), Pointwise(DoubleNear(1e-12), expected));
  EXPECT_EQ(learning_rate(c, 10), 0);
  EXPECT_EQ(learning_rate(c, 1000), 0);
}

TEST(Schedule, CosineAfterWarmup) {
  const RunConfig c = run({"schedule.kind=cosine", "schedule.warmup_steps=4"});
  const std::vector<double> expected{0.25, 0.5, 0.75, 1, 1, 0.933013, 0.75, 0.5, 0.25, 0.066987};
  EXPECT_THAT(rates(c, 10), Pointwise(DoubleNear(5e-7), expected));
}

TEST(Schedule, WarmupMayBeNothingOrAll) {
  EXPECT_THAT(rates(run({"schedule.kind=constant"}), 3), ElementsAre(1, 1, 1));
  EXPECT_THAT(rates(run({"schedule.kind=linear"}), 3), ElementsAre(1, 0.9, 0.8));
  for (const char* kind : {"constant", "linear", "cosine", "wsd"}) {
    const RunConfig c = run({std::string("schedule.kind=") + kind, "schedule.warmup_steps=10"});
    for (Index k = 0; k < 10; ++k) {
      EXPECT_NEAR(learning_rate(c, k), static_cast<double>(k + 1) / 10, 1e-15) << kind;
    }
  }
  EXPECT_NEAR(learning_rate(run({"schedule.kind=linear", "schedule.warmup_steps=40"}), 9), 0.25,
              1e-15)
      << "a short trial of a long run stays in its warm-up";
}

TEST(Schedule, CosineIsExactWithoutTheLibrarysOwn) {
  const RunConfig c = run({"schedule.kind=cosine", "trainer.steps=10000"});
  for (Index k = 0; k < 10000; k += 7) {
    EXPECT_NEAR(learning_rate(c, k), (1 + std::cos(M_PI * static_cast<double>(k) / 10000)) / 2,
                1e-15);
  }
}

TEST(Schedule, MinLrIsWhereItEndsAndStays) {
  for (const char* kind : {"linear", "cosine", "wsd"}) {
    const RunConfig c = run({std::string("schedule.kind=") + kind, "schedule.min_lr=0.1",
                             "schedule.decay_start=2", "schedule.decay_steps=4"});
    EXPECT_EQ(learning_rate(c, 2), 1) << kind;
    EXPECT_NEAR(learning_rate(c, 4), 0.55, 1e-15) << kind;
    EXPECT_GT(learning_rate(c, 5), 0.1) << kind;
    EXPECT_EQ(learning_rate(c, 6), 0.1) << kind;
    EXPECT_EQ(learning_rate(c, 9), 0.1) << kind;
  }
}

TEST(Schedule, WsdHoldsAndThenFalls) {
  const RunConfig c = run({"schedule.kind=wsd", "schedule.warmup_steps=2", "trainer.steps=100"});
  EXPECT_EQ(learning_rate(c, 0), 0.5);
  for (Index k = 2; k <= 90; ++k) EXPECT_EQ(learning_rate(c, k), 1);
  EXPECT_NEAR(learning_rate(c, 95), 0.5, 1e-12);
  EXPECT_NEAR(learning_rate(c, 99), 0.1, 1e-12);
}

// DeepSeek-V3 §4.2 with a step for every 10G of its 14.8T tokens.
TEST(Schedule, V3HasItsStages) {
  const RunConfig c = run({"schedule.kind=v3", "trainer.steps=1480", "optimizer.lr=2.2e-4"});
  EXPECT_NEAR(learning_rate(c, 0), 2.2e-4 / 12, 1e-18);
  EXPECT_EQ(learning_rate(c, 11), 2.2e-4);
  EXPECT_EQ(learning_rate(c, 1000), 2.2e-4) << "10T tokens seen";
  EXPECT_LT(learning_rate(c, 1001), 2.2e-4);
  EXPECT_NEAR(learning_rate(c, 1215), (2.2e-4 + 2.2e-5) / 2, 1e-18) << "in the middle of 4.3T";
  EXPECT_NEAR(learning_rate(c, 1430), 2.2e-5, 1e-18);
  EXPECT_NEAR(learning_rate(c, 1462), 2.2e-5, 1e-18) << "333B";
  EXPECT_NEAR(learning_rate(c, 1463), 7.3e-6, 1e-18) << "167B";
  EXPECT_NEAR(learning_rate(c, 1479), 7.3e-6, 1e-18);
  EXPECT_EQ(mtp_loss_weight(c, 999), 0.3);
  EXPECT_EQ(mtp_loss_weight(c, 1000), 0.1);
  EXPECT_EQ(bias_update_rate(c, 1429), 0.001);
  EXPECT_EQ(bias_update_rate(c, 1430), 0) << "14.3T";
  EXPECT_EQ(mtp_loss_weight(run({"schedule.kind=v3", "mtp.loss_weight=0.2"}), 9), 0.2);
  for (const char* steps : {"1", "2", "3", "10", "100"}) {  // no stage turns around
    const RunConfig small = run({"schedule.kind=v3", std::string("trainer.steps=") + steps});
    for (Index k = small.schedule.warmup_steps; k + 1 < small.trainer.steps; ++k) {
      EXPECT_GE(learning_rate(small, k), learning_rate(small, k + 1)) << steps;
    }
  }
}

TEST(Schedule, BatchesGrowAndRowsAddUp) {
  const RunConfig c = run({"schedule.batch_ramp=[{step=3,batch_size=6},{step=5,batch_size=8}]"});
  Index rows = 0;
  const std::vector<Index> expected{4, 4, 4, 6, 6, 8, 8, 8};
  for (Index step = 0; step < 8; ++step) {
    EXPECT_EQ(batch_size(c, step), expected[static_cast<std::size_t>(step)]);
    EXPECT_EQ(rows_before(c, step), rows) << step;
    rows += batch_size(c, step);
  }
  EXPECT_EQ(rows_before(run({}), 1000), 4000);
}

TEST(Schedule, WeightsAndBiasRatesChangeAtTheirSteps) {
  const RunConfig c = run(
      {"mtp.loss_weight=[{step=0,value=0.3},{step=5,value=0.1}]", "experts.bias_update_until=7"});
  EXPECT_EQ(mtp_loss_weight(c, 4), 0.3);
  EXPECT_EQ(mtp_loss_weight(c, 5), 0.1);
  EXPECT_EQ(bias_update_rate(c, 6), 0.001);
  EXPECT_EQ(bias_update_rate(c, 7), 0);
  EXPECT_EQ(bias_update_rate(run({"experts.balance=aux_loss"}), 0), 0);
  EXPECT_EQ(bias_update_rate(run({}), 1000000), 0.001);
}

}  // namespace
}  // namespace kogia::test
