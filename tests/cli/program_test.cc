// The program from outside, as a person or a script meets it.
#include <algorithm>
#include <cmath>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "model/synth_plan.h"
#include "program_support.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

using testing::AnyOf;
using testing::ElementsAreArray;
using testing::EndsWith;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::StartsWith;

constexpr const char* kQuestion = "What is the capital of France?";
const std::string kModel = smollm2().string();

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// On a machine with much to do even a small model takes so long that its progress is told.
std::string without_progress(const std::string& text) {
  std::string rest;
  for (const std::string& line : lines_of(text)) {
    if (!line.starts_with("packing")) rest += line + '\n';
  }
  return rest;
}

// A refusal: nothing on standard output, error: first, no trace of C++ inside.
void expect_refusal(const ProcessResult& result, int exit_code, const std::string& part) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  const std::string err = without_progress(result.err);
  EXPECT_THAT(err, StartsWith("error: "));
  EXPECT_THAT(err, HasSubstr(part));
  for (const std::string& line : lines_of(err)) {
    EXPECT_THAT(line, AnyOf(StartsWith("error: "), StartsWith("help:  "), StartsWith("  ")));
  }
}

std::vector<int> ids_of(const std::vector<std::string>& arguments) {
  const auto result = kogia(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return Json::parse(result.out).at("ids").get<std::vector<int>>();
}

TEST(Program, WrongUseEndsWithTwoAndSaysWhatWasMeant) {
  expect_refusal(kogia({}), 2, "kogia needs a command");
  expect_refusal(kogia({"chta"}), 2, "did you mean `kogia chat`?");
  expect_refusal(kogia({""}), 2, "kogia has no command ''");
  expect_refusal(kogia({"--frobnicate"}), 2, "kogia has no command '--frobnicate'");
  expect_refusal(kogia({"run"}), 2, "kogia run needs MODEL");
  expect_refusal(kogia({"run", "m", "x", "--temprature", "1"}), 2, "did you mean --temperature?");
  expect_refusal(kogia({"run", "m", "x", "--threads", "-1"}), 2, "--threads is '-1', expected");
  expect_refusal(kogia({"run", "m", "x", "--isa", "sse9"}), 2, "scalar, avx2, avx512");
  expect_refusal(kogia({"run", "m", "x", "--top-p", "1.5"}), 2, "--top-p is '1.5'");
  expect_refusal(kogia({"run", "m", "x", "--stop", ""}), 2, "--stop is empty");
  expect_refusal(kogia({"run", "m", "x", "--logit-bias", "5"}), 2, "expected ID=BIAS");
  expect_refusal(kogia({"run", "m", "x", "--logit-bias", "5=200"}), 2, "logit_bias of token 5");
  expect_refusal(kogia({"run", "m", "x", "--ids", "f"}), 2, "two prompts");
  expect_refusal(kogia({"run", "m", "x", "--raw", "--system", "s"}), 2, "--system needs");
  expect_refusal(kogia({"run", "m", ""}), 2, "TEXT is empty");
  expect_refusal(kogia({"run", "m", "x", "--no-pack", "--keep-packed"}), 2,
                 "--keep-packed is about");
  expect_refusal(kogia({"bench", "m", "--verify", "--no-pack"}), 2, "--verify is about");
  expect_refusal(kogia({"perplexity", "m"}), 2, "needs a text");
  expect_refusal(kogia({"bench", "m", "--prompt", "32,,5"}), 2, "--prompt is '32,,5'");
  expect_refusal(kogia({"bench", "m", "--prompt", "0", "--gen", "0"}), 2, "measure nothing");
  expect_refusal(kogia({"bench", "m", "--batch", "1,0"}), 2, "--batch is '1,0'");
  expect_refusal(kogia({"bench", "m", "--ctx", "16", "--depth", "0,64"}), 2,
                 "expected 576 or more");
}

TEST(Program, HelpAndVersionGoToStandardOutput) {
  EXPECT_THAT(kogia({"--version"}).out, MatchesRegex("kogia [0-9]+\\.[0-9]+\\.[0-9]+\n"));
  EXPECT_EQ(kogia({"--help"}).out, kogia({"help"}).out);
  for (const char* command : {"run", "chat", "inspect", "tokenize", "perplexity", "quantize",
                              "bench", "devices", "synth"}) {
    const auto help = kogia({command, "--help"});
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.out, StartsWith(std::string("usage: kogia ") + command));
    EXPECT_THAT(help.out, AnyOf(HasSubstr("Example\n"), HasSubstr("Examples\n")));
    EXPECT_EQ(kogia({"help", command}).out, help.out);
    EXPECT_THAT(kogia({}).err + kogia({"help"}).out, HasSubstr(command));
  }
}

TEST(Program, FilesThatAreNoModelEndWithOneAndNoOutput) {
  const TempDir dir;
  const auto garbage = dir.write("garbage.gguf", std::string("\0\x01\xff\x1b[31mGG", 11)).string();
  const auto zip = dir.write("model.safetensors", "PK\x03\x04").string();
  const auto empty = dir.write("empty.gguf", "").string();
  std::filesystem::create_directory(dir / "nothing");
  for (const std::string& model : {garbage, zip, empty, (dir / "missing").string(),
                                   (dir / "nothing").string(), std::string("/dev/null")}) {
    SCOPED_TRACE(model);
    for (const std::string command : {"run", "inspect", "tokenize", "bench", "chat"}) {
      auto arguments = std::vector<std::string>{command, model};
      if (command == "run") arguments.push_back("x");
      const auto result = kogia(arguments);
      expect_refusal(result, 1, std::filesystem::path(model).filename().string());
      EXPECT_EQ(result.err.find('\x1b'), std::string::npos) << "a file commands the terminal";
    }
  }
}

TEST(Program, AFileWithoutReadPermissionIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TempDir dir;
  const auto file = dir.write("secret.gguf", "GGUF");
  std::filesystem::permissions(file, std::filesystem::perms::none);
  expect_refusal(kogia({"inspect", file.string()}), 1, "secret.gguf");
}

TEST(Run, AnswersTheQuestion) {
  const auto result = kogia({"run", kModel, kQuestion, "--temperature", "0"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "The capital of France is Paris.\n");
}

TEST(Run, JsonHoldsIdsAndText) {
  const auto result =
      kogia({"run", kModel, kQuestion, "--temperature", "0", "--json", "--logprobs"});
  const Json object = Json::parse(result.out);
  EXPECT_EQ(object.at("text"), "The capital of France is Paris.");
  EXPECT_EQ(object.at("finish_reason"), "stop");
  EXPECT_EQ(object.at("completion_tokens"), object.at("ids").size());
  ASSERT_EQ(object.at("logprobs").size(), object.at("ids").size());
  for (const double p : object.at("logprobs")) EXPECT_LE(p, 0);
  EXPECT_EQ(lines_of(result.out).size(), 1U);
}

TEST(Run, ThePromptMayComeFromStandardInput) {
  const auto result = kogia({"run", kModel, "--temperature", "0"}, {.input = kQuestion});
  EXPECT_EQ(result.out, "The capital of France is Paris.\n");
  expect_refusal(kogia({"run", kModel}, {.input = ""}), 2, "standard input is empty");
}

TEST(Run, IdsNeedNoTokenizerAndStopWhereTold) {
  const TempDir dir;
  const auto ids = dir.write("prompt.ids", "504 3575\n282\t4649 314\n").string();
  const std::vector<std::string> base{
      "run", kModel, "--ids", ids, "--temperature", "0", "--ignore-eos", "--json", "--max-tokens"};
  auto longer = base, shorter = base;
  longer.emplace_back("24");
  shorter.emplace_back("5");
  const auto all = ids_of(longer), some = ids_of(shorter);
  EXPECT_EQ(all.size(), 24U);
  EXPECT_THAT(some, ElementsAreArray(all.begin(), all.begin() + 5));
  auto none = base;
  none.emplace_back("0");
  EXPECT_TRUE(ids_of(none).empty());
}

TEST(Run, IdsThatAreNoneAreNamedWithTheirPlace) {
  const TempDir dir;
  const auto refuse = [&](const std::string& text, const std::string& part) {
    expect_refusal(kogia({"run", kModel, "--ids", dir.write("x.ids", text).string()}), 1, part);
  };
  refuse("1 2 x3 4", "number 3 is 'x3'");
  refuse("1 2.5", "number 2 is '2.5'");
  refuse("1 -1", "id -1 (number 2) is outside the vocabulary");
  refuse("49152", "id 49152 (number 1) is outside the vocabulary, 0 to 49151");
  refuse("99999999999999999999", "number 1 is '99999999999999999999'");
  refuse(" \n", "holds no token id");
}

TEST(Run, TheAnswerIsTheSameHoweverTheWorkIsCut) {
  const std::vector<std::string> base{
      "run", kModel,  "Tell a story about a whale.", "--temperature", "1", "--seed", "7", "-n",
      "32",  "--json"};
  const auto expected = ids_of(base);
  EXPECT_EQ(expected.size(), 32U);
  for (const auto& flags : std::vector<std::vector<std::string>>{{"--threads", "1"},
                                                                 {"--threads", "3"},
                                                                 {"--chunk", "1"},
                                                                 {"--chunk", "7"},
                                                                 {"--ctx", "128"}}) {
    auto arguments = base;
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    EXPECT_EQ(ids_of(arguments), expected) << flags[0] << " " << flags[1];
  }
  auto other = base;
  other[6] = "8";
  EXPECT_NE(ids_of(other), expected) << "the seed has no effect";
}

TEST(Run, StopStringsCutTheText) {
  const auto result =
      kogia({"run", kModel, kQuestion, "--temperature", "0", "--stop", "France is"});
  EXPECT_EQ(result.out, "The capital of \n");
}

TEST(Run, AFullContextEndsTheAnswer) {
  const auto result = kogia({"run", kModel, "Count to one thousand.", "--temperature", "0", "--ctx",
                             "64", "--ignore-eos", "--json"});
  const Json object = Json::parse(result.out);
  EXPECT_EQ(object.at("finish_reason"), "length");
  EXPECT_EQ(object.at("prompt_tokens").get<int>() + object.at("completion_tokens").get<int>(), 64);
}

TEST(Run, APromptThatDoesNotFitIsRefused) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "whale ";
  expect_refusal(kogia({"run", kModel, text, "--ctx", "64"}), 2, "64");
}

TEST(Run, RawContinuesTheTextAndTakesAnyBytes) {
  const auto result =
      kogia({"run", kModel, "--raw", "The capital of France is", "--temperature", "0", "-n", "3"});
  EXPECT_THAT(result.out, StartsWith(" Paris"));
  EXPECT_EQ(kogia({"run", kModel, "--raw", "\xff\xfe broken", "-n", "2"}).exit_code, 0);
  expect_refusal(kogia({"run", kModel, "\xff\xfe broken", "-n", "2"}), 2, "no valid UTF-8");
}

TEST(Run, AReaderThatLeavesIsAnErrorNotACrash) {
  const auto result =
      kogia({"run", kModel, kQuestion, "--temperature", "0"}, {.close_stdout = true});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("standard output"));
}

TEST(Tokenize, PrintsIdsOfExactlyWhatItReads) {
  const auto ids = [&](const std::string& text, std::vector<std::string> flags = {}) {
    std::vector<std::string> arguments{"tokenize", kModel, "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const auto result = kogia(arguments, {.input = text});
    return Json::parse(result.out).at("ids").get<std::vector<int>>();
  };
  EXPECT_TRUE(ids("").empty());
  EXPECT_EQ(ids("Hello").size(), 1U);
  EXPECT_GT(ids("Hello\n").size(), ids("Hello").size()) << "the line break counts";
  EXPECT_EQ(ids("<|im_start|>").size(), 1U);
  EXPECT_GT(ids("<|im_start|>", {"--plain"}).size(), 1U);
  EXPECT_FALSE(ids(std::string("\xff\x00\xfe", 3)).empty());
}

TEST(Inspect, ConfigAloneSuffices) {
  const auto result =
      kogia({"inspect", std::string(KOGIA_TEST_DATA) + "/cli/deepseek-v3/config.json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("671.0B + 11.6B"));
  EXPECT_THAT(result.out, HasSubstr("70,272 bytes a token in bf16"));
  EXPECT_THAT(result.out, HasSubstr("(56.9x)"));
  const Json object = Json::parse(
      kogia({"inspect", std::string(KOGIA_TEST_DATA) + "/cli/deepseek-v3", "--json"}).out);
  EXPECT_EQ(object.at("cache").at("bytes_per_token"), 70272);
  EXPECT_NEAR(object.at("cache").at("mha_factor").get<double>(), 56.89, 0.01);
}

// N11: a token of V2-Lite takes 27 layers of 512 + 64 values; narrower types are not supported and
// said to be so.
TEST(Inspect, TheCacheOfV2LiteAndTheTypesItMayHave) {
  const TempDir folder;
  write_file_atomically(folder.path() / "config.json",
                        synth_config_json(synth_config("v2-lite"), /*fp8=*/false));
  const Json object = Json::parse(kogia({"inspect", folder.path().string(), "--json"}).out);
  EXPECT_EQ(object.at("cache").at("bytes_per_token"), 31104);
  const auto refused = kogia({"run", kModel, "x", "--cache-type", "q8_0"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--cache-type is 'q8_0', expected f32, bf16"));
}

TEST(Inspect, CountsWhatTheFileHolds) {
  const Json object = Json::parse(kogia({"inspect", kModel, "--json", "--tensors"}).out);
  EXPECT_EQ(object.at("model_type"), "llama");
  EXPECT_EQ(object.at("parameters").at("total"), 134515008);
  std::int64_t bytes = 0, values = 0;
  for (const Json& tensor : object.at("tensors")) bytes += tensor.at("bytes").get<std::int64_t>();
  for (const Json& type : object.at("weights").at("dtypes"))
    values += type.at("values").get<std::int64_t>();
  EXPECT_EQ(bytes, object.at("weights").at("bytes").get<std::int64_t>());
  EXPECT_EQ(values, 134515008) << "the head is tied";
}

TEST(Inspect, SaysWhatIsRunInAWiderForm) {
  const std::string file = std::string(KOGIA_TEST_DATA) + "/golden/v3_rare/new.gguf";
  const auto run = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> command = {"inspect", file};
    command.insert(command.end(), flags.begin(), flags.end());
    const auto result = kogia(command);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  EXPECT_THAT(run({"--isa", "scalar"}), testing::Not(HasSubstr("run as")));
  const std::string_view isas[] = {"avx2", "neon"};
  const bool x86 = kogia({"inspect", file, "--isa", "avx2"}).exit_code == 0;
  const std::string isa(isas[x86 ? 0 : 1]);
  const std::string text = run({"--isa", isa});
  EXPECT_THAT(text, testing::ContainsRegex("iq4_nl.*, run as 8-bit codes"));
  EXPECT_THAT(text, testing::ContainsRegex("mxfp4.*, run as 5-bit codes"));
  const Json object = Json::parse(run({"--isa", isa, "--json"}));
  const Json& types = object.at("weights").at("dtypes");
  EXPECT_EQ(types.at("iq4_xs").at("run_as"), "8-bit codes");
  EXPECT_FALSE(types.at("q3_k").contains("run_as"));
  EXPECT_GT(object.at("memory").at("weight_bytes"), object.at("weights").at("bytes"));
}

TEST(Perplexity, ScoresAllTokensButTheFirst) {
  const TempDir dir;
  const auto text =
      dir.write("text", "It was the best of times, it was the worst of times.").string();
  const auto result =
      kogia({"perplexity", kModel, "--text", text, "--max-tokens", "9", "--per-token", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 9U);
  double nll = 0;
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    const Json token = Json::parse(lines[i]);
    EXPECT_EQ(token.at("pos"), i + 1);
    nll -= token.at("logprob").get<double>();
  }
  const Json last = Json::parse(lines.back());
  EXPECT_EQ(last.at("tokens"), 8);
  EXPECT_NEAR(last.at("nll").get<double>(), nll, 1e-6);
  EXPECT_NEAR(last.at("perplexity").get<double>(), std::exp(nll / 8), 1e-6);
}

TEST(Devices, TellsWhatIsChosen) {
  const Json object =
      Json::parse(kogia({"devices", "--json", "--isa", "scalar", "--threads", "3"}).out);
  EXPECT_EQ(object.at("device"), "cpu/scalar");
  EXPECT_EQ(object.at("threads"), 3);
  EXPECT_EQ(object.at("instruction_sets").at(0), "scalar");
}

}  // namespace
}  // namespace kogia::test
