// Gradients of whole models and the steps made of them.

#include "train/step.h"

#include <cmath>
#include <cstring>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "device/cpu_device.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

struct Setup {
  int n_threads = 2;
  bool recompute = true;
  MlaForm form = MlaForm::kExpanded;
  Recipe recipe = Recipe::kF32;
  float sequence_loss = 0;
  std::optional<Keeping> keeping = {};  // unset: the recipe's
};

/// A golden checkpoint that is trained.
struct Training {
  Training(const std::string& name, const Setup& setup)
      : device(make_cpu_device({.n_threads = setup.n_threads})),
        checkpoint(Checkpoint::open(golden_folder(name))),
        parameters(*device, *checkpoint, setup.recipe, setup.form),
        optimizer(*device, parameters.all(), DType::f32),
        runner(*device, parameters, optimizer,
               {.keeping = setup.keeping.value_or(keeping_of(setup.recipe)),
                .recompute_norms = setup.recompute,
                .recompute_swiglu = setup.recompute,
                .recompute_up_projection = setup.recompute,
                .sequence_loss = setup.sequence_loss}) {}

  std::vector<float> gradients() {
    std::vector<float> all;
    for (const Parameter& p : parameters.all()) {
      if (p.grad != nullptr) all.insert(all.end(), p.grad, p.grad + p.n);
    }
    return all;
  }
  std::vector<float> masters() {
    std::vector<float> all;
    for (const Parameter& p : parameters.all()) all.insert(all.end(), p.master, p.master + p.n);
    return all;
  }

  std::unique_ptr<Device> device;
  std::unique_ptr<Checkpoint> checkpoint;
  Parameters parameters;
  Optimizer optimizer;
  StepRunner runner;
};

/// Rows of a case's ids, cut into texts of odd lengths; also one of a single token.
std::vector<PackedRow> rows_of(const std::string& name, std::size_t n_rows) {
  const std::vector<std::int32_t> ids = read_expected(name).ids;
  std::vector<PackedRow> rows;
  for (std::size_t r = 0; r < n_rows; ++r) {
    const auto begin = static_cast<std::ptrdiff_t>(7 * r);
    rows.push_back(
        {.ids = {ids.begin() + begin, ids.begin() + begin + 120}, .document_begin = {0}});
    if (r % 2 == 1) rows.back().document_begin = {0, 70, 71, 74};
  }
  return rows;
}

double loss_of(StepRunner& runner, std::span<const PackedRow> rows, float mtp_weight) {
  const StepResult result = runner.evaluate(rows, 0);
  double loss = result.loss;
  for (const double l : result.mtp_loss) {
    loss += static_cast<double>(mtp_weight) * l / static_cast<double>(result.mtp_loss.size());
  }
  return loss;
}

/// In the direction of the gradient itself the slope of the loss is its norm: nothing cancels.
void expect_slope(Parameters& parameters, StepRunner& runner, std::span<const PackedRow> rows) {
  const StepSettings settings{.mtp_weight = 0.3F};
  const StepResult result = runner.gradients(rows, settings);
  EXPECT_NEAR(result.loss, runner.evaluate(rows, 0).loss, 1e-12);
  std::vector<std::vector<float>> gradients;
  for (const Parameter& p : parameters.all()) {
    if (p.grad != nullptr) gradients.emplace_back(p.grad, p.grad + p.n);
  }
  const double norm = result.grad_norm, reach = 5e-4;
  const auto move = [&](double by) {
    std::size_t at = 0;
    for (Parameter& p : parameters.all()) {
      if (p.grad == nullptr) continue;
      const std::vector<float>& g = gradients[at++];
      for (std::size_t i = 0; i < g.size(); ++i) {
        p.master[i] += static_cast<float>(by * static_cast<double>(g[i]) / norm);
      }
    }
    parameters.refresh();
  };
  move(reach);
  const double above = loss_of(runner, rows, settings.mtp_weight);
  move(-2 * reach);
  const double below = loss_of(runner, rows, settings.mtp_weight);
  EXPECT_NEAR((above - below) / (2 * reach) / norm, 1, 0.01);
}

class Families : public testing::TestWithParam<const char*> {};

TEST_P(Families, GradientIsTheSlopeOfTheLoss) {
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    SCOPED_TRACE(name(form));
    Training t(GetParam(), {.form = form});
    expect_slope(t.parameters, t.runner, rows_of(GetParam(), 2));
  }
}

// Each token predicts the four behind it, the deeper layers from the states of the one before.
TEST(Depths, GradientsOfThreeAreTheSlopeAndKeepTheirBits) {
  auto config = nlohmann::ordered_json::parse(read_file(golden_folder("v3") / "config.json"));
  config["num_nextn_predict_layers"] = 3;
  // Every token goes to all experts: a choice that turns on the way would bend the slope.
  config["num_experts_per_tok"] = config["n_routed_experts"];
  config["n_group"] = config["topk_group"] = 1;
  const auto device = make_cpu_device({.n_threads = 2});
  Parameters parameters(*device, config.dump(), 0.15, 3, Recipe::kF32, MlaForm::kExpanded);
  Optimizer optimizer(*device, parameters.all(), DType::f32);
  StepRunner runner(*device, parameters, optimizer, {});
  const auto rows = rows_of("v3", 4);
  const StepResult result = runner.gradients(rows, {});
  EXPECT_EQ(result.mtp_loss.size(), 3u);
  std::vector<float> whole;
  for (const Parameter& p : parameters.all()) {
    if (p.grad != nullptr) whole.insert(whole.end(), p.grad, p.grad + p.n);
  }
  runner.gradients(rows, {.micro_batch_size = 1});
  std::size_t at = 0;
  for (const Parameter& p : parameters.all()) {
    if (p.grad == nullptr) continue;
    EXPECT_EQ(std::memcmp(p.grad, whole.data() + at, static_cast<std::size_t>(p.n) * sizeof(float)),
              0)
        << p.name;
    at += static_cast<std::size_t>(p.n);
  }
  expect_slope(parameters, runner, std::span(rows).first(2));
}

nlohmann::json read_gradients(const std::string& name) {
  return nlohmann::json::parse(read_file(golden_folder(name) / "gradients.json"));
}

std::vector<PackedRow> rows_of(const std::string& name, const nlohmann::json& gradients) {
  const std::vector<std::int32_t> ids = read_expected(name).ids;
  std::vector<PackedRow> rows;
  for (const auto& texts : gradients.at("rows")) {
    PackedRow& row = rows.emplace_back();
    for (const auto& text : texts) {
      row.document_begin.push_back(static_cast<Index>(row.ids.size()));
      row.ids.insert(row.ids.end(), ids.begin() + text[0].get<int>(),
                     ids.begin() + text[1].get<int>());
    }
  }
  return rows;
}

// Tensor by tensor, the gradients that PyTorch finds in f64.
class Oracle : public testing::TestWithParam<const char*> {};

TEST_P(Oracle, GradientsAreThoseOfPyTorch) {
  const auto json = read_gradients(GetParam());
  const std::vector<PackedRow> rows = rows_of(GetParam(), json);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    Training t(GetParam(), {.form = form});
    const StepResult result = t.runner.gradients(rows, {.mtp_weight = 0.3F});
    EXPECT_NEAR(result.loss, json.at("loss").get<double>(), 1e-5);
    const auto mtp = json.value("mtp_loss", std::vector<double>());
    ASSERT_EQ(result.mtp_loss.size(), mtp.size());
    for (std::size_t k = 0; k < mtp.size(); ++k) EXPECT_NEAR(result.mtp_loss[k], mtp[k], 1e-5);
    std::size_t found = 0;
    for (const Parameter& p : t.parameters.all()) {
      if (p.grad == nullptr) continue;
      ASSERT_TRUE(json.at("tensors").contains(p.name)) << p.name;
      const auto& expected = json.at("tensors").at(p.name);
      const double norm = expected.at("norm").get<double>();
      double sum = 0;
      for (Index i = 0; i < p.n; ++i) sum += std::pow(static_cast<double>(p.grad[i]), 2);
      EXPECT_NEAR(std::sqrt(sum), norm, 1e-4 * norm) << p.name;
      const auto indices = expected.at("indices").get<std::vector<Index>>();
      const auto values = expected.at("values").get<std::vector<double>>();
      for (std::size_t i = 0; i < indices.size(); ++i) {
        EXPECT_NEAR(static_cast<double>(p.grad[indices[i]]), values[i], 1e-4 * norm)
            << p.name << " at " << indices[i];
      }
      ++found;
    }
    EXPECT_EQ(found, json.at("tensors").size());
  }
}

INSTANTIATE_TEST_SUITE_P(All, Oracle,
                         testing::Values("v3", "v2_lite", "v2_group", "qwen2", "qwen2_tied",
                                         "qwen3", "llama", "llama_tied"));

// What the balance loss adds to the gradients, with its weight at 1.
TEST(BalanceLoss, GradientsAreThoseOfPyTorch) {
  const auto json = read_gradients("v3");
  const std::vector<PackedRow> rows = rows_of("v3", json);
  Training without("v3", {}), with("v3", {.sequence_loss = 1});
  without.runner.gradients(rows, {});
  double expected_loss = 0;
  for (const double layer : json.at("balance_loss")) expected_loss += layer;
  EXPECT_NEAR(with.runner.gradients(rows, {}).balance_loss, expected_loss, 1e-5);
  std::size_t found = 0;
  for (std::size_t at = 0; at < with.parameters.all().size(); ++at) {
    const Parameter &a = with.parameters.all()[at], &b = without.parameters.all()[at];
    if (!json.at("balance_tensors").contains(a.name)) continue;
    ++found;
    const auto& expected = json.at("balance_tensors").at(a.name);
    const auto indices = expected.at("indices").get<std::vector<Index>>();
    const auto values = expected.at("values").get<std::vector<double>>();
    const double norm = expected.at("norm").get<double>();
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const double difference =
          static_cast<double>(a.grad[indices[i]]) - static_cast<double>(b.grad[indices[i]]);
      EXPECT_NEAR(difference, values[i], 1e-3 * norm + 1e-6) << a.name;
    }
  }
  EXPECT_EQ(found, json.at("balance_tensors").size());
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double relative_error(const std::vector<float>& got, const std::vector<float>& exact) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - static_cast<double>(exact[i]), 2);
    norm += std::pow(static_cast<double>(exact[i]), 2);
  }
  return std::sqrt(error / norm);
}

// Threads, accumulation and recomputation change no bit of any gradient.
TEST_P(Families, GradientsHaveTheSameBitsHoweverTheyAreMade) {
  const auto rows = rows_of(GetParam(), 4);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    Training reference(GetParam(), {.form = form});
    const StepResult whole = reference.runner.gradients(rows, {});
    const auto expected = reference.gradients();
    EXPECT_GT(whole.grad_norm, 0);
    for (const Index micro : {1, 2, 3}) {
      reference.runner.gradients(rows, {.micro_batch_size = micro});
      EXPECT_TRUE(same_bits(reference.gradients(), expected)) << micro << " rows at a time";
    }
    Training one_thread(GetParam(), {.n_threads = 1, .form = form});
    one_thread.runner.gradients(rows, {.micro_batch_size = 3});
    EXPECT_TRUE(same_bits(one_thread.gradients(), expected)) << "one thread";
    Training kept(GetParam(), {.recompute = false, .form = form});
    const StepResult all_kept = kept.runner.gradients(rows, {});
    EXPECT_TRUE(same_bits(kept.gradients(), expected)) << "nothing made again";
    EXPECT_GE(all_kept.kept_bytes, whole.kept_bytes);
  }
}

// The same in the smaller recipes.
TEST(Recipes, GradientsHaveTheSameBitsHoweverTheyAreMade) {
  const auto rows = rows_of("v3", 4);
  for (const Recipe recipe : {Recipe::kBf16, Recipe::kFp8}) {
    Training whole("v3", {.recipe = recipe}), alone("v3", {.n_threads = 1, .recipe = recipe});
    Training kept("v3", {.recompute = false, .recipe = recipe});
    whole.runner.gradients(rows, {});
    const auto expected = whole.gradients();
    whole.runner.gradients(rows, {.micro_batch_size = 3});
    EXPECT_TRUE(same_bits(whole.gradients(), expected)) << static_cast<int>(recipe);
    alone.runner.gradients(rows, {.micro_batch_size = 1});
    EXPECT_TRUE(same_bits(alone.gradients(), expected)) << static_cast<int>(recipe);
    kept.runner.gradients(rows, {});
    EXPECT_TRUE(same_bits(kept.gradients(), expected)) << static_cast<int>(recipe);
  }
}

// Rounding moves gradients, and by no more than its last place explains.
TEST(Recipes, GradientsAreThoseOfF32Nearly) {
  const auto rows = rows_of("v3", 2);
  Training exact("v3", {});
  exact.runner.gradients(rows, {});
  const auto f32 = exact.gradients();
  for (const auto& [recipe, near] :
       {std::pair(Recipe::kBf16, 0.08), std::pair(Recipe::kFp8, 0.35)}) {
    Training rounded("v3", {.recipe = recipe});
    rounded.runner.gradients(rows, {});
    const double error = relative_error(rounded.gradients(), f32);
    EXPECT_LT(error, near) << static_cast<int>(recipe);
    EXPECT_GT(error, 0);
  }
}

// Of that, what comes of operands that wait in bf16 or E4M3 is a small part.
TEST(Recipes, OperandsMayWaitRounded) {
  const auto rows = rows_of("v3", 2);
  for (const auto& [recipe, near] :
       {std::pair(Recipe::kBf16, 0.01), std::pair(Recipe::kFp8, 0.1)}) {
    Training exact("v3", {.recipe = recipe, .keeping = Keeping::kF32});
    Training rounded("v3", {.recipe = recipe});
    const Index bytes = exact.runner.gradients(rows, {}).kept_bytes;
    EXPECT_LT(rounded.runner.gradients(rows, {}).kept_bytes, bytes * 7 / 10);
    const double error = relative_error(rounded.gradients(), exact.gradients());
    EXPECT_LT(error, near) << static_cast<int>(recipe);
    EXPECT_GT(error, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Families,
                         testing::Values("v3", "v2_lite", "v2_group", "qwen2", "qwen2_tied",
                                         "qwen3", "llama"));

// Without a token to predict, nothing moves.
TEST(Step, OfNothingChangesNothing) {
  Training t("v3", {});
  const auto before = t.masters();
  const PackedRow empty{.ids = {5, 6, 7}, .document_begin = {0, 1, 2}};
  const StepResult result = t.runner.run({&empty, 1}, {.optimizer = {.lr = 1}, .bias_rate = 1}, 1);
  EXPECT_EQ(result.n_tokens, 0);
  EXPECT_TRUE(same_bits(t.masters(), before));
}

/// What a step that has to fail says.
std::string failure_of(Training& t, const StepSettings& settings) {
  const auto before = t.masters();
  try {
    t.runner.run(rows_of("v3", 2), settings, 7);
  } catch (const Error& e) {
    EXPECT_TRUE(same_bits(t.masters(), before)) << "the weights have changed";
    return e.what();
  }
  return "no failure";
}

void fill(Training& t, const std::string& name, float value) {
  for (const Parameter& p : t.parameters.all()) {
    if (p.name == name) std::fill_n(p.master, p.n, value);
  }
  t.parameters.refresh();
}

// A number that is none: where it appeared first.
TEST(Failures, NameWhereTheyBegan) {
  const StepSettings settings{.optimizer = {.lr = 1}};
  {
    Training t("v3", {});
    fill(t, "model.layers.1.mlp.gate.weight", std::numeric_limits<float>::infinity());
    EXPECT_THAT(failure_of(t, settings),
                testing::AllOf(testing::StartsWith("step 7: the loss is "),
                               testing::HasSubstr("the weight model.layers.1.mlp.gate.weight")));
  }
  {
    Training t("v3", {});
    fill(t, "model.layers.1.mlp.shared_experts.up_proj.weight", 1e38F);
    EXPECT_THAT(
        failure_of(t, settings),
        testing::HasSubstr(
            "the product of model.layers.1.mlp.shared_experts.up_proj.weight is the first"));
  }
  {  // each is finite, but not their product
    Training t("v3", {});
    fill(t, "model.layers.0.mlp.gate_proj.weight", 1e20F);
    fill(t, "model.layers.0.mlp.up_proj.weight", 1e20F);
    EXPECT_THAT(failure_of(t, settings),
                testing::HasSubstr("the SwiGLU after model.layers.0.mlp.up_proj.weight is"));
  }
  {  // a finite loss: this λ is the last that a float holds
    Training t("v3", {});
    for (const Parameter& p : t.parameters.all()) {
      if (p.name.ends_with("shared_head.norm.weight")) fill(t, p.name, 1e6F);
    }
    EXPECT_THAT(failure_of(t, {.optimizer = {.lr = 1}, .mtp_weight = 3e38F}),
                testing::ContainsRegex("the way back through the norm at "
                                       "model.layers.[0-9]+.shared_head.norm.weight is"));
  }
}

TEST(Failures, AreLossesThatJump) {
  Training t("v3", {});
  EXPECT_THAT(failure_of(t, {.optimizer = {.lr = 1}, .max_loss = 0.5}),
              testing::AllOf(testing::HasSubstr("the loss has jumped to "),
                             testing::HasSubstr(", over 0.5000"),
                             testing::HasSubstr(" % of the gradient's square is at ")));
}

// R13: the bias moves once a step, by the counts of all of its micro-batches.
TEST(Step, MovesBiasesByTheSignOfTheLoadOfTheWholeBatch) {
  const auto rows = rows_of("v3", 4);
  Training t("v3", {});
  const auto before = t.masters();
  const StepSettings settings{
      .optimizer = {.lr = 0, .weight_decay = 0}, .micro_batch_size = 1, .bias_rate = 0.001F};
  std::vector<std::vector<float>> old;
  const StepResult counts = t.runner.gradients(rows, settings);
  ASSERT_FALSE(counts.loads.empty());
  for (const ExpertLoad& load : counts.loads) {
    const float* b = t.parameters.router_bias(load.layer);
    old.emplace_back(b, b + load.tokens.size());
  }
  t.runner.run(rows, settings, 1);
  for (std::size_t l = 0; l < counts.loads.size(); ++l) {
    const ExpertLoad& load = counts.loads[l];
    double mean = 0;
    for (const Index n : load.tokens) mean += static_cast<double>(n);
    mean /= static_cast<double>(load.tokens.size());
    for (std::size_t e = 0; e < load.tokens.size(); ++e) {
      const auto n = static_cast<double>(load.tokens[e]);
      const float sign = n < mean ? 1 : n > mean ? -1 : 0;
      EXPECT_EQ(t.parameters.router_bias(load.layer)[e], old[l][e] + 0.001F * sign);
    }
  }
}

TEST(Step, LearnsARowByHeart) {
  Training t("v3", {});
  const auto rows = rows_of("v3", 1);
  const double before = t.runner.evaluate(rows, 0).loss;
  for (Index step = 1; step <= 30; ++step) {
    t.runner.run(rows, {.optimizer = {.lr = 3e-3F}, .bias_rate = 0.001F}, step);
  }
  EXPECT_LT(t.runner.evaluate(rows, 0).loss, before / 4);
}

}  // namespace
}  // namespace kogia::test
