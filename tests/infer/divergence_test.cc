// What a model expects, kept in a file, and how far another one is from it.

#include "infer/divergence.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "infer/score.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

constexpr LogitsShape kShape = {.ctx = 7, .vocab = 33, .windows = 2};

std::vector<float> logits_of(std::uint64_t row) {
  const Philox random(1, row);
  std::vector<float> out;
  for (std::uint64_t i = 0; i < 33; ++i) out.push_back(4 * random.normal(i));
  return out;
}

std::vector<TokenId> ids() {
  std::vector<TokenId> out;
  for (TokenId i = 0; i < 14; ++i) out.push_back(i * 2);
  return out;
}

std::filesystem::path written(const TempDir& dir) {
  LogitsWriter writer(dir / "logits", kShape, ids());
  for (std::uint64_t row = 0; row < 6; ++row) writer.append(logits_of(row));
  EXPECT_FALSE(std::filesystem::exists(dir / "logits")) << "there before it is whole";
  writer.commit();
  return dir / "logits";
}

TEST(LogitsFile, GivesBackWhatWasWrittenToTheNearestStep) {
  const TempDir dir;
  const LogitsFile file = LogitsFile::open(written(dir));
  EXPECT_EQ(file.shape().rows_per_window(), 3);
  EXPECT_EQ(std::vector<TokenId>(file.ids().begin(), file.ids().end()), ids());
  for (Index row = 0; row < 6; ++row) {
    const auto expected = log_softmax(logits_of(static_cast<std::uint64_t>(row)));
    const double top = *std::max_element(expected.begin(), expected.end());
    const KeptRow kept = file.row(row / 3, row % 3);
    for (Index id = 0; id < 33; ++id) {
      const double p = std::max(expected[static_cast<std::size_t>(id)], top - 16);
      EXPECT_NEAR(kept.log_prob(id), p, 16.0 / 65535 / 2 + 1e-5);
    }
  }
}

TEST(LogitsFile, DivergenceIsThatOfTheDefinition) {
  const TempDir dir;
  const LogitsFile file = LogitsFile::open(written(dir));
  const auto p = log_softmax(logits_of(2)), q = log_softmax(logits_of(4));
  double kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
  const Divergence far = divergence(file.row(0, 2), logits_of(4), 5);
  EXPECT_NEAR(far.kl, kl, 1e-3);
  EXPECT_NEAR(far.nll, -q[5], 1e-6);
  EXPECT_NEAR(far.nll_kept, -p[5], 2e-4);
  const auto top = [](const std::vector<double>& row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
  };
  for (std::uint64_t row = 0; row < 6; ++row) {
    EXPECT_EQ(divergence(file.row(0, 2), logits_of(row), 5).same_top,
              top(log_softmax(logits_of(row))) == top(p));
  }
  const Divergence near = divergence(file.row(0, 2), logits_of(2), 5);
  EXPECT_NEAR(near.kl, 0, 1e-4);
  EXPECT_TRUE(near.same_top);
}

TEST(LogitsFile, ADamagedOneIsRefusedByName) {
  const TempDir dir;
  const std::string whole = read_file(written(dir));
  const auto refused = [&](const std::string& bytes) {
    const auto path = dir.write("damaged", bytes);
    try {
      LogitsFile::open(path);
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("damaged"), std::string::npos);
      return true;
    }
    return false;
  };
  EXPECT_FALSE(refused(whole));
  for (std::size_t n = 0; n < whole.size(); n += 5) EXPECT_TRUE(refused(whole.substr(0, n))) << n;
  EXPECT_TRUE(refused(whole + "x"));
  for (std::size_t at = 0; at < 20; ++at) {
    for (const int bit : {0, 7}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << bit));
      EXPECT_TRUE(refused(bytes)) << at;
    }
  }
  std::string id = whole;
  id[20] = 33;
  EXPECT_TRUE(refused(id)) << "an id outside the vocabulary";
}

std::unique_ptr<Engine> open(const std::string& name, std::optional<Compute> compute) {
  return Engine::open(golden_folder(name), {.cpu = {.n_threads = 1, .isa = {}},
                                            .compute = compute,
                                            .cache_dtype = {},
                                            .ctx = 64,
                                            .show_progress = false});
}

TEST(Divergence, IsNothingForTheSameArithmeticAndSomethingForAnother) {
  const TempDir dir;
  const Expected expected = read_expected("llama");
  const auto f32 = open("llama", Compute::f32);
  const HalfScore half = save_logits(*f32, expected.ids, 40, dir / "base");
  const Index windows = static_cast<Index>(expected.ids.size()) / 40;
  EXPECT_EQ(half.tokens, windows * 19);
  double nll = 0;
  for (const ScoredToken& t :
       score(*f32, std::span(expected.ids).first(static_cast<std::size_t>(windows * 40)), 40)) {
    if (t.pos % 40 > 20) nll -= static_cast<double>(t.logprob);
  }
  EXPECT_NEAR(half.nll, nll, 1e-4);

  const LogitsFile base = LogitsFile::open(dir / "base");
  const DivergenceReport same = measure_divergence(*f32, base);
  EXPECT_EQ(same.tokens, half.tokens);
  EXPECT_LT(std::fabs(same.kl), 1e-6);
  EXPECT_EQ(same.same_top, 1);
  EXPECT_NEAR(same.nll, half.nll, 1e-2);
  const DivergenceReport other = measure_divergence(*open("llama", Compute::bf16), base);
  EXPECT_GT(other.kl, std::fabs(same.kl));
  EXPECT_LT(other.kl, 1e-2);
  EXPECT_THROW(save_logits(*f32, expected.ids, 2, dir / "short"), Error);
  EXPECT_THROW(save_logits(*f32, std::span(expected.ids).first(39), 40, dir / "short"), Error);
  EXPECT_FALSE(std::filesystem::exists(dir / "short"));
}

}  // namespace
}  // namespace kogia::test
