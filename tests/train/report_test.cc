// kogia report: figures of metrics.jsonl that were worked out by hand, and a page with all of them.

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"
#include "train/report_chart.h"
#include "train/report_page.h"

namespace kogia::test {
namespace {

using testing::HasSubstr;
using testing::Not;

/// 200 steps whose loss is `factor` times 10 − step / 100, two layers of two experts.
std::string log_of(double factor) {
  std::string text;
  for (int step = 1; step <= 200; ++step) {
    const double loss = factor * (10 - step / 100.0);
    text += fmt::format(
        R"({{"step":{},"loss":{},"mtp_loss":[{},{}],"grad_norm":1.5,"lr":0.001,"tokens":100,"seconds":0.5,)"
        R"("max_vio":[0.5,0.1],"expert_tokens":[[75,25],[100,0]],"kept_bytes":2000000,"peak_bytes":9000000)",
        step, loss, loss + 1, loss + 2);
    if (step % 100 == 0) {
      text += fmt::format(
          R"(,"validation_loss":{},"validation_bits_per_byte":2.5,"validation_max_vio":[0.2,0.4])",
          step == 100 ? 8.0 : 8.25);
    }
    text += "}\n";
  }
  return text;
}

class Report : public testing::Test {
 protected:
  Report() {
    dir_.write("a/metrics.jsonl", log_of(1));
    dir_.write("b/metrics.jsonl", log_of(1.01));
  }
  RunMetrics read(const std::string& name) { return read_run_metrics(dir_ / name); }
  TempDir dir_;
};

TEST_F(Report, SummaryIsTheEndOfTheRun) {
  const RunSummary s = summarise(read("a"));
  EXPECT_EQ(s.steps, 200);
  EXPECT_EQ(s.tokens, 20'000);
  EXPECT_NEAR(s.loss, 10 - 1.755, 1e-9);  // the mean of steps 151 to 200
  ASSERT_EQ(s.mtp_loss.size(), 2u);
  EXPECT_NEAR(s.mtp_loss[1], 12 - 1.755, 1e-9);
  EXPECT_EQ(s.validation_loss, 8.25);
  EXPECT_EQ(s.best_validation_loss, 8.0);
  EXPECT_EQ(s.bits_per_byte, 2.5);
  EXPECT_NEAR(s.max_vio.value(), (0.5 + 1) / 2, 1e-12);
  EXPECT_NEAR(s.validation_max_vio.value(), 0.3, 1e-12);
  EXPECT_EQ(s.dead_experts, 1);
  EXPECT_EQ(s.tokens_per_s, 200);
  EXPECT_EQ(s.kept_bytes, 2'000'000);
  EXPECT_EQ(s.peak_bytes, 9'000'000);
}

TEST_F(Report, EntropyOfALoad) {
  EXPECT_NEAR(load_entropy({.layer = 0, .tokens = {5, 5, 5, 5}}), 1, 1e-12);
  EXPECT_EQ(load_entropy({.layer = 0, .tokens = {7, 0}}), 0);
  EXPECT_NEAR(load_entropy({.layer = 0, .tokens = {3, 1}}),
              -(0.75 * std::log2(0.75) + 0.25 * std::log2(0.25)), 1e-12);
}

TEST_F(Report, GapIsOfWindowsAfterTheFirstHundredSteps) {
  const LossGap gap = loss_gap(read("a"), read("b"));
  EXPECT_EQ(gap.n_windows, 2);
  EXPECT_NEAR(gap.last, 0.01, 1e-12);
  EXPECT_NEAR(gap.worst, 0.01, 1e-12);
  EXPECT_THAT(gap_sentence(read("a"), read("b")), HasSubstr("+1.00 % at the end"));

  std::string jumps = log_of(1);
  const std::string at = "\"step\":120,\"loss\":8.8";
  jumps.replace(jumps.find(at), at.size(), "\"step\":120,\"loss\":50");
  dir_.write("jumps/metrics.jsonl", jumps);
  const LossGap of_jump = loss_gap(read("a"), read("jumps"));
  EXPECT_EQ(of_jump.worst_step, 150);
  EXPECT_NEAR(of_jump.worst, (50 - 8.8) / (50 * (10 - 1.255)), 1e-9);
  EXPECT_NEAR(of_jump.last, 0, 1e-12);
}

// A power failure cuts a line off; a step that came again counts once, as it was the second time.
TEST_F(Report, DamagedAndRepeatedLinesAreBorne) {
  dir_.write("c/metrics.jsonl",
             "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n[]\n{\"step\":\"x\"}\n"
             "{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":1}\n{\"step\":4,\"lo");
  const RunMetrics run = read("c");
  EXPECT_EQ(run.n_damaged, 3);
  ASSERT_EQ(run.steps.size(), 3u);
  EXPECT_TRUE(std::isnan(run.steps[1].loss));
  EXPECT_THAT(report_page(run, nullptr, ""), HasSubstr("say nothing: 3"));
}

TEST_F(Report, NamesWhatIsMissing) {
  const auto refusal = [&](const std::string& name) {
    try {
      read(name);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_THAT(refusal("nowhere"), HasSubstr("there is no metrics.jsonl"));
  dir_.write("empty/metrics.jsonl", "\n");
  EXPECT_THAT(refusal("empty"), HasSubstr("no step is in it"));
}

TEST_F(Report, PageHasEveryChartAndNeedsNothingElse) {
  const RunMetrics a = read("a"), b = read("b");
  const std::string page = report_page(a, &b, "lr = 1 # <&>\n");
  for (const char* title :
       {"Loss", "Bits per byte, held out", "Loss of multi-token prediction", "Norm of the gradient",
        "Learning rate", "MaxVio of each batch", "MaxVio of 100 steps", "MaxVio of held-out text",
        "Entropy of the load of 100 steps", "Speed", "Memory of the process",
        "Activations kept for the backward pass", "Load of 2 experts, layer 2"}) {
    EXPECT_THAT(page, HasSubstr(std::string("<figure><figcaption>") + title));
  }
  EXPECT_THAT(page, HasSubstr("# &lt;&amp;&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("http")));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, HasSubstr("b depth 2"));
  // What no run has gets no chart.
  dir_.write("bare/metrics.jsonl", "{\"step\":1,\"loss\":3}\n");
  EXPECT_THAT(report_page(read("bare"), nullptr, ""), Not(HasSubstr("Bits per byte")));
}

// A curve of a million points stays small and keeps its peaks.
TEST(ReportChart, LongCurvesKeepTheirExtremes) {
  ChartLine line{.label = "<x>", .points = {}};
  for (int i = 0; i < 1'000'000; ++i) {
    line.points.push_back({static_cast<double>(i), i == 777'777 ? 1234.5 : i == 5 ? -7.25 : 0.5});
  }
  const std::string svg = chart_svg({.title = "t", .unit = "", .lines = {line}});
  EXPECT_LT(svg.size(), 100'000u);
  EXPECT_THAT(svg, HasSubstr("777777,1234.5 "));
  EXPECT_THAT(svg, HasSubstr("5,-7.25 "));
  EXPECT_THAT(svg, HasSubstr("&lt;x&gt;"));
}

TEST(ReportChart, FlatAndEmptyOnesAreDrawn) {
  EXPECT_THAT(chart_svg({.title = "none", .unit = "", .lines = {}}), HasSubstr("</figure>"));
  const ChartLine flat{.label = "", .points = {{1, 0}, {2, 0}}};
  const ChartLine one{.label = "", .points = {{1, 1.5}}};
  for (const ChartLine& line : {flat, one}) {
    for (const bool log_y : {false, true}) {
      const std::string svg =
          chart_svg({.title = "flat", .unit = "", .lines = {line}, .log_y = log_y});
      EXPECT_LT(svg.size(), 3000u);
      EXPECT_THAT(svg, Not(HasSubstr("nan")));
      EXPECT_THAT(svg, Not(HasSubstr("inf")));
    }
  }
}

}  // namespace
}  // namespace kogia::test
