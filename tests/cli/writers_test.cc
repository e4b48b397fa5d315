// kogia convert and quantize when they may not finish: killed, interrupted, out of disk. Whatever
// has the name of the target is whole, nothing lies about, and the next run makes the same bytes.

#include <chrono>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/error.h"
#include "base/random.h"
#include "formats/safetensors_writer.h"
#include "infer/engine.h"
#include "program_support.h"
#include "support/temp_dir.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using testing::HasSubstr;
using testing::StartsWith;

constexpr Index kVocab = 4096, kHidden = 512, kInner = 1024, kHeadsWide = 512, kLayers = 3;

/// A llama of 26 MB with noise for weights.
fs::path make_model(const TempDir& dir) {
  SafetensorsWriter out(dir / "model");
  const Json config = {{"architectures", {"LlamaForCausalLM"}},
                       {"model_type", "llama"},
                       {"vocab_size", kVocab},
                       {"hidden_size", kHidden},
                       {"intermediate_size", kInner},
                       {"num_hidden_layers", kLayers},
                       {"num_attention_heads", 8},
                       {"num_key_value_heads", 8},
                       {"max_position_embeddings", 512},
                       {"rms_norm_eps", 1e-5},
                       {"rope_theta", 10000.0},
                       {"tie_word_embeddings", false},
                       {"torch_dtype", "bfloat16"}};
  out.add_text("config.json", config.dump());
  std::vector<std::vector<Index>> shapes;
  const auto declare = [&](const std::string& name, std::vector<Index> shape) {
    out.declare(name + ".weight", DType::bf16, shape);
    shapes.push_back(std::move(shape));
  };
  declare("model.embed_tokens", {kVocab, kHidden});
  for (Index i = 0; i < kLayers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    declare(layer + "input_layernorm", {kHidden});
    for (const char* part : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      declare(layer + "self_attn." + part, {kHeadsWide, kHidden});
    }
    declare(layer + "post_attention_layernorm", {kHidden});
    declare(layer + "mlp.gate_proj", {kInner, kHidden});
    declare(layer + "mlp.up_proj", {kInner, kHidden});
    declare(layer + "mlp.down_proj", {kHidden, kInner});
  }
  declare("model.norm", {kHidden});
  declare("lm_head", {kVocab, kHidden});
  out.begin();
  const Philox random(3);
  std::uint64_t at = 0;
  for (const std::vector<Index>& shape : shapes) {
    std::vector<std::uint16_t> values(
        static_cast<std::size_t>(shape.size() == 1 ? shape[0] : shape[0] * shape[1]));
    // 2^-5 and 2^-4, of either sign, with all mantissas: random enough, and quickly made
    for (std::uint16_t& v : values) {
      v = static_cast<std::uint16_t>(0x3D00 | (random.below(1 << 16, at++) & 0x80FF));
    }
    out.append(std::as_bytes(std::span(values)));
  }
  out.commit();
  return dir / "model";
}

/// Every file below a path, or the file itself, with its bytes.
std::map<std::string, std::string> contents(const fs::path& path) {
  if (!fs::is_directory(path)) return {{"", read_file(path)}};
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    files[fs::relative(entry.path(), path)] = read_file(entry.path());
  }
  return files;
}

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(folder)) out.push_back(entry.path());
  return out;
}

bool loads(const fs::path& path) {
  EngineOptions options;
  options.show_progress = false;
  try {
    Engine::open(path, options);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// A command that writes, and what it makes where nothing disturbs it.
struct Job {
  std::string name;
  std::vector<std::string> words;  // before and
  std::string target_name;
  std::vector<std::string> flags;  // after the target
  std::map<std::string, std::string> expected = {};
  Clock::duration duration = {};

  std::vector<std::string> command(const fs::path& folder) const {
    std::vector<std::string> all = words;
    all.push_back((folder / target_name).string());
    all.insert(all.end(), flags.begin(), flags.end());
    return all;
  }
};

class Writers : public testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = make_model(source_).string(), gguf = (source_ / "m.gguf").string();
    ASSERT_EQ(kogia({"convert", folder, gguf, "--quiet"}).exit_code, 0);
    jobs_ = {{"folder to GGUF", {"convert", folder}, "out.gguf", {"--quiet", "--type", "f16"}},
             {"GGUF to folder", {"convert", gguf}, "out", {"--quiet", "--shard-mib", "6"}},
             {"quantize to a GGUF", {"quantize", gguf, "Q4_0"}, "q.gguf", {"--quiet"}},
             {"quantize to FP8", {"quantize", folder, "FP8"}, "fp8", {"--quiet"}}};
    for (Job& job : jobs_) {
      const TempDir place;
      const auto begin = Clock::now();
      const auto result = kogia(job.command(place.path()));
      job.duration = Clock::now() - begin;
      ASSERT_EQ(result.exit_code, 0) << job.name << ": " << result.err;
      job.expected = contents(place / job.target_name);
      ASSERT_TRUE(loads(place / job.target_name)) << job.name;
    }
  }

  const TempDir source_;
  std::vector<Job> jobs_;
};

TEST_F(Writers, KilledThirtyTimesTheyLeaveNothingThatLoadsWrongAndARerunCompletes) {
  constexpr int kKills = 30;
  const Philox random(11);
  std::uint64_t draw = 0;
  for (const Job& job : jobs_) {
    SCOPED_TRACE(job.name);
    const TempDir place;
    const fs::path target = place / job.target_name;
    int killed = 0;
    for (int i = 0; i < kKills; ++i) {
      const auto moment = Clock::now() + job.duration * random.below(1100, draw++) / 1000;
      const auto result =
          kogia(job.command(place.path()),
                {.interrupt_when = [=] { return Clock::now() >= moment; }, .signal = SIGKILL});
      killed += result.signal == SIGKILL ? 1 : 0;
      if (fs::exists(target)) {
        EXPECT_TRUE(contents(target) == job.expected) << "kill " << i;
        fs::remove_all(target);
      }
      const std::vector<fs::path> left = entries(place.path());
      EXPECT_LE(left.size(), 1u) << "the remains of several runs";
      for (const fs::path& path : left) {
        EXPECT_THAT(path.filename().string(), StartsWith("." + job.target_name + "."));
        EXPECT_EQ(path.extension(), ".tmp");
        EXPECT_TRUE(!loads(path) || contents(path) == job.expected) << path;
      }
    }
    EXPECT_GT(killed, kKills / 10) << "hardly ever killed: nothing was tried";
    EXPECT_EQ(kogia(job.command(place.path())).exit_code, 0);
    EXPECT_TRUE(contents(target) == job.expected);
    EXPECT_THAT(entries(place.path()), testing::ElementsAre(target));
  }
}

TEST_F(Writers, CtrlCIsAnsweredAndLeavesWhatWasThere) {
  for (const Job& job : jobs_) {
    SCOPED_TRACE(job.name);
    const TempDir place;
    const bool replaces = job.target_name == "q.gguf";  // the others refuse a target that is there
    if (replaces) place.write(job.target_name, "old");
    // It may be done before the signal gets through; then it is asked again.
    ProcessResult result;
    for (int attempt = 0; attempt < 20 && result.exit_code != 1; ++attempt) {
      if (attempt > 0) fs::remove_all(place / job.target_name);
      if (attempt > 0 && replaces) place.write(job.target_name, "old");
      const std::size_t n_before = entries(place.path()).size();
      result = kogia(job.command(place.path()),
                     {.interrupt_when = [&] { return entries(place.path()).size() > n_before; },
                      .signal = SIGINT});
    }
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, StartsWith("error: interrupted"));
    EXPECT_EQ(result.out, "");
    if (replaces) {
      EXPECT_EQ(read_file(place / job.target_name), "old");
      fs::remove(place / job.target_name);
    }
    EXPECT_TRUE(fs::is_empty(place.path()));
  }
}

void expect_refused(const Job& job, const fs::path& place, ProcessOptions options,
                    const std::string& words) {
  const bool replaces = job.target_name == "q.gguf";
  const fs::path target = place / job.target_name;
  if (replaces) write_file_atomically(target, "old");
  const auto result = kogia(job.command(place), std::move(options));
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, StartsWith("error: "));
  EXPECT_THAT(result.err, HasSubstr(job.target_name));
  EXPECT_THAT(result.err, HasSubstr(words));
  if (replaces) {
    EXPECT_EQ(read_file(target), "old");
    fs::remove(target);
  }
  EXPECT_TRUE(fs::is_empty(place));
}

TEST_F(Writers, AFileThatMayNotGrowIsReportedAndLeavesWhatWasThere) {
  for (const Job& job : jobs_) {
    SCOPED_TRACE(job.name);
    const TempDir place;
    expect_refused(job, place.path(), {.max_file_bytes = 3 << 20}, "cannot write: File too large");
  }
}

/// A file system of a few megabytes; needs root.
class SmallDisk {
 public:
  explicit SmallDisk(const fs::path& folder) : folder_(folder) {
    mounted_ = ::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=4m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }

 private:
  fs::path folder_;
  bool mounted_ = false;
};

TEST_F(Writers, ADiskTooSmallIsSeenBeforeTheWork) {
  const TempDir dir;
  fs::create_directory(dir / "disk");
  const SmallDisk disk(dir / "disk");
  if (!disk.mounted()) GTEST_SKIP() << "mounting a small disk needs root";
  for (const Job& job : jobs_) {
    SCOPED_TRACE(job.name);
    expect_refused(job, dir / "disk", {}, "bytes are needed, and its file system has");
  }
}

}  // namespace
}  // namespace kogia::test
