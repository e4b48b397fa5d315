// What the log of a run says, against figures computed by hand.

#include "train/run_metrics.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"
#include "train/expert_balance.h"
#include "train/run_figures.h"

namespace kogia::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string line(int step, double loss, const std::string& more = "") {
  return fmt::format("{{\"step\":{},\"loss\":{}{}}}\n", step, loss, more);
}

class RunMetricsTest : public testing::Test {
 protected:
  RunMetrics read(const std::string& name, const std::string& log) {
    dir_.write(name + "/metrics.jsonl", log);
    return read_run_metrics(dir_ / name);
  }
  /// Steps 1 to 250; `loss` tells each.
  RunMetrics run(const std::string& name, double (*loss)(int)) {
    std::string log;
    for (int step = 1; step <= 250; ++step) log += line(step, loss(step));
    return read(name, log);
  }
  TempDir dir_;
};

double figure(const RunMetrics& metrics, const std::string& key) {
  for (const RunFigure& f : run_figures(metrics)) {
    if (f.key == key && f.value) return *f.value;
  }
  ADD_FAILURE() << "no figure " << key;
  return std::nan("");
}

TEST_F(RunMetricsTest, FiguresAreThoseOfTheLines) {
  std::string log;
  for (int step = 1; step <= 60; ++step) {
    log += line(
        step, 10 - 0.1 * step,
        fmt::format(",\"tokens\":200,\"seconds\":{},\"bytes\":400,\"grad_norm\":2,\"lr\":{},"
                    "\"mtp_loss\":[{},7],\"kept_bytes\":{},\"peak_bytes\":{},\"flops\":3e9",
                    step % 2 == 0 ? 2 : 4, 0.001 * step, 0.5 * step, 1000 + step, 5000 + step));
    if (step % 20 == 0) {
      log.insert(log.size() - 2,
                 fmt::format(",\"validation_loss\":{},\"validation_bits_per_byte\":1.5"
                             ",\"validation_max_vio\":[0.2,0.4]",
                             step == 40 ? 1.0 : 3.0));
    }
  }
  const RunMetrics m = read("a", log);
  EXPECT_EQ(m.name(), "a");
  EXPECT_TRUE(m.notes.empty());
  EXPECT_EQ(m.n_lines, 60);
  EXPECT_EQ(figure(m, "tokens"), 12000);
  EXPECT_EQ(figure(m, "seconds"), 180);
  EXPECT_NEAR(figure(m, "loss"), 4, 1e-12);
  EXPECT_NEAR(figure(m, "mean_loss"), 10 - 0.1 * 35.5, 1e-12);  // steps 11 to 60
  EXPECT_EQ(figure(m, "validation_loss"), 3);
  EXPECT_EQ(figure(m, "best_validation_loss"), 1);
  EXPECT_EQ(figure(m, "validation_bits_per_byte"), 1.5);
  EXPECT_NEAR(figure(m, "validation_max_vio"), 0.3, 1e-12);
  EXPECT_NEAR(figure(m, "bits_per_byte"), (10 - 0.1 * 35.5) / 2 / std::numbers::ln2, 1e-12);
  EXPECT_NEAR(figure(m, "mtp_loss_1"), 0.5 * 35.5, 1e-12);
  EXPECT_NEAR(figure(m, "mtp_loss_2"), 7, 1e-12);
  EXPECT_EQ(figure(m, "tokens_per_s"), 100);  // of 50 and 100 the upper median
  EXPECT_EQ(figure(m, "kept_bytes"), 1060);
  EXPECT_EQ(figure(m, "peak_bytes"), 5060);
  EXPECT_EQ(figure(m, "gflop_s"), 1.5);
}

TEST_F(RunMetricsTest, GapsAreThoseOfWindowsOfFifty) {
  const RunMetrics a = run("a", [](int) { return 4.0; });
  const RunMetrics b = run("b", [](int step) {
    return step <= 100 ? 9.0 : step <= 150 ? 4.04 : step <= 200 ? 3.92 : 4.02;
  });
  const auto gaps = loss_gaps(a, b);
  ASSERT_EQ(gaps.size(), 3u);
  EXPECT_EQ(gaps[0].first_step, 101);
  EXPECT_EQ(gaps[0].last_step, 150);
  EXPECT_NEAR(gaps[0].relative, 0.01, 1e-12);
  EXPECT_NEAR(gaps[2].relative, 0.005, 1e-12);
  EXPECT_EQ(worst_gap(gaps)->first_step, 151);
  EXPECT_NEAR(worst_gap(gaps)->relative, -0.02, 1e-12);
  const std::string table = figures_table({&a, &b});
  EXPECT_THAT(table, HasSubstr("loss of b above a"));
  EXPECT_THAT(table,
              HasSubstr("worst -2.000 % (steps 151 to 200), last +0.500 % (steps 201 to 250)"));
}

TEST_F(RunMetricsTest, WindowsThatLackAStepDoNotCount) {
  const RunMetrics a = run("a", [](int) { return 4.0; });
  std::string log;
  for (int step = 1; step <= 220; ++step) {
    if (step != 130) log += line(step, 5);
  }
  const auto gaps = loss_gaps(a, read("b", log));
  ASSERT_EQ(gaps.size(), 1u);  // 151 to 200; 201 to 250 is not over
  EXPECT_EQ(gaps[0].first_step, 151);
  const RunMetrics c = read("c", line(1, 2));
  EXPECT_TRUE(loss_gaps(a, c).empty());
  EXPECT_THAT(figures_table({&a, &c}), HasSubstr("no window of 50 steps"));
}

TEST_F(RunMetricsTest, LinesThatWereCutOffOrMakeNoSenseAreLeftOut) {
  const std::string whole = line(1, 3) + line(2, 2.5);
  const RunMetrics cut = read("cut", whole + R"({"step":3,"loss":2.)");
  EXPECT_EQ(cut.last_step, 2);
  ASSERT_EQ(cut.notes.size(), 1u);
  EXPECT_THAT(cut.notes[0], HasSubstr("line 3 was cut off"));
  const RunMetrics damaged =
      read("damaged", line(1, 3) + "{\"step\":\n" + "\n" + "[1]\n" + line(2, 2.5) +
                          "{\"loss\":1}\n{\"step\":\"x\"}\n" + std::string(3, '\0') + "\n");
  EXPECT_THAT(damaged.loss.y, ElementsAre(3, 2.5));
  ASSERT_EQ(damaged.notes.size(), 1u);
  EXPECT_THAT(damaged.notes[0], HasSubstr("left out: 6, the first is line 2"));
  // A loss that was no number is written as null: the step was there.
  const RunMetrics null = read("null", line(1, 3) + "{\"step\":2,\"loss\":null}\n" + line(3, 2));
  EXPECT_TRUE(null.notes.empty());
  EXPECT_EQ(null.n_lines, 3);
  EXPECT_THAT(null.loss.x, ElementsAre(1, 3));
}

TEST_F(RunMetricsTest, AStepThatComesAgainCountsAsItWasLast) {
  const RunMetrics m =
      read("again", line(1, 5) + line(2, 9) + line(3, 9) + line(2, 4) + line(3, 3) + line(4, 2));
  EXPECT_TRUE(m.notes.empty());
  EXPECT_THAT(m.loss.x, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(m.loss.y, ElementsAre(5, 4, 3, 2));
}

TEST_F(RunMetricsTest, NoLogIsAnError) {
  EXPECT_THROW(read_run_metrics(dir_ / "none"), Error);
  EXPECT_THROW(read_run_metrics(dir_.path()), Error);
  EXPECT_THROW(read("empty", ""), Error);
  EXPECT_THROW(read("torn", "{\"step\":1,"), Error);
}

TEST(ExpertBalance, ByHand) {
  EXPECT_EQ(max_vio({5, 5, 5, 5}), 0);
  EXPECT_EQ(max_vio({20, 0, 0, 0}), 3);
  EXPECT_EQ(max_vio({8, 4, 4, 4}), 0.6);
  EXPECT_EQ(max_vio({0, 0}), 0);
  EXPECT_NEAR(load_entropy({3, 3, 3}), 1, 1e-15);
  EXPECT_EQ(load_entropy({7, 0, 0, 0}), 0);
  EXPECT_NEAR(load_entropy({1, 1, 0, 0}), 0.5, 1e-15);
  EXPECT_EQ(load_entropy({0, 0}), 1);
}

// Steps that favour the first expert and the second in turn: alone they are uneven, together less.
TEST(ExpertHistory, WindowsAreOfAHundredSteps) {
  ExpertHistory history(1000, 10);
  for (Index step = 1; step <= 250; ++step) {
    const bool odd = step % 2 == 1;
    const Index third = step <= 120 ? 10 : 0;
    ASSERT_TRUE(history.add(step, {{odd ? 30 : 10, odd ? 10 : 30, third}, {5, 5, 5}}));
  }
  EXPECT_FALSE(history.add(251, {{1, 2, 3}}));
  EXPECT_FALSE(history.add(251, {{1, 2}, {3, 4}}));
  EXPECT_EQ(history.window(), (ExpertTokens{{2000, 2000, 0}, {500, 500, 500}}));
  const ExpertCurves& c = history.curves();
  EXPECT_EQ(c.max_vio.size(), 250u);
  EXPECT_NEAR(c.max_vio.y[0], (30 - 50 / 3.0) / (50 / 3.0) / 2, 1e-12);  // the other layer is even
  EXPECT_NEAR(c.worst_max_vio.y[0], 0.8, 1e-12);
  ASSERT_EQ(c.window_max_vio.size(), 151u);
  EXPECT_EQ(c.window_max_vio.x[0], 100);
  EXPECT_NEAR(c.worst_window_max_vio.y[0], 0.2, 1e-12);  // 2000, 2000, 1000
  EXPECT_NEAR(c.worst_window_max_vio.y.back(), 0.5, 1e-12);
  EXPECT_NEAR(c.least_entropy.y.back(), std::log(2) / std::log(3), 1e-12);
  EXPECT_EQ(c.dead.x[0], 100);
  EXPECT_EQ(c.dead.y[118], 0);            // steps 119 to 218: two that gave it tokens
  EXPECT_EQ(c.dead.y[120], 1);            // steps 121 to 220
  ASSERT_EQ(history.spans().size(), 3u);  // of a hundred steps each
  EXPECT_EQ(history.spans()[1].first_step, 101);
  EXPECT_EQ(history.spans()[1].tokens[0], (std::vector<Index>{2000, 2000, 200}));
}

TEST(Curve, ThinnedKeepsEnds) {
  Curve curve;
  for (Index i = 0; i < 100'000; ++i) curve.add(i, std::sin(0.01 * static_cast<double>(i)));
  curve.y[54321] = 9;
  curve.y[54322] = -9;
  const Curve few = thinned(curve, 200);
  EXPECT_LE(few.size(), 800u);
  EXPECT_EQ(few.x.front(), 0);
  EXPECT_EQ(few.x.back(), 99'999);
  EXPECT_TRUE(std::ranges::is_sorted(few.x));
  EXPECT_EQ(std::ranges::max(few.y), 9);
  EXPECT_EQ(std::ranges::min(few.y), -9);
  EXPECT_EQ(thinned(few, 200).x, few.x);  // few enough already
}

TEST(Curve, TrailingMean) {
  Curve curve;
  for (const double y : {1, 3, 5, 7}) curve.add(static_cast<Index>(curve.size()) + 1, y);
  EXPECT_THAT(trailing_mean(curve, 2).y, ElementsAre(1, 2, 4, 6));
  EXPECT_EQ(mean_of_last(curve, 3), 5);
  EXPECT_TRUE(std::isnan(mean_of_last({}, 3)));
}

}  // namespace
}  // namespace kogia::test
