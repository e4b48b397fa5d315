// kogia run --prompts from outside, with a real model.
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program_support.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

const std::string kModel = smollm2().string();

// What is promised to be the same: all but how long it took and what was cached.
std::vector<Json> answers(const std::string& text) {
  std::vector<Json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    Json json = Json::parse(line);
    json.erase("timings");
    if (json.contains("usage")) json["usage"].erase("prompt_tokens_details");
    lines.push_back(json);
  }
  return lines;
}

const std::string kPrompts =
    R"({"id": "france", "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
{"id": 2, "prompt": "The capital of Italy is", "max_tokens": 8, "n": 2, "seed": 4}
{"custom_id": "story", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "Tell a story about a whale."}], "seed": 7, "max_tokens": 40}}
{"prompt": [504, 3575, 282, 4649, 314], "temperature": 0, "max_tokens": 12, "logprobs": true, "top_logprobs": 2}
)";

std::vector<std::string> command(const TempDir& dir, std::vector<std::string> more = {}) {
  std::vector<std::string> words = {"run",       kModel,
                                    "--prompts", (dir / "p.jsonl").string(),
                                    "--out",     (dir / "out.jsonl").string()};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(Prompts, EachAnswerIsThatOfARunOfItsOwn) {
  const TempDir dir;
  dir.write("p.jsonl", kPrompts);
  const auto result = kogia(command(dir, {"--json"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json summary = Json::parse(result.out);
  EXPECT_EQ(summary.at("answers"), 5);
  EXPECT_THAT(result.err, HasSubstr("5 answers, "));
  const auto all = answers(read_file(dir / "out.jsonl"));
  ASSERT_EQ(all.size(), 5U);
  EXPECT_EQ(all[0].at("id"), "france");
  EXPECT_EQ(all[0].at("text"), "The capital of France is Paris.");
  EXPECT_EQ(all[0].at("finish_reason"), "stop");
  EXPECT_EQ(
      all[1].at("text").get<std::string>() + "\n",
      kogia({"run", kModel, "--raw", "The capital of Italy is", "-n", "8", "--seed", "4"}).out);
  EXPECT_EQ(all[2].at("sample"), 1);
  EXPECT_NE(all[2].at("text"), all[1].at("text")) << "two samples, one answer";
  EXPECT_EQ(all[3].at("custom_id"), "story");
  EXPECT_EQ(all[3].at("text").get<std::string>() + "\n",
            kogia({"run", kModel, "Tell a story about a whale.", "-n", "40", "--seed", "7"}).out);
  ASSERT_EQ(all[4].at("ids").size(), 12U);
  for (std::size_t i = 0; i < 12; ++i) {  // greedy: the likeliest is what was drawn
    EXPECT_EQ(all[4].at("top_logprobs")[i][0].at("id"), all[4].at("ids")[i]);
    EXPECT_EQ(all[4].at("top_logprobs")[i][0].at("logprob"), all[4].at("logprobs")[i]);
    EXPECT_EQ(all[4].at("top_logprobs")[i].size(), 2U);
  }
}

TEST(Prompts, NeitherDraftsNorTheSizeOfTheBatchChangeAByte) {
  const TempDir dir;
  dir.write(
      "p.jsonl",
      kPrompts +
          R"({"prompt": "one two three four five one two three four five one two", "max_tokens": 60})"
          "\n");
  ASSERT_EQ(kogia(command(dir)).exit_code, 0);
  const auto expected = answers(read_file(dir / "out.jsonl"));
  for (const auto& flags : std::vector<std::vector<std::string>>{
           {"--speculate", "lookup"},
           {"--speculate", "lookup", "--max-sequences", "1"},
           {"--max-sequences", "2", "--step-tokens", "16", "--threads", "1"}}) {
    std::filesystem::remove(dir / "out.jsonl");
    ASSERT_EQ(kogia(command(dir, flags)).exit_code, 0);
    EXPECT_EQ(answers(read_file(dir / "out.jsonl")), expected) << flags[0];
  }
  const std::vector<std::string> base = {
      "run", kModel, "--raw", "one two three one two three one two", "-n", "48"};
  auto looked_up = base;
  looked_up.insert(looked_up.end(), {"--speculate", "lookup"});
  EXPECT_EQ(kogia(base).out, kogia(looked_up).out);
}

TEST(Prompts, AStoppedRunGoesOnToTheSameFile) {
  const TempDir dir;
  std::string prompts;
  for (int i = 0; i < 12; ++i) {
    prompts += R"({"prompt": "Once upon a time", "ignore_eos": true, "max_tokens": )" +
               std::to_string(20 + i % 3 * 30) + R"(, "seed": )" + std::to_string(i) + "}\n";
  }
  dir.write("p.jsonl", prompts);
  ASSERT_EQ(kogia(command(dir)).exit_code, 0);
  const auto expected = answers(read_file(dir / "out.jsonl"));
  ASSERT_EQ(expected.size(), 12U);

  for (const std::string signal : {"KILL", "INT"}) {
    std::filesystem::remove(dir / "out.jsonl");
    for (const std::string seconds : {"0.4", "0.8"}) {
      // In the foreground: else it signals its group too, and the program gets two.
      std::vector<std::string> stopped = {
          "/usr/bin/timeout", "--foreground", "--preserve-status", "-s", signal, seconds,
          KOGIA_PROGRAM};
      for (const std::string& word : command(dir, {"--max-sequences", "3"}))
        stopped.push_back(word);
      const auto result = run_process(stopped);
      EXPECT_THAT(result.exit_code, AnyOf(0, signal == "INT" ? 1 : 137)) << result.err;
    }
    const auto result = kogia(command(dir, {"--max-sequences", "3"}));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(answers(read_file(dir / "out.jsonl")), expected) << signal;
    EXPECT_FALSE(std::filesystem::exists(dir / "out.jsonl.ahead"));
  }
  const auto again = kogia(command(dir));
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, HasSubstr("12 there before"));
  const auto other = kogia(command(dir, {"--temperature", "0"}));
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.err, HasSubstr("out.jsonl:1: not the answer to this prompt"));
  EXPECT_EQ(answers(read_file(dir / "out.jsonl")), expected);
}

TEST(Prompts, ABeginningIsReadOnceAndFoundInTheFolderAfterARestart) {
  const TempDir dir;
  std::string preamble;
  for (int i = 0; i < 40; ++i) preamble += "Whale number " + std::to_string(i) + " sings. ";
  std::string prompts;
  for (const char* end : {"The first", "The second", "The third"}) {
    prompts +=
        Json{{"prompt", preamble + end}, {"temperature", 0}, {"max_tokens", 6}}.dump() + "\n";
  }
  dir.write("p.jsonl", prompts);
  std::vector<std::vector<Json>> said;
  std::vector<double> shares;
  for (int i = 0; i < 2; ++i) {
    std::filesystem::remove(dir / "out.jsonl");
    const auto result = kogia(
        command(dir, {"--json", "--cache-dir", (dir / "pages").string(), "--cache-size", "64M"}));
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json summary = Json::parse(result.out);
    shares.push_back(summary.at("cached_tokens").get<double>() /
                     summary.at("prompt_tokens").get<double>());
    said.push_back(answers(read_file(dir / "out.jsonl")));
  }
  EXPECT_EQ(said[0], said[1]);
  EXPECT_GT(shares[0], 0.6) << "two of three prompts share the first one's beginning";
  EXPECT_GT(shares[1], 0.8) << "full pages were kept";
  EXPECT_EQ(kogia({"run", kModel, "x", "--cache-size", "much"}).exit_code, 2);
}

TEST(Prompts, WithoutOutLinesGoToStandardOutputAndNothingElse) {
  const auto result = kogia({"run", kModel, "--prompts", "-"}, {.input = kPrompts});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(answers(result.out).size(), 5U);
}

TEST(Prompts, WhatCannotBeIsRefusedBeforeAnythingRuns) {
  const TempDir dir;
  const auto refuse = [&](const std::string& prompts, int exit_code, const std::string& part,
                          std::vector<std::string> flags = {}) {
    dir.write("p.jsonl", prompts);
    const auto result = kogia(command(dir, std::move(flags)));
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_EQ(result.out, "");
    EXPECT_FALSE(std::filesystem::exists(dir / "out.jsonl"));
  };
  const std::string good = "{\"prompt\": \"x\"}\n";
  refuse(good + "{\"prompt\": \"x\", \"temprature\": 1}\n", 1, "p.jsonl:2: there is no key");
  refuse(good + "{\"prompt\": [49152]}\n", 1, "p.jsonl:2: prompt holds id 49152");
  refuse(good + "{\"prompt\": \"x\", \"logit_bias\": {\"60000\": 1}}\n", 2,
         "p.jsonl:2: logit_bias");
  refuse(good + "{\"prompt\": \"one two three four five six seven eight nine ten\"}\n", 2,
         "p.jsonl:2: 10 tokens do not fit", {"--ctx", "8"});
  refuse(good, 2, "two kinds of prompts", {"text"});
  refuse(good, 2, "--raw is for one TEXT", {"--raw"});
  refuse(good, 2, "there is no folder", {"--out", (dir / "no" / "out").string()});
  refuse(good, 2, "--out is the file of --prompts", {"--out", (dir / "p.jsonl").string()});
  refuse(good, 2, "is a folder", {"--out", dir.path().string()});
  EXPECT_EQ(kogia({"run", kModel, "x", "--out", "y"}).exit_code, 2);
  EXPECT_EQ(kogia({"run", kModel, "--prompts", (dir / "missing").string()}).exit_code, 1);
}

}  // namespace
}  // namespace kogia::test
