// Whole runs of a tiny model: stopped and gone on with, they end in the same bytes.

#include "train/trainer.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/random.h"
#include "device/cpu_device.h"
#include "formats/hf_config.h"
#include "support/temp_dir.h"
#include "train/run_file.h"
#include "train/tiny_run.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;

/// Words of a small made-up language.
class Rows final : public RowSource {
 public:
  std::vector<PackedRow> rows(Index first, Index n) override {
    std::vector<PackedRow> rows;
    for (Index r = first; r < first + n; ++r) {
      const Philox random(5, static_cast<std::uint64_t>(r));
      PackedRow& row = rows.emplace_back();
      row.document_begin = {0, 20};
      for (std::uint64_t i = 0; i < 48; ++i) {
        const auto step = static_cast<std::int32_t>(random.below(2, i));
        row.ids.push_back(row.ids.empty() ? 3 : (row.ids.back() * 5 + 7 + step) % 64);
      }
    }
    return rows;
  }
  std::vector<PackedRow> validation_rows(Index n) override { return rows(1'000'000, n); }
  std::span<const Index> token_bytes() const override { return token_bytes_; }

 private:
  std::vector<Index> token_bytes_ = std::vector<Index>(64, 2);
};

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() {
    dir_.write("text.jsonl", "{}");
    dir_.write("tokenizer.json", "{}");
    dir_.write("run.toml", kTinyRun);
  }

  RunConfig config(const std::vector<std::string>& overrides = {}) {
    RunFileOptions options;
    options.overrides = overrides;
    options.cache = dir_ / "cache";
    return read_run_file(dir_ / "run.toml", options);
  }
  TrainReport run(const std::string& name, const RunConfig& c, int n_threads = 2,
                  Index stop_after = 0) {
    const InterruptGuard guard;
    const auto device = make_cpu_device({.n_threads = n_threads});
    Rows rows;
    RunFolder folder(dir_ / name);
    const auto found = folder.newest();
    Trainer trainer(c, *device, rows, folder, found,
                    {.files = {{"tokenizer.json", "{}"}}, .bos = {0}, .eos = {1}});
    const auto report = trainer.run([&](const StepReport& r) {
      if (r.step == stop_after) raise(SIGINT);
    });
    clear_interrupt();
    return report;
  }
  std::string weights(const std::string& name) {
    return read_file(dir_ / name / "latest" / "model.safetensors") +
           read_file(dir_ / name / "latest" / "kogia" / "optimizer" / "model.safetensors");
  }
  std::vector<nlohmann::json> metrics(const std::string& name) {
    std::vector<nlohmann::json> lines;
    std::string text = read_file(dir_ / name / "metrics.jsonl");
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = text.find('\n', at);
      lines.push_back(nlohmann::json::parse(text.substr(at, end - at)));
      at = end + 1;
    }
    return lines;
  }

  TempDir dir_;
};

TEST_F(TrainerTest, ALossThatJumpsLeavesTheStepBefore) {
  // The text is as hard as ever, so some loss is above the mean of those before.
  const RunConfig c =
      config({"trainer.steps=200", "optimizer.lr=1e-9", "trainer.stop_at_spike=1e-6"});
  try {
    run("jumps", c);
    FAIL() << "no loss was above the mean";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("the loss has jumped to "));
    EXPECT_THAT(e.help(), testing::HasSubstr("latest"));
  }
  const auto lines = metrics("jumps");
  ASSERT_GE(lines.size(), 20u);
  const auto found = RunFolder(dir_ / "jumps").newest();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, static_cast<Index>(lines.size()));
  EXPECT_GT(lines.back().at("step"), 0);
}

TEST_F(TrainerTest, LearnsAndLeavesWhatCanBeLoaded) {
  const RunConfig c = config({"trainer.steps=150"});
  const TrainReport report = run("a", c);
  EXPECT_EQ(report.n_steps, 150);
  const auto lines = metrics("a");
  ASSERT_EQ(lines.size(), 150u);
  EXPECT_GT(lines.front()["loss"].get<double>(), 3.9);
  EXPECT_LT(report.loss, 1.6);  // log 2 is what cannot be known
  ASSERT_TRUE(report.validation_loss.has_value());
  EXPECT_LT(*report.validation_loss, 1.6);
  // Every text of n tokens predicts n − 1 of them, of two bytes each; a row has two texts.
  EXPECT_EQ(lines[3]["tokens"], 4 * 46);
  EXPECT_EQ(lines[3]["bytes"], 4 * 46 * 2);
  EXPECT_GT(lines[3]["kept_bytes"], 1000);
  EXPECT_GE(lines[3]["peak_bytes"], lines[0]["peak_bytes"]);
  EXPECT_GE(lines[3]["time"], lines[2]["time"]);
  EXPECT_NEAR(lines.back()["validation_bits_per_byte"].get<double>(),
              *report.validation_loss / 2 / std::numbers::ln2, 1e-12);
  EXPECT_EQ(lines.back()["validation_mtp_loss"].size(), 1u);
  ASSERT_EQ(lines.back()["mtp_acceptance"].size(), 1u);
  EXPECT_GT(lines.back()["mtp_acceptance"][0], 0.5);
  EXPECT_LE(lines.back()["mtp_acceptance"][0], 1.0);
  EXPECT_FALSE(lines[3].contains("mtp_acceptance"));
  EXPECT_FALSE(lines[3].contains("validation_bits_per_byte"));
  const auto device = make_cpu_device();
  const auto checkpoint = Checkpoint::open(dir_ / "a" / "latest");
  const auto model = Model::load(*checkpoint, *device, {});
  EXPECT_TRUE(model->has_mtp());
  EXPECT_EQ(read_file(dir_ / "a" / "latest" / "tokenizer.json"), "{}");
}

/// Of each recipe: what may change no bit of a run.
class TrainerBits : public TrainerTest, public testing::WithParamInterface<const char*> {
 protected:
  RunConfig recipe(std::vector<std::string> overrides = {}) {
    const std::string name = GetParam();
    overrides.push_back("precision.recipe=" + name);
    if (name == "fp8") overrides.emplace_back("optimizer.moments=bf16");
    return config(overrides);
  }
};
INSTANTIATE_TEST_SUITE_P(Recipes, TrainerBits, testing::Values("f32", "bf16", "fp8"),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(TrainerBits, RecipesDiffer) {
  run("one", recipe());
  run("other", config({std::string("precision.recipe=") +
                       (GetParam() == std::string("bf16") ? "f32" : "bf16")}));
  EXPECT_NE(weights("one"), weights("other"));
}

// Stopped by Ctrl-C, gone on with by another number of threads: the same bytes, each step once.
TEST_P(TrainerBits, GoesOnWithTheSameBytes) {
  run("whole", recipe());
  const TrainReport stopped = run("parts", recipe(), 2, 5);
  EXPECT_TRUE(stopped.interrupted);
  EXPECT_EQ(stopped.n_steps, 5);
  const TrainReport rest = run("parts", recipe(), 1);
  EXPECT_EQ(rest.first_step, 5);
  EXPECT_FALSE(rest.interrupted);
  EXPECT_EQ(weights("whole"), weights("parts"));
  const auto a = metrics("whole"), b = metrics("parts");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i]["step"], static_cast<Index>(i) + 1);
    EXPECT_EQ(a[i]["loss"], b[i]["loss"]);
  }
}

// Killed at twenty random moments, also while it saves: the same bytes, each step once.
TEST_P(TrainerBits, KilledItEndsInTheSameBytes) {
  const RunConfig c = recipe({"trainer.steps=40", "trainer.checkpoint_every=2"});
  run("whole", c);
  const Philox random(11);
  for (std::uint64_t i = 0; i < 20; ++i) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      run("killed", c);
      _exit(0);
    }
    usleep(static_cast<useconds_t>(1000 + random.below(120'000, i)));
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
  }
  run("killed", c);
  EXPECT_EQ(weights("whole"), weights("killed"));
  const auto a = metrics("whole"), b = metrics("killed");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i]["loss"], b[i]["loss"]) << i;
}

TEST_P(TrainerBits, ThreadsAccumulationAndRecomputationChangeNothing) {
  const std::string all = "trainer.batch_size=8";
  run("whole", recipe({all}));
  const std::string expected = weights("whole");
  int n = 0;
  for (const int micro : {1, 3, 4, 8}) {
    for (const int n_threads : {1, 2}) {
      for (const char* again : {"true", "false", "[\"up_projection\"]"}) {
        const std::string name = std::to_string(n++);
        const std::string cut = "trainer.micro_batch_size=" + std::to_string(micro);
        run(name, recipe({all, cut, std::string("trainer.recompute=") + again}), n_threads);
        EXPECT_EQ(weights(name), expected) << cut << ' ' << n_threads << " threads, " << again;
      }
    }
  }
}

// The newest checkpoint that is whole is taken; what was skipped is named.
TEST_F(TrainerTest, DamagedCheckpointsAreSkipped) {
  run("a", config());
  RunFolder folder(dir_ / "a");
  ASSERT_EQ(folder.newest()->step, 12);
  const fs::path newest = dir_ / "a" / "step-00000012" / "model.safetensors";
  std::string bytes = read_file(newest);
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(newest, std::ios::binary) << bytes;
  const auto found = folder.newest();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->step, 8);
  ASSERT_EQ(found->skipped.size(), 1u);
  EXPECT_NE(found->skipped[0].find("model.safetensors is damaged"), std::string::npos);
  const TrainReport report = run("a", config());
  EXPECT_EQ(report.first_step, 8);
  run("b", config());
  EXPECT_EQ(weights("a"), weights("b"));
  // Nothing whole: said, not begun anew.
  for (const char* step : {"step-00000008", "step-00000012"}) {
    fs::remove(dir_ / "a" / step / "kogia" / "checksums.json");
  }
  EXPECT_THROW(folder.newest(), Error);
}

TEST_F(TrainerTest, KeepsTheNewest) {
  run("a", config({"trainer.keep_checkpoints=1"}));
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir_ / "a")) {
    names.insert(entry.path().filename().string());
  }
  EXPECT_EQ(names,
            (std::set<std::string>{"latest", "metrics.jsonl", "step-00000012", "tensorboard"}));
}

}  // namespace
}  // namespace kogia::test
