// 200 steps of training of a tiny DeepSeek-V3 with multi-token prediction, beside PyTorch's on the
// same batches from the same weights (tests/data/golden/README.md).

#include <cmath>
#include <cstdio>

#include <gtest/gtest.h>

#include "device/cpu_device.h"
#include "support/golden.h"
#include "train/step.h"

namespace kogia::test {
namespace {

class TorchTraining : public testing::Test {
 protected:
  TorchTraining()
      : text_(read_file(golden_folder("train_v3") / "text.txt")),
        json_(nlohmann::json::parse(read_file(golden_folder("train_v3") / "training.json"))) {}

  /// Eight rows of 65 bytes, one after the other, around the text.
  std::vector<PackedRow> rows(std::size_t step) const {
    std::vector<PackedRow> rows;
    for (std::size_t r = 0; r < 8; ++r) {
      const std::size_t begin = (8 * step + r) * 64 % (text_.size() - 65);
      PackedRow& row = rows.emplace_back();
      row.document_begin = {0};
      for (std::size_t i = begin; i < begin + 65; ++i) {
        row.ids.push_back(static_cast<unsigned char>(text_[i]));
      }
    }
    return rows;
  }

  void train(Isa isa) const {
    SCOPED_TRACE(name(isa));
    const auto device = make_cpu_device({.isa = isa});
    const auto checkpoint = Checkpoint::open(golden_folder("train_v3"));
    Parameters parameters(*device, *checkpoint, Recipe::kF32, MlaForm::kExpanded);
    Optimizer optimizer(*device, parameters.all(), DType::f32);
    StepRunner runner(*device, parameters, optimizer, {});
    const StepSettings settings{.optimizer = {.lr = 1e-3F}, .bias_rate = 0.001F};
    const auto losses = json_.at("loss").get<std::vector<double>>();
    const auto mtp = json_.at("mtp_loss").get<std::vector<double>>();
    const auto norms = json_.at("grad_norm").get<std::vector<double>>();
    double worst = 0;
    for (std::size_t s = 0; s < losses.size(); ++s) {
      const StepResult result = runner.run(rows(s), settings, static_cast<Index>(s) + 1);
      worst = std::max(
          {worst, std::abs(result.loss - losses[s]), std::abs(result.mtp_loss[0] - mtp[s])});
      EXPECT_NEAR(result.loss, losses[s], 1e-3) << "step " << s + 1;
      EXPECT_NEAR(result.mtp_loss[0], mtp[s], 1e-3) << "step " << s + 1;
      if (s < 20) {
        EXPECT_NEAR(result.grad_norm, norms[s], 1e-3 * norms[s]) << "step " << s + 1;
      }
      if (s < json_.at("counts").size()) {
        const auto counts = json_.at("counts")[s].get<std::vector<std::vector<Index>>>();
        ASSERT_EQ(result.loads.size(), counts.size());
        for (std::size_t l = 0; l < counts.size(); ++l)
          EXPECT_EQ(result.loads[l].tokens, counts[l]);
      }
    }
    std::printf("%s: %.1e at worst\n", std::string(name(isa)).c_str(), worst);
  }

  std::string text_;
  nlohmann::json json_;
};

// (A choice of experts that is close can fall otherwise for rounding alone, and losses part from
// there on by more: a new order of sums that fails here need not be wrong. See the README.)
TEST_F(TorchTraining, GoesTheSameWay) {
  for (const Isa isa : available_isas()) {
    if (isa != Isa::scalar) train(isa);  // the definition in f64 takes minutes
  }
}

}  // namespace
}  // namespace kogia::test
