// kogia chat on a terminal of its own, and without one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "program_support.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kCtrlC = "\x03";
constexpr const char* kCtrlD = "\x04";
constexpr const char* kUp = "\x1b[A";
constexpr const char* kQuestion = "What is the capital of France?";
constexpr const char* kAnswer = "The capital of France is Paris.";

struct ChatOnTerminal {
  TempDir dir;
  Terminal terminal;
  explicit ChatOnTerminal(const std::vector<std::string>& flags = {})
      : terminal(command(flags), {{"XDG_STATE_HOME", dir.path().string()}, {"LC_ALL", "C.UTF-8"}}) {
  }
  static std::vector<std::string> command(const std::vector<std::string>& flags) {
    std::vector<std::string> words{KOGIA_PROGRAM, "chat", smollm2().string(), "--temperature", "0"};
    words.insert(words.end(), flags.begin(), flags.end());
    return words;
  }
  void ask(const std::string& line) { terminal.type(line + "\r"); }
};

TEST(Chat, AnswersShowsItsSpeedAndLeavesWithCtrlD) {
  ChatOnTerminal chat;
  ASSERT_TRUE(chat.terminal.expect("> ")) << chat.terminal.screen();
  chat.ask(kQuestion);
  ASSERT_TRUE(chat.terminal.expect(kAnswer)) << chat.terminal.screen();
  EXPECT_TRUE(chat.terminal.expect("tok/s"));
  ASSERT_TRUE(chat.terminal.expect("> "));
  EXPECT_EQ(chat.terminal.leave_by(kCtrlD), 0) << chat.terminal.screen();
}

TEST(Chat, CtrlCStopsTheAnswerAndKeepsTheChat) {
  ChatOnTerminal chat({"--ignore-eos"});
  ASSERT_TRUE(chat.terminal.expect("> "));
  chat.ask(kQuestion);  // with --ignore-eos the answer goes on and on
  ASSERT_TRUE(chat.terminal.expect(kAnswer)) << chat.terminal.screen();
  chat.terminal.type(kCtrlC);
  ASSERT_TRUE(chat.terminal.expect("; stopped")) << chat.terminal.screen();
  ASSERT_TRUE(chat.terminal.expect("> "));
  chat.ask("/tokens");
  EXPECT_TRUE(chat.terminal.expect("2 messages")) << "what was said before Ctrl-C is kept";
  chat.ask("/quit");
  EXPECT_EQ(chat.terminal.wait(), 0);
}

TEST(Chat, CtrlCDropsTheLineThatIsTyped) {
  ChatOnTerminal chat;
  ASSERT_TRUE(chat.terminal.expect("> "));
  chat.terminal.type("/nonsense");
  chat.terminal.type(kCtrlC);
  ASSERT_TRUE(chat.terminal.expect("^C"));
  ASSERT_TRUE(chat.terminal.expect("> "));
  chat.ask("/tokens");
  EXPECT_TRUE(chat.terminal.expect("0 messages"));
  EXPECT_EQ(chat.terminal.screen().find("error"), std::string::npos) << chat.terminal.screen();
  EXPECT_EQ(chat.terminal.leave_by(kCtrlD), 0);
}

TEST(Chat, UpArrowBringsBackTheLastLineAlsoInTheNextChat) {
  const TempDir state;
  for (const bool first : {true, false}) {
    Terminal terminal(ChatOnTerminal::command({}), {{"XDG_STATE_HOME", state.path().string()}});
    ASSERT_TRUE(terminal.expect("> "));
    terminal.type(first ? "/seed 4711\r" : std::string(kUp) + "\r");
    EXPECT_TRUE(terminal.expect("seed 4711")) << terminal.screen();
    ASSERT_TRUE(terminal.expect("> "));
    EXPECT_EQ(terminal.leave_by(kCtrlD), 0);
  }
}

TEST(Chat, MistakesAreSaidAndTheChatGoesOn) {
  ChatOnTerminal chat;
  ASSERT_TRUE(chat.terminal.expect("> "));
  chat.ask("/sede 3");
  EXPECT_TRUE(chat.terminal.expect("did you mean /seed?"));
  chat.ask("/temperature hot");
  EXPECT_TRUE(chat.terminal.expect("expected a number"));
  chat.ask("/temperature -1");
  EXPECT_TRUE(chat.terminal.expect("temperature is -1"));
  chat.ask("/load /nonexistent/file");
  EXPECT_TRUE(chat.terminal.expect("/nonexistent/file"));
  chat.ask("/regenerate");
  EXPECT_TRUE(chat.terminal.expect("no answer yet"));
  chat.ask("/help");
  EXPECT_TRUE(chat.terminal.expect("/regenerate"));
  chat.ask("/quit");
  EXPECT_EQ(chat.terminal.wait(), 0);
}

std::vector<Json> piped(const std::string& input, std::vector<std::string> flags = {}) {
  std::vector<std::string> arguments{"chat", smollm2().string(), "--temperature", "0", "--json"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const auto result = kogia(arguments, {.input = input});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<Json> answers;
  for (std::size_t begin = 0; begin < result.out.size();) {
    const std::size_t end = result.out.find('\n', begin);
    answers.push_back(Json::parse(result.out.substr(begin, end - begin)));
    begin = end + 1;
  }
  return answers;
}

TEST(Chat, WithoutATerminalEachLineIsATurn) {
  const auto result = kogia({"chat", smollm2().string(), "--temperature", "0"},
                            {.input = std::string(kQuestion) + "\n"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, std::string(kAnswer) + "\n") << "nothing but the answer";
}

TEST(Chat, ALaterTurnComputesOnlyWhatIsNew) {
  const auto answers = piped(std::string(kQuestion) + "\nAnd of Italy?\n");
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0].at("text"), kAnswer);
  const int first = answers[0].at("prompt_tokens"), second = answers[1].at("prompt_tokens");
  EXPECT_GT(second, first);
  EXPECT_LE(answers[1].at("computed_tokens").get<int>(), second - first);
}

TEST(Chat, RegenerateDrawsAnotherAnswerAndResetForgets) {
  const std::string question = "Tell me a story about a whale.";
  const auto answers = piped(question + "\n/regenerate\n/reset\n" + question + "\n",
                             {"--temperature", "1", "--max-tokens", "24"});
  ASSERT_EQ(answers.size(), 3U);
  EXPECT_NE(answers[0].at("text"), answers[1].at("text"));
  EXPECT_EQ(answers[0].at("prompt_tokens"), answers[1].at("prompt_tokens"));
  EXPECT_EQ(answers[0].at("text"), answers[2].at("text")) << "the seed decides";
}

TEST(Chat, ATextOfSeveralLinesIsOneTurn) {
  const auto answers = piped("\"\"\"\nWhat is\nthe capital\nof France?\n\"\"\"\nWhat is\\\nthis?\n",
                             {"--max-tokens", "3"});
  EXPECT_EQ(answers.size(), 2U);
}

TEST(Chat, ASavedConversationGoesOnElsewhere) {
  const TempDir dir;
  const std::string file = (dir / "talk.json").string();
  const auto whole = piped(std::string(kQuestion) + "\n/save " + file + "\nAnd of Italy?\n");
  const auto rest = piped("/load " + file + "\nAnd of Italy?\n");
  ASSERT_EQ(whole.size(), 2U);
  ASSERT_EQ(rest.size(), 1U);
  EXPECT_EQ(rest[0].at("text"), whole[1].at("text"));
  EXPECT_EQ(rest[0].at("prompt_tokens"), whole[1].at("prompt_tokens"));
  const Json saved = Json::parse(read_file(file));
  EXPECT_EQ(saved.at("messages").back().at("content"), kAnswer);
}

int computed(const Json& answer) { return answer.at("computed_tokens"); }

// The second turn in another process, which computes what is new and no more.
TEST(Chat, ASessionGoesOnInAnotherProcess) {
  const TempDir dir;
  const std::string file = (dir / "talk.json").string(), second = "And of Italy?\n";
  const std::string first = "Here is a long text. " + std::string(kQuestion) +
                            " Tell me about its river, its towers, its museums and its bread, and "
                            "which of them you would show to a friend who has a single day.\n";
  const std::vector<std::string> plain{"--max-tokens", "80"};
  const std::vector<std::string> flags{"--max-tokens", "80", "--session", file};
  const auto whole = piped(first + second, plain);
  ASSERT_EQ(whole.size(), 2U);
  EXPECT_EQ(piped(first, flags).at(0).at("text"), whole[0].at("text"));
  EXPECT_EQ(Json::parse(read_file(file)).at("messages").back().at("content"), whole[0].at("text"));
  const std::string cache = read_file(file + ".cache"), messages = read_file(file);

  const auto again = [&](const std::string& cached, const std::vector<std::string>& more) {
    dir.write("talk.json", messages);
    dir.write("talk.json.cache", cached);
    std::vector<std::string> arguments{"chat", smollm2().string(), "--temperature", "0", "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto result = kogia(arguments, {.input = second});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  };
  auto result = again(cache, {});
  EXPECT_EQ(Json::parse(result.out).at("text"), whole[1].at("text"));
  // Whole pages are saved: of what was there before, less than one is computed again.
  EXPECT_LT(computed(Json::parse(result.out)), computed(whole[1]) + 64);

  // Without a cache that fits it is slower and says why.
  std::string damaged = cache;
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 4);
  result = again(damaged, {});
  EXPECT_THAT(result.err, HasSubstr("talk.json.cache: damaged"));
  EXPECT_EQ(Json::parse(result.out).at("text"), whole[1].at("text"));
  EXPECT_EQ(computed(Json::parse(result.out)), whole[1].at("prompt_tokens"));
  result = again(cache, {"--cache-type", "f32"});
  EXPECT_THAT(result.err, HasSubstr("cache bf16"));
  EXPECT_THAT(result.err, HasSubstr("here f32"));
}

TEST(Chat, ASessionKeepsItsSystemMessage) {
  const TempDir dir;
  const std::string file = (dir / "talk.json").string();
  piped("Hello.\n", {"--session", file, "--system", "Be brief.", "--max-tokens", "4"});
  EXPECT_EQ(Json::parse(read_file(file)).at("messages").at(0).at("content"), "Be brief.");
  const auto result = kogia({"chat", smollm2().string(), "--session", file, "--system", "Be rude."},
                            {.input = "Hello.\n"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("system message of its own"));
  const auto next = piped("And you?\n", {"--session", file, "--max-tokens", "4"});
  EXPECT_EQ(next.size(), 1U);
  EXPECT_EQ(Json::parse(read_file(file)).at("messages").size(), 5U);
}

TEST(Chat, APromptIsFoundOnDiskByTheNextRun) {
  const TempDir dir;
  const std::string folder = (dir / "cache").string();
  std::string text = "Count these:";
  for (int i = 0; i < 100; ++i) text += " " + std::to_string(i);
  const std::vector<std::string> flags{"--max-tokens", "8", "--cache-dir", folder};
  const auto first = piped(text + "\n", flags), second = piped(text + "\n", flags);
  EXPECT_EQ(first.at(0).at("text"), second.at(0).at("text"));
  EXPECT_EQ(computed(first.at(0)), first.at(0).at("prompt_tokens"));
  EXPECT_LE(computed(second.at(0)), 64);
  const auto refused = kogia({"chat", smollm2().string(), "--cache-dir", "/dev/null/x"}, {});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("no pages can be kept here"));
}

TEST(Chat, AFullContextIsSaid) {
  const auto result =
      kogia({"chat", smollm2().string(), "--temperature", "0", "--ctx", "64", "--ignore-eos"},
            {.input = "Count to one thousand.\nGo on.\n"});
  EXPECT_EQ(result.exit_code, 2) << "without a terminal the first failure ends the chat";
  EXPECT_THAT(result.err, HasSubstr("the context of 64 tokens is full"));
  EXPECT_THAT(result.err, HasSubstr("and the context holds 64"));
  EXPECT_THAT(result.err, HasSubstr("/reset begins anew"));
}

}  // namespace
}  // namespace kogia::test
