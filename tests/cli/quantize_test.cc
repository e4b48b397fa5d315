// kogia quantize from outside: what it writes runs, and wrong use is named.

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program_support.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

const std::string kModel = smollm2().string();

double perplexity(const std::string& model) {
  const auto result = kogia({"perplexity", model, "--text", "/usr/share/common-licenses/GPL-3",
                             "--max-tokens", "256", "--ctx", "256", "--json", "--quiet"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result.exit_code == 0 ? Json::parse(result.out).at("perplexity").get<double>() : NAN;
}

// The source is Q4_1, so what the others lose shows in the perplexity of a short text: a percent or
// so.
TEST(QuantizeCommand, WhatItWritesRunsAndLosesLittle) {
  const TempDir dir;
  const double source = perplexity(kModel);
  const std::vector<std::pair<std::string, double>> types = {
      {"Q8_0", 0.02}, {"Q6_K", 0.02}, {"q4_k", 0.12}};
  for (const auto& [type, loss] : types) {
    SCOPED_TRACE(type);
    const std::string target = (dir / (type + ".gguf")).string();
    const auto result = kogia({"quantize", kModel, type, target, "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json report = Json::parse(result.out);
    EXPECT_EQ(report.at("path"), target);
    EXPECT_GT(report.at("requantized").get<int>(), 0);
    EXPECT_THAT(result.err, HasSubstr("better take the original"));
    EXPECT_NEAR(perplexity(target), source, source * loss);
  }
}

TEST(QuantizeCommand, WrongUseIsNamed) {
  const TempDir dir;
  const auto refused = [&](const std::vector<std::string>& arguments, int code,
                           const std::string& part) {
    const auto result = kogia(arguments);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, StartsWith("error: "));
    EXPECT_THAT(result.err, HasSubstr(part));
  };
  const std::string target = (dir / "x.gguf").string();
  refused({"quantize", kModel}, 2, "TYPE");
  refused({"quantize", kModel, "Q4_KM", target}, 2, "did you mean Q4_K?");
  refused({"quantize", kModel, "Q4_K", (dir / "x").string()}, 2, "ends in .gguf");
  refused({"quantize", kModel, "Q4_K", kModel}, 2, "DST is SRC");
  refused({"quantize", kModel, "FP8", target, "--imatrix", "x"}, 2, "--imatrix is about");
  refused({"quantize", kModel, "Q4_K", target, "--imatrix", kModel}, 1, ".in_sum2");
  refused({"quantize", (dir / "missing.gguf").string(), "Q4_K", target}, 1, "missing.gguf");
  refused({"quantize", kModel, "Q4_K", "/nowhere/x.gguf"}, 1, "/nowhere/x.gguf");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace kogia::test
