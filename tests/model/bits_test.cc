// The contract of determinism (docs/design): the logits of a token depend on its own sequence
// alone, bit for bit, whatever shares the batch, however the prompt is cut, however many threads
// run.

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "model/model_runner.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

constexpr std::size_t kLength = 70;  // beyond the first page of 64, and no multiple of anything

struct Case {
  GoldenFile file;
  std::optional<Compute> compute;
  MlaForm mla;
  Isa isa;
};

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const GoldenFile& file : golden_files()) {
    const bool blocks = file.name.find("quantised") != std::string::npos;
    if (file.name != file.expected && !blocks) continue;  // the same weights as in the safetensors
    const bool is_deepseek = file.name[0] == 'v';
    std::vector<std::optional<Compute>> computes = {Compute::f32, std::nullopt};
    if (file.name.find("fp8") != std::string::npos) computes.push_back(Compute::fp8);
    if (blocks) {
      computes.push_back(Compute::bf16);
      computes.push_back(Compute::int16);
      computes.push_back(Compute::int8);
    }
    for (const Isa isa : all_isas()) {
      for (const auto& compute : computes) {
        out.push_back({file, compute, MlaForm::kAbsorbed, isa});
        if (is_deepseek) out.push_back({file, compute, MlaForm::kExpanded, isa});
      }
    }
  }
  return out;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  std::string text = c.file.name + "_" + (c.compute ? std::string(name(*c.compute)) : "default") +
                     (c.mla == MlaForm::kExpanded ? "_expanded_" : "_") + std::string(name(c.isa));
  for (char& letter : text) {
    if (!std::isalnum(static_cast<unsigned char>(letter))) letter = '_';
  }
  return text;
}

/// Logits of a sequence fed in chunks of n.
std::vector<float> in_chunks(ModelRunner& runner, std::span<const std::int32_t> ids,
                             std::size_t n) {
  std::vector<float> logits;
  Timeline timeline;
  for (std::size_t at = 0; at < ids.size(); at += n) {
    const auto part = runner.step(timeline, ids.subspan(at, std::min(n, ids.size() - at)));
    logits.insert(logits.end(), part.logits.begin(), part.logits.end());
  }
  runner.release(timeline);
  return logits;
}

/// The row from which two runs differ; -1 where every bit is equal.
Index first_difference(const std::vector<float>& a, const std::vector<float>& b, Index vocab_size) {
  if (a.size() != b.size()) return 0;
  for (std::size_t i = 0; i < a.size(); i += static_cast<std::size_t>(vocab_size)) {
    if (std::memcmp(&a[i], &b[i], static_cast<std::size_t>(vocab_size) * sizeof(float)) != 0) {
      return static_cast<Index>(i) / vocab_size;
    }
  }
  return -1;
}

class Bits : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    KOGIA_SKIP_IF_MISSING(GetParam().isa);
    const Expected expected = read_expected(GetParam().file.expected);
    ids_.assign(expected.ids.begin(), expected.ids.begin() + kLength);
    runner_ = make_runner(1);
    vocab_ = runner_->model().config().vocab_size;
    alone_ = in_chunks(*runner_, ids_, kLength);
    for (const float z : alone_) ASSERT_TRUE(std::isfinite(z));
  }

  static std::unique_ptr<ModelRunner> make_runner(int n_threads) {
    return std::make_unique<ModelRunner>(GetParam().file.path,
                                         RunnerOptions{.isa = GetParam().isa,
                                                       .n_threads = n_threads,
                                                       .compute = GetParam().compute,
                                                       .mla = GetParam().mla,
                                                       .cache_dtype = std::nullopt});
  }

  void expect_same(const std::vector<float>& logits, const std::string& what) {
    EXPECT_EQ(first_difference(logits, alone_, vocab_), -1)
        << what << " changes bits from this row on";
  }

  std::vector<std::int32_t> ids_;
  std::unique_ptr<ModelRunner> runner_;
  std::vector<float> alone_;  // one thread, one chunk
  Index vocab_ = 0;
};

TEST_P(Bits, ChunksDoNotMatter) {
  for (const std::size_t n : {1U, 3U, 64U}) {
    expect_same(in_chunks(*runner_, ids_, n), "a chunk of " + std::to_string(n));
  }
}

TEST_P(Bits, ThreadsDoNotMatter) {
  expect_same(in_chunks(*make_runner(2), ids_, kLength), "2 threads");
  expect_same(in_chunks(*make_runner(3), ids_, 11), "3 threads and chunks of 11");
}

// Six others of other lengths, begun earlier or now, around ours; ours in pieces of 17.
TEST_P(Bits, NeighboursInTheBatchDoNotMatter) {
  constexpr std::size_t kOthers = 6, kPiece = 17;
  std::vector<std::vector<std::int32_t>> other_ids(kOthers);
  std::vector<Timeline> others(kOthers);
  for (std::size_t o = 0; o < kOthers; ++o) {
    for (std::size_t i = 0; i < 1 + 5 * o; ++i) {
      other_ids[o].push_back(ids_[(i * (o + 3) + 11 * o) % ids_.size()]);
    }
    if (o % 2 == 1) runner_->step(others[o], other_ids[o]);  // these have a past
  }
  std::vector<float> logits;
  Timeline ours;
  for (std::size_t at = 0; at < ids_.size(); at += kPiece) {
    const auto piece = std::span(ids_).subspan(at, std::min(kPiece, ids_.size() - at));
    std::vector<ModelRunner::Part> parts;
    Index before = 0;
    for (std::size_t o = 0; o < kOthers; ++o) {
      if (o == 3) parts.push_back({&ours, piece});
      if (o < 3) before += static_cast<Index>(other_ids[o].size());
      parts.push_back({&others[o], other_ids[o]});
    }
    const auto result = runner_->step(parts);
    const auto first = result.logits.begin() + before * vocab_;
    logits.insert(logits.end(), first, first + static_cast<Index>(piece.size()) * vocab_);
  }
  expect_same(logits, "a batch of 7");
}

// A prefix that is in the cache already, from a sequence that went on differently.
TEST_P(Bits, ReuseOfTheCacheDoesNotMatter) {
  for (const std::size_t kept : {1U, 33U, 64U, 69U}) {
    std::vector<std::int32_t> other(ids_.begin(), ids_.begin() + static_cast<Index>(kept));
    for (std::size_t i = 0; i < 40; ++i) other.push_back(ids_[(7 * i) % ids_.size()]);
    Timeline timeline;
    runner_->step(timeline, other);
    timeline.length = static_cast<Index>(kept);
    const auto rest = runner_->step(timeline, std::span(ids_).subspan(kept));
    const std::vector<float> want(alone_.begin() + static_cast<Index>(kept) * vocab_, alone_.end());
    EXPECT_EQ(first_difference(rest.logits, want, vocab_), -1) << kept << " tokens reused";
    runner_->release(timeline);
  }
}

// How far another order of sums may lie. Every product sums K terms in f32, which moves it by K ulp
// at most and sqrt(K) typically, and rounds its input to the format once more, which a neighbour of
// a rounding border does the other way. A residual stream of n products carries n of these steps.
double rounding(Compute compute) {
  switch (compute) {
    case Compute::f32:
      return 0;
    case Compute::bf16:
      return 0x1p-8;
    case Compute::int16:
      return 0.5 / 32767;
    case Compute::int8:
      return 0.5 / 127;
    case Compute::fp8:
      return 0x1p-4;
  }
  return 1;
}

TEST_P(Bits, EveryInstructionSetIsNearTheScalarReference) {
  if (GetParam().isa == Isa::scalar) GTEST_SKIP() << "scalar is the reference";
  const ModelConfig& c = runner_->model().config();
  const auto device = make_cpu_device({.n_threads = 1, .isa = GetParam().isa});
  // The default differs between instruction sets: ask the reference for the same arithmetic.
  std::optional<Compute> compute = GetParam().compute;
  const bool blocks = GetParam().file.name.find("quantised") != std::string::npos;
  if (!compute && blocks) compute = device->default_compute(DType::q8_0);
  ModelRunner scalar(GetParam().file.path, {.compute = compute,
                                            .mla = GetParam().mla,
                                            .cache_dtype = runner_->model().default_cache_dtype()});
  const std::vector<float> reference = in_chunks(scalar, ids_, kLength);

  const bool f32 = compute == Compute::f32;
  const double format = f32 ? 0 : std::max(0x1p-8, rounding(compute.value_or(Compute::bf16)));
  const double n_products = 8.0 * static_cast<double>(c.num_hidden_layers) + 1;
  const double longest =
      static_cast<double>(std::max({c.hidden_size, c.intermediate_size, Index{128}}));
  const double relative = n_products * (std::sqrt(longest) * 0x1p-23 + format);
  std::vector<double> worst_of_row;
  for (std::size_t r = 0; r < kLength; ++r) {
    double worst = 0, largest = 0;
    for (std::size_t v = 0; v < static_cast<std::size_t>(vocab_); ++v) {
      const std::size_t i = r * static_cast<std::size_t>(vocab_) + v;
      worst = std::max(
          worst, std::fabs(static_cast<double>(alone_[i]) - static_cast<double>(reference[i])));
      largest = std::max(largest, std::fabs(static_cast<double>(reference[i])));
    }
    worst_of_row.push_back(worst / largest);
  }
  std::sort(worst_of_row.begin(), worst_of_row.end());
  // A rounding that falls the other way may change which expert is chosen, which is no small step:
  // of a model with experts in less than f32 one row in ten is allowed that.
  const std::size_t strict = f32 || c.n_routed_experts == 0 ? kLength - 1 : kLength * 9 / 10;
  EXPECT_LE(worst_of_row[strict], relative);
}

INSTANTIATE_TEST_SUITE_P(Files, Bits, testing::ValuesIn(cases()), case_name);

}  // namespace
}  // namespace kogia::test
