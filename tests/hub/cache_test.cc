#include "hub/cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia::hub {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using testing::HasSubstr;

const std::string kCommit(40, 'c');

struct Cache {
  TempDir dir;
  std::string snapshot = "models--o--n/snapshots/" + kCommit + "/";

  Cache() { dir.write("models--o--n/refs/main", kCommit); }
  void put(const std::string& path) const { dir.write(snapshot + path, "{}"); }
  std::string found(const std::string& model) const {
    try {
      return find_model(dir.path(), model).lexically_relative(dir / snapshot).string();
    } catch (const Error& error) {
      return std::string(error.what()) + " | " + error.help();
    }
  }
};

TEST(FindModel, ASnapshotWithAllItsWeightsIsAModel) {
  const Cache c;
  EXPECT_THAT(c.found("o/n"), HasSubstr("`kogia pull o/n`"));
  c.put("config.json");
  EXPECT_THAT(c.found("o/n"), HasSubstr("no weights"));
  c.put("model.safetensors");
  EXPECT_EQ(c.found("o/n"), ".");
  EXPECT_EQ(c.found("o/n@" + kCommit), ".");
  EXPECT_EQ(c.found("o/n:config.json"), "config.json");
  EXPECT_THAT(c.found("o/n@v2"), HasSubstr("`kogia pull o/n --revision v2`"));
  EXPECT_THAT(c.found("o/other"), HasSubstr("not pulled"));
}

TEST(FindModel, AllThatTheIndexNamesMustBeThere) {
  const Cache c;
  c.put("config.json");
  c.dir.write(c.snapshot + "model.safetensors.index.json",
              R"({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})");
  c.put("1.safetensors");
  EXPECT_THAT(c.found("o/n"), HasSubstr("no 2.safetensors"));
  fs::create_symlink("absent", c.dir / (c.snapshot + "2.safetensors"));
  EXPECT_THAT(c.found("o/n"), HasSubstr("no 2.safetensors")) << "a link to nothing";
  fs::remove(c.dir / (c.snapshot + "2.safetensors"));
  c.put("2.safetensors");
  EXPECT_EQ(c.found("o/n"), ".");
}

TEST(FindModel, GgufsAreNamedAsForPull) {
  const Cache c;
  c.put("s/m-Q8_0-00001-of-00002.gguf");
  EXPECT_THAT(c.found("o/n:Q8_0"), HasSubstr("1 of 2 parts"));
  c.put("s/m-Q8_0-00002-of-00002.gguf");
  EXPECT_EQ(c.found("o/n"), "s/m-Q8_0-00001-of-00002.gguf");
  c.put("m-Q4_0.gguf");
  EXPECT_EQ(c.found("o/n:Q4_0"), "m-Q4_0.gguf");
  EXPECT_THAT(c.found("o/n"), HasSubstr("2 GGUF models"));
  EXPECT_THAT(c.found("o/n:Q9"), HasSubstr("`kogia pull o/n:Q9`"));
}

TEST(FindModel, PathsAndOtherWordsStayAsTheyAre) {
  const TempDir dir;
  EXPECT_EQ(find_model(dir.path(), "/"), "/");
  EXPECT_EQ(find_model(dir.path(), "gpt2"), "gpt2");
  EXPECT_EQ(find_model(dir.path(), "models/x.gguf"), "models/x.gguf");
  EXPECT_EQ(find_model(dir.path(), "a/b/c"), "a/b/c");
  EXPECT_EQ(find_model({}, "o/n"), "o/n");
}

TEST(FindModel, ARefThatIsNoCommitLeadsNowhere) {
  const Cache c;
  c.put("config.json");
  c.put("model.safetensors");
  for (const std::string& bad : {std::string("../../.."), std::string(), std::string(5000, 'a')}) {
    c.dir.write("models--o--n/refs/main", bad);
    EXPECT_THAT(c.found("o/n"), HasSubstr("not pulled"));
  }
  c.dir.write("models--o--n/refs/main", kCommit + "\n");
  EXPECT_EQ(c.found("o/n"), ".");
}

}  // namespace
}  // namespace kogia::hub
