// The page of a report: every chart, nothing from outside, and no larger for a longer run.

#include "train/report_page.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/temp_dir.h"
#include "train/svg_chart.h"

namespace kogia::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string log_of(int n_steps) {
  std::string log;
  for (int step = 1; step <= n_steps; ++step) {
    const double loss = 8 - 4.0 * step / n_steps + 0.1 * (step % 7);
    log += fmt::format(
        "{{\"step\":{},\"loss\":{},\"mtp_loss\":[{},6.5],\"grad_norm\":{},\"lr\":0.001,\"tokens\":"
        "100,"
        "\"seconds\":0.5,\"bytes\":300,\"flops\":1e9,\"kept_bytes\":3000000,\"peak_bytes\":"
        "90000000,"
        "\"max_vio\":[0.1],\"expert_tokens\":[[{},20,30,0]],\"balance_loss\":0.01{}}}\n",
        step, loss, loss + 0.2, 1 + step % 3, step % 50,
        step % 100 == 0 ? ",\"validation_loss\":4.5,\"validation_bits_per_byte\":1.7,"
                          "\"validation_mtp_loss\":[5,6],\"validation_max_vio\":[0.4],\"mtp_"
                          "acceptance\":[0.8,0.6]"
                        : "");
  }
  return log;
}

class ReportPage : public testing::Test {
 protected:
  ReportedRun run(const std::string& name, int n_steps) {
    dir_.write(name + "/metrics.jsonl", log_of(n_steps));
    return read_reported_run(dir_ / name);
  }
  TempDir dir_;
};

TEST_F(ReportPage, HasEveryChartAndNeedsNothing) {
  dir_.write("a/latest/config.json",
             R"({"num_hidden_layers":2,"first_k_dense_replace":1,"moe_layer_freq":1})");
  dir_.write("a/latest/kogia/run.toml", "[trainer]\nsteps = 300\n");
  const std::string page = report_page({run("a", 300)});
  for (const char* title :
       {"Loss", "Bits per byte", "Multi-token prediction: loss of each depth",
        "Multi-token prediction: acceptance of each depth", "Load of experts, last 100 steps",
        "Load of experts over the run", "MaxVio of each step", "MaxVio over 100 steps",
        "MaxVio on held-out text", "Entropy of the load", "Dead experts", "Balance loss",
        "Norm of the gradient", "Learning rate", "Tokens per second", "Memory"}) {
    EXPECT_THAT(page, HasSubstr(fmt::format("<h3>{}</h3>", title)));
  }
  EXPECT_THAT(page, AllOf(HasSubstr(">layer 1</text>"), HasSubstr("steps = 300"),
                          HasSubstr("data-name=\"held out\"")));
  EXPECT_THAT(page,
              AllOf(Not(HasSubstr("http")), Not(HasSubstr("src=")), Not(HasSubstr("href")),
                    Not(HasSubstr("@import")), Not(HasSubstr("nan")), Not(HasSubstr("inf,"))));
}

TEST_F(ReportPage, TwoRunsLieInOneChart) {
  dir_.write("a/latest/kogia/run.toml", "[precision]\nrecipe = \"bf16\"\n[trainer]\nseed = 0\n");
  dir_.write("b/latest/kogia/run.toml", "[precision]\nrecipe = \"fp8\"\n[trainer]\nseed = 0\n");
  const std::string page = report_page({run("a", 300), run("b", 200)});
  EXPECT_THAT(page, HasSubstr("How far the second loss lies above the first"));
  EXPECT_THAT(
      page, AllOf(HasSubstr("a: loss, mean of 50 steps"), HasSubstr("b: loss, mean of 50 steps")));
  EXPECT_THAT(
      page,
      HasSubstr("<th>precision.recipe</th><td>&quot;bf16&quot;</td><td>&quot;fp8&quot;</td>"));
  EXPECT_THAT(page, Not(HasSubstr("<th>trainer.seed</th>")));
}

TEST_F(ReportPage, LongRunsMakeNoLargerPages) {
  const std::string page = report_page({run("a", 60'000)});
  EXPECT_LT(page.size(), 1'000'000u);
  EXPECT_LT(static_cast<double>(page.size()),
            1.3 * static_cast<double>(report_page({run("b", 20'000)}).size()));
}

TEST_F(ReportPage, TextOfOthersStaysText) {
  const std::string page = report_page({run("<script>alert(1)<", 3)});
  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert"));
}

TEST(Chart, PlacesPoints) {
  Chart chart{.title = "t",
              .lines = {{.name = "n", .curve = {{0, 10}, {0, 1}}, .color = 3}},
              .from_zero = true};
  // 640 × 260 less its margins: x 58 to 628, y 234 (0) up to 10 (1.04: a margin of a 25th).
  EXPECT_THAT(chart_html(chart), HasSubstr("points=\"58.0,234.0 628.0,18.6 \""));
  EXPECT_EQ(chart_html({.title = "nothing", .lines = {{.name = "n", .curve = {}}}}), "");
}

TEST(HeatMap, JoinsSquaresOfALevel) {
  const std::string map = heat_map_html({.title = "t",
                                         .note = "",
                                         .row_labels = {},
                                         .rows = {{0, 4, 9, 1}, {1, 1, 0.25, 0.1}},
                                         .first_column = "a",
                                         .last_column = "b"});
  EXPECT_THAT(map, HasSubstr("<path class=\"dead\" d=\"M0 0h1v1h-1z\"/>"));
  EXPECT_THAT(map, HasSubstr("<path class=\"high\" fill-opacity=\"1\" d=\"M1 0h2v1h-2z\"/>"));
  EXPECT_THAT(map, HasSubstr("<path class=\"low\" fill-opacity=\"1\" d=\"M2 1h2v1h-2z\"/>"));
}

}  // namespace
}  // namespace kogia::test
