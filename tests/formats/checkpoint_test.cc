// Which files make a checkpoint, and what is said where they do not.

#include "formats/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/hf_config.h"
#include "safetensors_bytes.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// A file with one U8 tensor of one value for each name.
std::string with_tensors(const std::vector<std::string>& names) {
  std::string header = "{";
  for (std::size_t i = 0; i < names.size(); ++i) {
    header += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}})",
                          i == 0 ? "" : ",", names[i], i, i + 1);
  }
  return test::safetensors(header + "}", names.size());
}

/// "GGUF", version 3, no tensors, no keys, and padding to the alignment.
std::string empty_gguf() {
  std::string bytes("GGUF\x03\0\0\0", 8);
  bytes.resize(32, '\0');
  return bytes;
}

std::vector<std::string> names_of(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const TensorEntry& t : checkpoint.tensors()) names.push_back(t.name);
  return names;
}

struct Refusal {
  ErrorCode code = ErrorCode::kInterrupted;
  std::string message;
};
Refusal refusal(const fs::path& path) {
  try {
    Checkpoint::open(path);
  } catch (const Error& e) {
    return {e.code(), e.what()};
  }
  return {};
}
Refusal config_refusal(const fs::path& path) {
  try {
    Checkpoint::open_config_only(path);
  } catch (const Error& e) {
    return {e.code(), e.what()};
  }
  return {};
}

constexpr std::string_view kIndex =
    R"({"metadata":{"total_size":3},"weight_map":{"c":"m-00001-of-00002.safetensors",)"
    R"("a":"m-00001-of-00002.safetensors","b":"m-00002-of-00002.safetensors"}})";

void write_sharded(const TempDir& dir) {
  dir.write("config.json", "{}");
  dir.write("model.safetensors.index.json", kIndex);
  dir.write("m-00001-of-00002.safetensors", with_tensors({"c", "a"}));
  dir.write("m-00002-of-00002.safetensors", with_tensors({"b"}));
}

TEST(Checkpoint, OpensAFolderWithOneFile) {
  TempDir dir;
  dir.write("model.safetensors", with_tensors({"b", "a"}));
  dir.write("config.json", R"({"hidden_size": 3})");
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint->kind(), CheckpointKind::kSafetensors);
  EXPECT_EQ(checkpoint->gguf(), nullptr);
  EXPECT_EQ(checkpoint->path(), dir.path().string());
  EXPECT_THAT(names_of(*checkpoint), ElementsAre("b", "a"));
  EXPECT_EQ(checkpoint->find("a")->view.data[0], std::byte{1});
  EXPECT_EQ(checkpoint->find("a")->file, "model.safetensors");
  EXPECT_EQ(checkpoint->find("no"), nullptr);
  EXPECT_EQ(checkpoint->text_file("config.json"), R"({"hidden_size": 3})");
  EXPECT_EQ(checkpoint->text_file("tokenizer.json"), std::nullopt);
}

TEST(Checkpoint, RequireNamesTheTensorAndTheCheckpoint) {
  TempDir dir;
  const auto checkpoint = Checkpoint::open(dir.write("w.safetensors", with_tensors({"a"})));
  EXPECT_EQ(checkpoint->require("a").name, "a");
  try {
    checkpoint->require("lm_head.weight");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_THAT(e.what(), HasSubstr("lm_head.weight"));
    EXPECT_THAT(e.what(), HasSubstr("w.safetensors"));
  }
}

TEST(Checkpoint, OpensWithoutAConfig) {
  TempDir dir;
  dir.write("model.safetensors", with_tensors({"a"}));
  EXPECT_EQ(Checkpoint::open(dir.path())->text_file("config.json"), std::nullopt);
}

TEST(Checkpoint, OpensOneFileOfAFolderWithTheConfigBesideIt) {
  TempDir dir;
  write_sharded(dir);
  const auto checkpoint = Checkpoint::open(dir / "m-00002-of-00002.safetensors");
  EXPECT_THAT(names_of(*checkpoint), ElementsAre("b"));
  EXPECT_EQ(checkpoint->text_file("config.json"), "{}");
}

TEST(Checkpoint, OpensShardsInTheOrderOfTheirNames) {
  TempDir dir;
  write_sharded(dir);
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_THAT(names_of(*checkpoint), ElementsAre("c", "a", "b"));
  EXPECT_EQ(checkpoint->require("b").file, "m-00002-of-00002.safetensors");
}

TEST(Checkpoint, TheIndexDecidesWhichFilesBelongToIt) {
  TempDir dir;
  write_sharded(dir);
  dir.write("adapter.safetensors", "no safetensors");
  EXPECT_EQ(Checkpoint::open(dir.path())->tensors().size(), 3u);
}

TEST(Checkpoint, WithoutAnIndexModelSafetensorsIsTheModel) {
  TempDir dir;
  dir.write("consolidated.safetensors", with_tensors({"a"}));
  dir.write("model.safetensors", with_tensors({"a"}));
  EXPECT_EQ(Checkpoint::open(dir.path())->require("a").file, "model.safetensors");
}

TEST(Checkpoint, WithoutAnIndexAllFilesTogetherAreTheModel) {
  TempDir dir;
  dir.write("m1.safetensors", with_tensors({"b"}));
  dir.write("m2.safetensors", with_tensors({"a"}));
  dir.write("._m1.safetensors", "left by macOS");
  EXPECT_THAT(names_of(*Checkpoint::open(dir.path())), ElementsAre("b", "a"));
  dir.write("m3.safetensors", with_tensors({"b"}));
  const auto [code, message] = refusal(dir.path());
  EXPECT_EQ(code, ErrorCode::kInvalid);
  EXPECT_THAT(message, HasSubstr("tensor b is in m1.safetensors and again in m3.safetensors"));
}

TEST(Checkpoint, NamesTheShardThatIsMissing) {
  TempDir dir;
  write_sharded(dir);
  fs::remove(dir / "m-00002-of-00002.safetensors");
  const auto [code, message] = refusal(dir.path());
  EXPECT_EQ(code, ErrorCode::kNotFound);
  EXPECT_THAT(message, HasSubstr("m-00002-of-00002.safetensors is missing"));
  EXPECT_THAT(message, HasSubstr("holds b"));
}

TEST(Checkpoint, NamesTheShardThatIsCutOff) {
  TempDir dir;
  write_sharded(dir);
  const std::string whole = with_tensors({"b"});
  dir.write("m-00002-of-00002.safetensors", whole.substr(0, whole.size() - 1));
  EXPECT_THAT(refusal(dir.path()).message, HasSubstr("m-00002-of-00002.safetensors: cut off"));
}

TEST(Checkpoint, NamesTheTensorThatItsShardDoesNotHold) {
  TempDir dir;
  write_sharded(dir);
  dir.write("m-00001-of-00002.safetensors", with_tensors({"c"}));
  EXPECT_THAT(refusal(dir.path()).message,
              HasSubstr("says that a is in m-00001-of-00002.safetensors, but it is not there"));
  dir.write("m-00002-of-00002.safetensors", with_tensors({"b", "a"}));
  EXPECT_THAT(refusal(dir.path()).message, HasSubstr("but it is in m-00002-of-00002.safetensors"));
}

TEST(Checkpoint, NamesTheTensorThatTheIndexDoesNot) {
  TempDir dir;
  write_sharded(dir);
  dir.write("m-00002-of-00002.safetensors", with_tensors({"b", "extra"}));
  const auto [code, message] = refusal(dir.path());
  EXPECT_EQ(code, ErrorCode::kInvalid);
  EXPECT_THAT(message, HasSubstr("m-00002-of-00002.safetensors holds extra, which "
                                 "model.safetensors.index.json does not name"));
}

TEST(Checkpoint, RefusesAnIndexThatPointsOutOfTheFolder) {
  TempDir dir;
  const fs::path outside = dir.write("w.safetensors", with_tensors({"a"}));
  for (const std::string& name : {std::string("../w.safetensors"), outside.string()}) {
    dir.write("in/model.safetensors.index.json",
              fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", name));
    EXPECT_THAT(refusal(dir / "in").message, HasSubstr("expected a plain file name")) << name;
  }
  const std::string long_name = std::string(5000, 'w') + ".safetensors";
  dir.write("in/model.safetensors.index.json",
            fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", long_name));
  EXPECT_EQ(refusal(dir / "in").code, ErrorCode::kNotFound);
}

TEST(Checkpoint, OpensAGgufAloneOrInItsFolder) {
  TempDir dir;
  const fs::path file = dir.write("model.gguf", empty_gguf());
  for (const fs::path& path : {file, dir.path()}) {
    const auto checkpoint = Checkpoint::open(path);
    EXPECT_EQ(checkpoint->kind(), CheckpointKind::kGguf);
    EXPECT_NE(checkpoint->gguf(), nullptr);
    EXPECT_EQ(checkpoint->text_file("config.json"), std::nullopt);
    EXPECT_EQ(Checkpoint::open_config_only(path)->kind(), CheckpointKind::kGguf);
  }
}

TEST(Checkpoint, RefusesAFolderOfSeveralGgufModels) {
  for (const auto& [one, other] : {std::pair{"a.gguf", "b.gguf"},
                                   {"a-00001-of-00002.gguf", "b-00001-of-00002.gguf"},
                                   {"a-00001-of-00002.gguf", "a-00001-of-00003.gguf"},
                                   {"a-00001-of-00002.gguf", "a.gguf"}}) {
    TempDir dir;
    dir.write(one, empty_gguf());
    dir.write(other, empty_gguf());
    const auto [code, message] = refusal(dir.path());
    EXPECT_EQ(code, ErrorCode::kInvalid);
    EXPECT_THAT(message, HasSubstr("2 GGUF files in it, not of one set")) << one << " " << other;
  }
}

TEST(Checkpoint, SaysWhatIsNotThere) {
  TempDir dir;
  EXPECT_EQ(refusal(dir / "nowhere").code, ErrorCode::kNotFound);
  EXPECT_THAT(refusal(dir / "nowhere").message, HasSubstr("nowhere: no such file or folder"));
  EXPECT_EQ(refusal("").code, ErrorCode::kNotFound);
  EXPECT_EQ(refusal(dir.path()).code, ErrorCode::kNotFound);
  EXPECT_THAT(refusal(dir.path()).message, HasSubstr("neither *.safetensors nor *.gguf in it"));
  EXPECT_EQ(config_refusal(dir / "nowhere").code, ErrorCode::kNotFound);
  EXPECT_THAT(config_refusal(dir.path()).message, HasSubstr("neither config.json nor *.gguf"));
  EXPECT_EQ(refusal(dir.write("notes.txt", "x")).code, ErrorCode::kInvalid);
  fs::create_directory(dir / "folder.safetensors");
  EXPECT_EQ(refusal(dir / "folder.safetensors").code, ErrorCode::kNotFound);
  dir.write("x/model.safetensors/inner", "a folder where a file should be");
  EXPECT_THAT(refusal(dir / "x").message, HasSubstr("a directory, expected a regular file"));
}

TEST(Checkpoint, SaysWhatMayNotBeRead) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  TempDir dir;
  dir.write("model/model.safetensors", with_tensors({"a"}));
  fs::permissions(dir / "model/model.safetensors", fs::perms::none);
  EXPECT_EQ(refusal(dir / "model").code, ErrorCode::kIo);
  fs::permissions(dir / "model", fs::perms::none);
  EXPECT_EQ(refusal(dir / "model").code, ErrorCode::kIo);
  EXPECT_THAT(refusal(dir / "model").message, HasSubstr("cannot read"));
  fs::permissions(dir / "model", fs::perms::owner_all);
}

TEST(Checkpoint, AConfigAloneHasNoTensors) {
  TempDir dir;
  const fs::path config = dir.write("deepseek.json", R"({"a": 1})");
  dir.write("generation_config.json", R"({"b": 2})");
  const auto alone = Checkpoint::open_config_only(config);
  EXPECT_THAT(alone->tensors(), IsEmpty());
  EXPECT_EQ(alone->text_file("config.json"), R"({"a": 1})");
  EXPECT_EQ(alone->text_file("generation_config.json"), R"({"b": 2})");

  write_sharded(dir);
  const auto folder = Checkpoint::open_config_only(dir.path());
  EXPECT_THAT(folder->tensors(), IsEmpty());
  EXPECT_EQ(folder->text_file("config.json"), "{}");
}

TEST(Checkpoint, AFolderMayBeNamedLikeAFile) {
  TempDir dir;
  dir.write("m.json/model.safetensors", with_tensors({"a"}));
  dir.write("m.json/config.json", "{}");
  EXPECT_EQ(Checkpoint::open(dir / "m.json")->text_file("config.json"), "{}");
  EXPECT_EQ(Checkpoint::open_config_only(dir / "m.json")->text_file("config.json"), "{}");
}

// Written by Hugging Face's own libraries.
TEST(Checkpoint, OpensWhatTransformersWrites) {
  int opened = 0;
  for (const auto& folder : fs::directory_iterator(fs::path(KOGIA_TEST_DATA) / "golden")) {
    if (!fs::exists(folder.path() / "model.safetensors")) continue;
    SCOPED_TRACE(folder.path().filename().string());
    const auto checkpoint = Checkpoint::open(folder.path());
    EXPECT_NE(checkpoint->find("model.embed_tokens.weight"), nullptr);
    EXPECT_NE(checkpoint->find("model.norm.weight"), nullptr);
    const auto config =
        HfConfig::parse(checkpoint->text_file("config.json").value(), "config.json");
    EXPECT_THAT(checkpoint->require("model.embed_tokens.weight").view.shape,
                ElementsAre(config.get_int("vocab_size"), config.get_int("hidden_size")));
    ++opened;
  }
  EXPECT_GE(opened, 10);
}

TEST(Checkpoint, OpensWhatTheGgufPackageWrites) {
  int opened = 0;
  for (const auto& file : fs::recursive_directory_iterator(fs::path(KOGIA_TEST_DATA) / "golden")) {
    if (file.path().extension() != ".gguf") continue;
    SCOPED_TRACE(file.path().string());
    const auto checkpoint = Checkpoint::open(file.path());
    EXPECT_NE(checkpoint->find("token_embd.weight"), nullptr);
    EXPECT_TRUE(checkpoint->gguf()->metadata().has("general.architecture"));
    ++opened;
  }
  EXPECT_GE(opened, 10);
}

// F05 begins here: both parts of an FP8 weight keep their own type and shape. What the loader makes
// of them stands in tests/model.
TEST(Checkpoint, F05FP8WeightsAndScalesComeAsStored) {
  TempDir dir;
  const fs::path file =
      dir.write("model.safetensors",
                test::safetensors(
                    R"({"w.weight":{"dtype":"F8_E4M3","shape":[576,7],"data_offsets":[0,4032]},)"
                    R"("w.weight_scale_inv":{"dtype":"F32","shape":[5,1],)"
                    R"("data_offsets":[4032,4052]}})",
                    4052));
  const auto checkpoint = Checkpoint::open(file);
  EXPECT_EQ(checkpoint->require("w.weight").view.dtype, DType::f8_e4m3);
  EXPECT_EQ(checkpoint->require("w.weight_scale_inv").view.dtype, DType::f32);
  EXPECT_THAT(checkpoint->require("w.weight_scale_inv").view.shape, ElementsAre(5, 1));
  EXPECT_EQ(checkpoint->find("w.scale"), nullptr);
}

}  // namespace
}  // namespace kogia
