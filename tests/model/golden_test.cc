// Every family against the oracles: log-probabilities within 1e-4 in f32, greedy answers equal.

#include "support/golden.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/model_runner.h"

namespace kogia::test {
namespace {

constexpr double kTolerance = 1e-4;    // absolute, of a log-probability (docs/design, numerics)
constexpr double kClearMargin = 5e-4;  // closer tops may fall either way within the tolerance

struct Case {
  GoldenFile file;
  Isa isa;
  MlaForm mla;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const GoldenFile& file : golden_files()) {
    for (const Isa isa : all_isas()) {
      out.push_back({file, isa, MlaForm::kAbsorbed});
      if (file.name[0] != 'v') continue;  // only DeepSeek's attention has other forms
      out.push_back({file, isa, MlaForm::kExpanded});
      out.push_back({file, isa, MlaForm::kAuto});
    }
  }
  return out;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  std::string text = c.file.name + "_" + std::string(name(c.isa));
  if (c.mla == MlaForm::kExpanded) text += "_expanded";
  if (c.mla == MlaForm::kAuto) text += "_auto";
  for (char& letter : text) {
    if (!std::isalnum(static_cast<unsigned char>(letter))) letter = '_';
  }
  return text;
}

class Golden : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    KOGIA_SKIP_IF_MISSING(GetParam().isa);
    expected_ = read_expected(GetParam().file.expected);
    runner_ = std::make_unique<ModelRunner>(
        GetParam().file.path,
        RunnerOptions{.isa = GetParam().isa, .n_threads = 2, .mla = GetParam().mla});
  }

  Expected expected_;
  std::unique_ptr<ModelRunner> runner_;
};

TEST_P(Golden, LogProbabilitiesAreThoseOfTheOracle) {
  Timeline timeline;
  const ModelRunner::Result result = runner_->step(timeline, expected_.ids);
  for (std::size_t i = 0; i < expected_.logprobs.size(); ++i) {
    const auto row = log_softmax(result.row(static_cast<Index>(i)));
    ASSERT_NEAR(row[static_cast<std::size_t>(expected_.ids[i + 1])], expected_.logprobs[i],
                kTolerance)
        << "position " << i << ", oracle " << expected_.oracle;
  }
  ASSERT_FALSE(expected_.rows.empty());
  for (const auto& [position, want] : expected_.rows) {
    const auto row = log_softmax(result.row(position));
    ASSERT_EQ(row.size(), want.size());
    for (std::size_t v = 0; v < row.size(); ++v) {
      ASSERT_NEAR(row[v], want[v], kTolerance) << "position " << position << ", id " << v;
    }
  }
}

TEST_P(Golden, GreedyAnswerIsThatOfTheOracleWhereTheMarginAllows) {
  Timeline timeline;
  const auto prompt = std::span(expected_.ids).first(Expected::n_prompt);
  ModelRunner::Result result = runner_->step(timeline, prompt);
  Index last = static_cast<Index>(prompt.size()) - 1;
  std::size_t compared = 0;
  for (; compared < expected_.greedy.size(); ++compared) {
    const auto row = result.row(last);
    const auto best =
        static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    if (expected_.margins[compared] < kClearMargin) break;
    ASSERT_EQ(best, expected_.greedy[compared]) << "token " << compared;
    const std::int32_t next[] = {best};
    result = runner_->step(timeline, next);
    last = 0;
  }
  EXPECT_GE(compared, 8u) << "the fixture is too close to a tie to show anything";
}

TEST_P(Golden, MultiTokenPredictionIsThatOfTheOracle) {
  if (!runner_->model().has_mtp()) {
    const bool in_file = GetParam().file.name == "v3" || GetParam().file.name == "v3/new.gguf" ||
                         GetParam().file.name == "v3_fp8";
    EXPECT_FALSE(in_file) << "the layer is in the file and was not loaded";
    return;
  }
  Timeline timeline;
  const ModelRunner::Result main = runner_->step(timeline, expected_.ids);
  const ModelRunner::Result ahead = runner_->mtp(expected_.ids, main);
  ASSERT_FALSE(expected_.mtp_logprobs.empty());
  for (std::size_t i = 0; i < expected_.mtp_logprobs.size(); ++i) {
    const auto row = log_softmax(ahead.row(static_cast<Index>(i)));
    ASSERT_NEAR(row[static_cast<std::size_t>(expected_.ids[i + 2])], expected_.mtp_logprobs[i],
                kTolerance)
        << "row " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Golden, testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace kogia::test
