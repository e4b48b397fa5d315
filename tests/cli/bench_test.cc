// `kogia bench` from outside: one line for the machine, one a case. How fast is nobody's claim.

#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program_support.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

using testing::HasSubstr;

const std::string kMoe = golden_folder("v2_lite").string();  // latent attention, mixture of experts

std::vector<Json> json_lines(const ProcessResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<Json> lines;
  std::istringstream in(result.out);
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

std::vector<Json> bench(std::vector<std::string> flags) {
  std::vector<std::string> arguments{"bench", kMoe, "--repeat", "2", "--json", "--quiet"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return json_lines(kogia(arguments));
}

TEST(Bench, TheFirstLineHoldsTheLimitsOfTheMachine) {
  const auto lines = bench({"--prompt", "8", "--gen", "2", "--isa", "scalar", "--threads", "1"});
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].at("device"), "cpu/scalar");
  EXPECT_EQ(lines[0].at("threads"), 1);
  EXPECT_GT(lines[0].at("read_gb_s").get<double>(), 0);
  EXPECT_GT(lines[0].at("f32_gflop_s").get<double>(), 0);
  EXPECT_TRUE(lines[0].at("bf16_gflop_s").is_null()) << "plain instructions have no such product";
  EXPECT_TRUE(lines[0].at("int8_gop_s").is_null());
}

TEST(Bench, EveryCombinationIsALine) {
  auto lines = bench({"--prompt", "8,24", "--gen", "4", "--batch", "1,3", "--depth", "0,70"});
  const Json machine = lines.front();
  lines.erase(lines.begin());
  ASSERT_EQ(lines.size(), 8U);
  std::vector<std::vector<int>> keys;
  for (const Json& line : lines) {
    std::vector<int>& key = keys.emplace_back();
    for (const char* field : {"prompt", "gen", "depth", "batch"}) {
      key.push_back(line.at(field).get<int>());
    }
    EXPECT_EQ(line.at("model"), kMoe);
    EXPECT_EQ(line.at("threads"), machine.at("threads"));
    EXPECT_FALSE(line.at("weights").get<std::string>().empty());
    for (const char* field : {"prefill_tok_s", "decode_tok_s"}) {
      const std::string name = field;
      EXPECT_GT(line.at(name + "_min").get<double>(), 0) << line;
      EXPECT_LE(line.at(name + "_min"), line.at(name)) << line;
      EXPECT_LE(line.at(name), line.at(name + "_max")) << line;
      EXPECT_GT(line.at(name + "_per_cpu").get<double>(), 0) << line;
    }
  }
  EXPECT_THAT(keys,
              testing::UnorderedElementsAreArray(std::vector<std::vector<int>>{{8, 4, 0, 1},
                                                                               {8, 4, 0, 3},
                                                                               {8, 4, 70, 1},
                                                                               {8, 4, 70, 3},
                                                                               {24, 4, 0, 1},
                                                                               {24, 4, 0, 3},
                                                                               {24, 4, 70, 1},
                                                                               {24, 4, 70, 3}}));
}

TEST(Bench, RatesAndSharesFollowFromWhatWasMeasured) {
  const auto lines = bench({"--prompt", "16", "--gen", "4", "--depth", "64", "--batch", "2"});
  ASSERT_EQ(lines.size(), 2U);
  const auto of = [&](std::size_t i, const char* name) { return lines[i].at(name).get<double>(); };
  const double gb_s = 1e-9 * of(1, "weight_bytes_per_token") * of(1, "decode_tok_s");
  EXPECT_NEAR(of(1, "bandwidth_gb_s") / gb_s, 1, 1e-6);
  EXPECT_NEAR(of(1, "bandwidth_share") / (gb_s / of(0, "read_gb_s")), 1, 1e-6);
  const std::string compute = lines[1].at("compute");
  const Json& own = lines[0].at(compute == "f32" ? "f32_gflop_s" : "bf16_gflop_s");
  const double peak = own.is_null() ? of(0, "f32_gflop_s") : own.get<double>();
  EXPECT_NEAR(of(1, "peak_share") / (of(1, "gflop_s") / peak), 1, 1e-6);
  const double decode_gflop_s = 2e-9 * of(1, "active_parameters") * of(1, "decode_tok_s");
  EXPECT_NEAR(of(1, "decode_gflop_s") / decode_gflop_s, 1, 1e-6);
  EXPECT_NEAR(of(1, "decode_peak_share") / (decode_gflop_s / peak), 1, 1e-6);
  EXPECT_LT(of(1, "gflop_s"), 2e-9 * of(1, "active_parameters") * of(1, "prefill_tok_s"))
      << "the head is no part of prefill";
}

TEST(Bench, WhatIsNotAskedForIsNull) {
  const auto prefill = bench({"--prompt", "8", "--gen", "0"}).back();
  EXPECT_TRUE(prefill.at("decode_tok_s").is_null());
  EXPECT_TRUE(prefill.at("bandwidth_share").is_null());
  EXPECT_TRUE(prefill.at("decode_peak_share").is_null());
  EXPECT_GT(prefill.at("prefill_tok_s").get<double>(), 0);
  const auto decode = bench({"--prompt", "0", "--gen", "3"}).back();
  EXPECT_TRUE(decode.at("prefill_tok_s").is_null());
  EXPECT_TRUE(decode.at("peak_share").is_null());
  EXPECT_GT(decode.at("decode_tok_s").get<double>(), 0);
}

TEST(Bench, WithoutFlagsItMeasures512And64) {
  const auto result = kogia({"bench", kMoe, "--quiet"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_THAT(result.out, testing::ContainsRegex("prefill +512 +0 +1 +[0-9.]+ "));
  EXPECT_THAT(result.out, testing::ContainsRegex("decode +64 +0 +1 +[0-9.]+ "));
  EXPECT_THAT(result.out, HasSubstr("limits now: memory "));
}

TEST(Bench, ACacheThatMemoryCannotHoldIsRefused) {
  const auto result = kogia({"bench", kMoe, "--batch", "4096", "--depth", "16777216", "--quiet"});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("--batch"));
}

}  // namespace
}  // namespace kogia::test
