// kogia report from outside: the page, the table, and what it says where there is no run.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program_support.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string log_of(int n_steps, double loss) {
  std::string log;
  for (int step = 1; step <= n_steps; ++step) {
    log += fmt::format(
        "{{\"step\":{},\"loss\":{},\"tokens\":100,\"seconds\":0.25,\"expert_tokens\":[[3,5]]}}\n",
        step, step <= 100 ? 7.0 : loss);
  }
  return log;
}

class Report : public testing::Test {
 protected:
  Report() {
    dir_.write("a/metrics.jsonl", log_of(200, 4));
    dir_.write("b/metrics.jsonl", log_of(180, 4.1) + "{\"step\":181,\"lo");
  }
  std::string path(const char* name) const { return (dir_ / name).string(); }
  TempDir dir_;
};

TEST_F(Report, WritesThePageIntoTheRun) {
  const auto result = kogia({"report", path("a")});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out,
              AllOf(HasSubstr("4.0000"), HasSubstr("400.0"), HasSubstr("report.html\n")));
  EXPECT_THAT(read_file(dir_ / "a" / "report.html"), StartsWith("<!doctype html>"));
}

TEST_F(Report, ComparesTwoRuns) {
  const auto result =
      kogia({"report", path("a"), "--compare", path("b"), "--out", path("page.html"), "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("line 181 was cut off"));
  const Json out = Json::parse(result.out);
  EXPECT_EQ(out["page"], path("page.html"));
  EXPECT_EQ(out["runs"][1]["step"], 180);
  EXPECT_NEAR(out["runs"][0]["max_vio"].get<double>(), 0.25, 1e-12);
  EXPECT_TRUE(out["runs"][0]["bits_per_byte"].is_null());
  EXPECT_EQ(out["worst_gap"]["first_step"], 101);
  EXPECT_NEAR(out["last_gap"]["relative"].get<double>(), 0.025, 1e-12);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "a" / "report.html"));
}

TEST_F(Report, WhatIsNoRunIsRefused) {
  dir_.write("empty/metrics.jsonl", "");
  const auto refused = [&](std::vector<std::string> arguments, int exit_code, const char* words) {
    arguments.insert(arguments.begin(), "report");
    const auto result = kogia(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, AllOf(StartsWith("error: "), HasSubstr(words)));
  };
  refused({}, 2, "kogia report needs RUN");
  refused({path("none")}, 1, "no such folder");
  refused({dir_.path().string()}, 1, "has no metrics.jsonl");
  refused({path("empty")}, 1, "holds not a single step");
  refused({path("a"), "--compare", path("none")}, 1, "no such folder");
  refused({path("a"), "--out", path("none/page.html")}, 1, "none");
}

}  // namespace
}  // namespace kogia::test
