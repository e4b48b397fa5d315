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

// The source is Q4_1, so what the others lose moves the perplexity of a short text by a percent or
// two (Q8_0 in f32: 2.2), up or down.
TEST(QuantizeCommand, WhatItWritesRunsAndLosesLittle) {
  const TempDir dir;
  const double source = perplexity(kModel);
  const std::vector<std::pair<std::string, double>> types = {
      {"Q8_0", 0.03}, {"Q6_K", 0.03}, {"q4_k", 0.12}};
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

TEST(QuantizeCommand, FoldersAndGgufsAreSourcesOfEither) {
  const TempDir dir;
  const std::string fp8 = (dir / "fp8").string(), q8 = (dir / "q8.gguf").string();
  ASSERT_EQ(kogia({"quantize", kModel, "FP8", fp8}).exit_code, 0);
  const auto back = kogia({"quantize", fp8, "Q8_0", q8, "--json"});
  ASSERT_EQ(back.exit_code, 0) << back.err;
  EXPECT_EQ(Json::parse(back.out).at("tensors"), Json({{"f32", 61}, {"q8_0", 211}}));
  // Three bits of mantissa cost so small a model a lot on a text so short; Q8_0 of them nothing.
  const double source = perplexity(kModel), of_fp8 = perplexity(fp8);
  EXPECT_NEAR(of_fp8, source, source * 0.25);
  EXPECT_NEAR(perplexity(q8), of_fp8, of_fp8 * 0.02);
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
  refused({"quantize", kModel, "FP8", target}, 2, "folder");
  refused({"quantize", kModel, "Q8_0", target, "--keep-bf16", "q_proj"}, 2, "--keep-bf16");
  const std::string folder = (dir / "x").string();
  refused({"quantize", kModel, "FP8", folder, "--keep-bf16", "q_proj,attn_k"}, 2, "'attn_k'");
  refused({"quantize", kModel, "FP8", folder, "--keep-bf16", "q_proj,"}, 2, "''");
  refused({"quantize", kModel, "Q4_K", target, "--imatrix", kModel}, 1, ".in_sum2");
  refused({"quantize", (dir / "missing.gguf").string(), "Q4_K", target}, 1, "missing.gguf");
  refused({"quantize", kModel, "Q4_K", "/nowhere/x.gguf"}, 1, "/nowhere/x.gguf");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace kogia::test
