// Packed weights from start to start: the same bits from the file, and no file that lies.

#include "model/kept_weights.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>

#include "model/model_runner.h"
#include "support/golden.h"

namespace kogia::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// What loading did and what the model then said.
struct Load {
  std::vector<float> logits;
  bool packed = false, checked = false;
  std::string warnings;
};

Load load(const fs::path& model, PackingOptions packing = {}, RunnerOptions options = {}) {
  Load load;
  options.compute = {};
  options.packing = std::move(packing);
  options.on_progress = [&](const LoadProgress& p) {
    (p.what == "packing weights" ? load.packed : load.checked) = true;
  };
  testing::internal::CaptureStderr();
  const std::vector<std::int32_t> ids = {1, 5, 9, 2, 6};
  ModelRunner runner(model, options);
  Timeline timeline;
  load.logits = runner.step(timeline, ids).logits;
  load.warnings = testing::internal::GetCapturedStderr();
  return load;
}

const PackingOptions kKeep = {.keep = true}, kVerify = {.verify = true};

/// A copy of a golden model, its weights kept beside it.
class KeptWeights : public testing::Test {
 protected:
  void SetUp() override {
    model_ = folder_ / "m.gguf";
    fs::copy_file(golden_folder("v2_lite/new.gguf"), model_);
    expected_ = load(model_).logits;
    const Load first = load(model_, kKeep);
    ASSERT_TRUE(first.packed);
    ASSERT_EQ(first.logits, expected_);
    ASSERT_TRUE(fs::exists(kept_));
  }
  /// The file is not used; where it should be kept it is renewed.
  void expect_refused(const std::string& why, PackingOptions packing = {}) {
    const Load now = load(model_, packing);
    EXPECT_TRUE(now.packed);
    EXPECT_EQ(now.logits, load(model_, {.borrow = true}).logits);
    EXPECT_THAT(now.warnings, HasSubstr(why));
    EXPECT_EQ(std::ranges::count(now.warnings, '\n'), 1) << now.warnings;
    packing.keep = true;
    load(model_, packing);
    const Load after = load(model_);
    EXPECT_FALSE(after.packed);
    EXPECT_EQ(after.warnings, "");
    EXPECT_EQ(after.logits, now.logits);
  }
  void overwrite(const fs::path& file, std::streamoff at, char byte) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(at, at < 0 ? std::ios::end : std::ios::beg);
    stream.put(byte);
  }

  TempDir folder_;
  fs::path model_, kept_ = folder_ / "m.gguf.kpk";
  std::vector<float> expected_;
};

TEST_F(KeptWeights, AreMappedWithTheSameBits) {
  for (const PackingOptions& packing : {PackingOptions{}, kKeep}) {
    const Load again = load(model_, packing);
    EXPECT_FALSE(again.packed);
    EXPECT_EQ(again.logits, expected_);
    EXPECT_EQ(again.warnings, "");
  }
  const Load borrowed = load(model_, {.borrow = true});
  EXPECT_EQ(borrowed.logits, expected_);
}

TEST(KeptWeightsOfEveryModel, AreMappedWithTheSameBits) {
  for (const GoldenFile& file : golden_files()) {
    for (const Isa isa : available_isas()) {
      for (const MlaForm mla : {MlaForm::kAbsorbed, MlaForm::kExpanded}) {
        SCOPED_TRACE(file.name + " " + std::string(name(isa)));
        const TempDir folder;
        const fs::path model = folder / file.path.filename().string();
        fs::copy(file.path, model, fs::copy_options::recursive);
        const RunnerOptions options = {.isa = isa, .n_threads = 2, .mla = mla};
        const Load first = load(model, kKeep, options), again = load(model, kVerify, options);
        EXPECT_TRUE(first.packed && again.checked && !again.packed) << again.warnings;
        EXPECT_EQ(first.logits, load(model, {.borrow = true}, options).logits);
        EXPECT_EQ(again.logits, first.logits);
      }
    }
  }
}

TEST_F(KeptWeights, AreRefusedWhereTheModelIsNewer) {
  fs::last_write_time(model_, fs::last_write_time(model_) + std::chrono::seconds(1));
  expect_refused("has changed since");
}

TEST_F(KeptWeights, AreRefusedWhereTheModelIsAnotherFile) {
  const fs::path other = folder_ / "n.gguf";
  fs::copy_file(model_, other);
  fs::last_write_time(other, fs::last_write_time(model_));
  fs::copy_file(kept_, folder_ / "n.gguf.kpk");
  model_ = other;
  expect_refused("m.gguf, not from ");
}

TEST_F(KeptWeights, AreRefusedWhereTheyAreCutOff) {
  fs::resize_file(kept_, fs::file_size(kept_) - 1);
  expect_refused("damaged");
}

TEST_F(KeptWeights, AreRefusedWhereTheHeadIsDamaged) {
  overwrite(kept_, 100, '~');
  expect_refused("damaged");
}

TEST_F(KeptWeights, AreRefusedWhereTheFileIsSomethingElse) {
  std::ofstream(kept_) << "a text";
  expect_refused("not a file of packed weights");
}

TEST_F(KeptWeights, AreRefusedForOtherMatrices) {
  const RunnerOptions expanded = {.mla = MlaForm::kExpanded};
  const Load now = load(model_, {}, expanded);
  EXPECT_TRUE(now.packed);
  EXPECT_THAT(now.warnings, HasSubstr("packed without"));
  // Those of both forms serve each.
  load(model_, kKeep, {.mla = MlaForm::kAuto});
  EXPECT_FALSE(load(model_, {}, expanded).packed);
  EXPECT_FALSE(load(model_).packed);
}

// The same size, the same time, the same header: only reading everything can tell.
TEST_F(KeptWeights, AreVerifiedAgainstTheContentsOfTheModel) {
  const auto time = fs::last_write_time(model_);
  overwrite(model_, -3000, '\x11');
  fs::last_write_time(model_, time);
  EXPECT_FALSE(load(model_).packed);
  expect_refused("packed from other values", kVerify);
}

TEST_F(KeptWeights, AreVerifiedThemselves) {
  overwrite(kept_, -1, '\x3A');
  EXPECT_FALSE(load(model_).packed);
  expect_refused("damaged", kVerify);
}

TEST_F(KeptWeights, ThatAreWholePassVerification) {
  const Load now = load(model_, kVerify);
  EXPECT_TRUE(now.checked);
  EXPECT_FALSE(now.packed);
  EXPECT_EQ(now.logits, expected_);
}

// Where writing stops half-way, the run goes on and nothing is left behind.
TEST_F(KeptWeights, AreNotNeededWhereTheyCannotBeWritten) {
  fs::remove(kept_);
  struct rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 20000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const Load now = load(model_, kKeep);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(now.logits, expected_);
  EXPECT_THAT(now.warnings, HasSubstr("the packed weights are not kept: "));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);
}

TEST_F(KeptWeights, LieInTheCacheFolderWhereTheModelsIsReadOnly) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write anywhere";
  fs::remove(kept_);
  const TempDir cache;
  fs::permissions(folder_.path(), fs::perms::owner_write, fs::perm_options::remove);
  const PackingOptions packing = {.keep = true, .cache_folder = cache.path()};
  EXPECT_TRUE(load(model_, packing).packed);
  EXPECT_FALSE(load(model_, packing).packed);
  fs::permissions(folder_.path(), fs::perms::owner_write, fs::perm_options::add);
  EXPECT_FALSE(fs::exists(kept_));
}

TEST_F(KeptWeights, LieInTheCacheFolderWhereTheModelIsASnapshotOfTheHubs) {
  const fs::path repository = folder_ / "hub/models--org--m", snapshot = repository / "snapshots/1";
  fs::create_directories(repository / "blobs");
  fs::create_directories(snapshot);
  fs::copy_file(model_, repository / "blobs/ab");
  fs::create_symlink("../../blobs/ab", snapshot / "m.gguf");
  const TempDir cache;
  const PackingOptions packing = {.keep = true, .cache_folder = cache.path()};
  EXPECT_TRUE(load(snapshot / "m.gguf", packing).packed);
  EXPECT_FALSE(load(snapshot / "m.gguf", packing).packed);
  // Only what the repository has lies in its folders.
  const auto n_in = [](const fs::path& folder) {
    return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
  };
  EXPECT_EQ(n_in(snapshot), 1);
  EXPECT_EQ(n_in(repository / "snapshots"), 1);
  EXPECT_EQ(n_in(repository / "blobs"), 1);
  EXPECT_EQ(n_in(cache / "packed"), 1);
}

}  // namespace
}  // namespace kogia::test
