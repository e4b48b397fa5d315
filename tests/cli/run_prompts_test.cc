// A file of prompts against a scripted runner in place of the batcher: every order in which answers
// can come, and a stop at every step.
#include "cli/run_prompts.h"

#include <algorithm>
#include <csignal>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "support/temp_dir.h"

namespace kogia::cli {
namespace {

using Json = nlohmann::ordered_json;
using test::read_file;
using test::TempDir;
using testing::ElementsAre;
using testing::HasSubstr;

// Ends one request a step, whichever a keyed choice says; its answer is a function of the request.
class ScriptedRunner {
 public:
  explicit ScriptedRunner(std::uint64_t seed) : seed_(seed) {}
  Index stop_after = -1;  // steps until Ctrl-C
  Index fail_at = -1;     // the request that cannot be drawn from

  RequestRunner runner() {
    return {
        .submit = [this](Request r, RequestEvents e) { return submit(std::move(r), std::move(e)); },
        .step = [this] { return step(); },
        .end_all = [this](FinishReason reason) { end_all(reason); }};
  }
  const std::vector<Request>& seen() const { return seen_; }
  std::size_t most_open() const { return most_open_; }

 private:
  struct Open {
    Request request;
    RequestEvents events;
  };

  RequestId submit(Request request, RequestEvents events) {
    seen_.push_back(request);
    open_.emplace(seen_.size(), Open{std::move(request), std::move(events)});
    most_open_ = std::max(most_open_, open_.size());
    return seen_.size();
  }

  static Generation answer(const Request& r) {
    Generation g;
    g.ids = {r.prompt.front(), static_cast<TokenId>(r.options.sample_key)};
    g.logprobs = {-0.5F, -1.5F};
    if (r.options.n_top_logprobs > 0) g.top_logprobs = {{{.id = 1, .logprob = -0.5F}}, {}};
    g.content = "answer " + std::to_string(r.prompt.size());
    g.finish_reason = FinishReason::kLength;
    g.n_prompt = static_cast<Index>(r.prompt.size());
    g.n_prompt_computed = 1;
    return g;
  }

  bool step() {
    if (open_.empty()) return false;
    auto at = open_.begin();
    std::advance(at, static_cast<Index>(Philox(seed_).below(open_.size(), ++n_steps_)));
    const Open ended = std::move(at->second);
    const auto id = static_cast<Index>(at->first);
    open_.erase(at);
    if (ended.events.on_piece) ended.events.on_piece({.id = 3});
    if (id == fail_at) {
      ended.events.on_error(Error(ErrorCode::kInvalid, "not a number"));
    } else {
      ended.events.on_done(answer(ended.request));
    }
    if (static_cast<Index>(n_steps_) == stop_after) std::raise(SIGINT);
    return true;
  }

  void end_all(FinishReason reason) {
    for (auto& [id, open] : std::exchange(open_, {})) {
      Generation g = answer(open.request);
      g.finish_reason = reason;
      open.events.on_done(std::move(g));
    }
  }

  std::uint64_t seed_;
  std::uint64_t n_steps_ = 0;
  std::vector<Request> seen_;
  std::map<std::size_t, Open> open_;
  std::size_t most_open_ = 0;
};

constexpr const char* kPrompts =
    R"({"prompt": "a", "id": "first"}
{"text": "bb", "n": 3, "max_tokens": 7}

{"prompt": [9, 9, 9], "custom_id": 5, "logprobs": 2}
{"messages": [{"role": "user", "content": "dddd"}], "temperature": 0}
{"prompt": "eeeee", "seed": 11}
)";
constexpr Index kAnswers = 7;

struct Outcome {
  PromptRunResult result;
  std::string out;
};

class PromptRuns : public testing::Test {
 protected:
  Outcome run(ScriptedRunner& scripted, const std::string& prompts = kPrompts) {
    const InterruptGuard guard;
    const auto path = dir_.write("p.jsonl", prompts);
    const PromptFile file = PromptFile::open(path.string());
    const PromptPlan plan = check_prompts(file);
    const auto answers = open_answer_file(dir_ / "out.jsonl", plan.n_slots(), [&](Index slot) {
      return answer_head(file, plan, salt_, slot);
    });
    RequestRunner runner = scripted.runner();
    PromptRunOptions options;  // (g++ 12 warns of a braced one)
    options.salt = salt_;
    options.encode = encode;
    options.max_sequences = 2;
    options.defaults.options.max_tokens = 100;
    Outcome run{.result = run_prompts(file, plan, *answers, runner, options), .out = {}};
    run.out = read_file(dir_ / "out.jsonl");
    return run;
  }
  static std::vector<TokenId> encode(const RequestBody& body) {
    if (!body.ids.empty()) return body.ids;
    const std::string text = body.text ? *body.text : body.messages[0].content;
    return {text.begin(), text.end()};
  }
  static std::vector<Json> lines(const std::string& text) {
    std::vector<Json> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(Json::parse(line));
    return all;
  }

  TempDir dir_;
  std::string salt_ = "salt";
};

TEST_F(PromptRuns, EachSampleHasItsLineInOrder) {
  ScriptedRunner scripted(1);
  const Outcome r = run(scripted);
  EXPECT_EQ(r.result.n_answers, kAnswers);
  EXPECT_EQ(r.result.n_tokens, 2 * kAnswers);
  EXPECT_FALSE(r.result.interrupted);
  const auto all = lines(r.out);
  ASSERT_EQ(all.size(), static_cast<std::size_t>(kAnswers));
  std::vector<std::pair<int, int>> places;
  for (const Json& line : all) places.emplace_back(line["index"], line["sample"]);
  using P = std::pair<int, int>;
  EXPECT_THAT(places, ElementsAre(P{0, 0}, P{1, 0}, P{1, 1}, P{1, 2}, P{2, 0}, P{3, 0}, P{4, 0}));
  EXPECT_EQ(all[0]["id"], "first");
  EXPECT_FALSE(all[1].contains("id"));
  EXPECT_EQ(all[4]["custom_id"], 5);
  EXPECT_EQ(all[4]["logprobs"], Json({-0.5, -1.5}));
  EXPECT_EQ(all[4]["top_logprobs"][0][0]["id"], 1);
  EXPECT_EQ(all[0]["ids"], Json({'a', 0})) << "without a tokenizer the ids are the answer";
  EXPECT_EQ(all[2]["ids"], Json({'b', 1}));
  EXPECT_EQ(all[5]["usage"]["prompt_tokens"], 4);
  EXPECT_EQ(all[5]["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
  EXPECT_EQ(all[5]["finish_reason"], "length");
}

TEST_F(PromptRuns, SettingsOfALineReplaceThoseOfTheFlags) {
  ScriptedRunner scripted(1);
  run(scripted);
  ASSERT_EQ(scripted.seen().size(), static_cast<std::size_t>(kAnswers));
  const auto& seen = scripted.seen();
  EXPECT_EQ(seen[0].options.max_tokens, 100);
  EXPECT_EQ(seen[1].options.max_tokens, 7);
  EXPECT_EQ(seen[3].options.sample_key, 2U);
  EXPECT_EQ(seen[4].options.n_top_logprobs, 2);
  EXPECT_EQ(seen[0].options.n_top_logprobs, 0);
  EXPECT_EQ(seen[5].options.sampling.temperature, 0);
  EXPECT_TRUE(seen[5].options.split_reasoning);
  EXPECT_FALSE(seen[0].options.split_reasoning) << "what continues a text is not taken apart";
  EXPECT_EQ(seen[6].options.sampling.seed, 11U);
  EXPECT_LE(scripted.most_open(), 4U);
}

TEST_F(PromptRuns, AStopAtEveryStepGivesTheSameFile) {
  ScriptedRunner whole(1);
  const std::string expected = run(whole).out;
  for (Index stop = 1; stop < kAnswers; ++stop) {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      std::filesystem::remove(dir_ / "out.jsonl");
      ScriptedRunner first(seed), second(seed + 100);
      first.stop_after = stop;
      const Outcome stopped = run(first);
      EXPECT_TRUE(stopped.result.interrupted);
      EXPECT_EQ(stopped.result.n_answers, stop);
      EXPECT_TRUE(expected.starts_with(stopped.out)) << "an unfinished answer was written";
      const Outcome rest = run(second);
      EXPECT_EQ(rest.result.n_answers, kAnswers - stop) << "what was done is not done again";
      EXPECT_EQ(rest.out, expected);
    }
  }
}

TEST_F(PromptRuns, AnswersToOtherPromptsOrSettingsAreNotTakenForThese) {
  ScriptedRunner first(1);
  const std::string expected = run(first).out;
  std::string other = kPrompts;
  other.replace(other.find("bb"), 2, "cc");
  ScriptedRunner second(1);
  try {
    run(second, other);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("out.jsonl:2: not the answer to this prompt"));
  }
  salt_ = "another model";
  EXPECT_THROW(run(second), Error);
  salt_ = "salt";
  EXPECT_EQ(read_file(dir_ / "out.jsonl"), expected);
  // More prompts behind the same ones are gone on with.
  const Outcome more = run(second, kPrompts + std::string("{\"prompt\": \"f\"}\n"));
  EXPECT_EQ(more.result.n_answers, 1);
  EXPECT_TRUE(more.out.starts_with(expected));
}

TEST_F(PromptRuns, ARequestThatFailsIsToldInItsLine) {
  ScriptedRunner scripted(1);
  scripted.fail_at = 2;
  const Outcome r = run(scripted);
  EXPECT_EQ(r.result.n_failed, 1);
  EXPECT_EQ(r.result.n_answers, kAnswers - 1);
  EXPECT_EQ(lines(r.out)[1]["error"], "not a number");
}

TEST_F(PromptRuns, BadLinesAreRefusedBeforeAnythingRuns) {
  const auto refusal = [&](const std::string& prompts) -> std::string {
    ScriptedRunner scripted(1);
    try {
      run(scripted, prompts);
    } catch (const Error& error) {
      EXPECT_TRUE(scripted.seen().empty());
      EXPECT_FALSE(std::filesystem::exists(dir_ / "out.jsonl"));
      return error.what();
    }
    return "accepted";
  };
  const std::string good = "{\"prompt\": \"x\"}\n";
  EXPECT_THAT(refusal(good + "\n" + good + "{\"prompt\": 5}\n"),
              HasSubstr("p.jsonl:4: prompt is 5, expected"));
  EXPECT_THAT(refusal(good + "{\"prompt\": \"x\""), HasSubstr("p.jsonl:2 is not JSON"));
  EXPECT_THAT(refusal(""), HasSubstr("p.jsonl: holds no request"));
  EXPECT_THAT(refusal("\n  \r\n\n"), HasSubstr("p.jsonl: holds no request"));
  EXPECT_THAT(refusal("{\"prompt\": \"x\", \"id\": \"a\"}\n" + good +
                      "{\"prompt\": \"y\", \"custom_id\": \"a\"}\n"),
              HasSubstr("p.jsonl:3: custom_id \"a\" is that of"));
}

TEST_F(PromptRuns, LinesMayEndAsWindowsEndsThem) {
  ScriptedRunner scripted(1);
  const Outcome r = run(scripted, "\xEF\xBB\xBF{\"prompt\": \"x\"}\r\n\r\n{\"prompt\": \"y\"}");
  EXPECT_EQ(r.result.n_answers, 2);
}

}  // namespace
}  // namespace kogia::cli
