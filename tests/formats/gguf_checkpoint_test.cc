// GGUF files on the disk: single ones, split sets, those that others wrote.

#include "formats/gguf_checkpoint.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_bytes.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;
using namespace test;  // NOLINT: the names of GGUF's types
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal(const fs::path& path, ErrorCode code = ErrorCode::kInvalid) {
  try {
    Checkpoint::open(path);
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    return e.what();
  }
  ADD_FAILURE() << path << " was taken, expected a refusal";
  return {};
}

/// A part with one tensor of three bytes, filled with a digit.
GgufBytes part(int no, int count, int n_tensors = 3) {
  GgufBytes f;
  f.key("split.no", kU16, bytes_of(static_cast<std::uint16_t>(no)));
  f.key("split.count", kU16, bytes_of(static_cast<std::uint16_t>(count)));
  f.key("split.tensors.count", kI32, bytes_of(n_tensors));
  if (no == 0) f.text("general.name", "split");
  f.tensor("t" + std::to_string(no), {3}, 24, 0);
  f.data = std::string(3, static_cast<char>('0' + no));
  return f;
}
std::string part_name(int number, int count) {
  return "m-0000" + std::to_string(number) + "-of-0000" + std::to_string(count) + ".gguf";
}
void write_parts(const TempDir& dir, int count = 3, int n_tensors = 3) {
  for (int no = 0; no < count; ++no) {
    dir.write(part_name(no + 1, count), part(no, count, n_tensors).bytes());
  }
}

TEST(GgufCheckpoint, OpensOneFile) {
  const TempDir dir;
  const fs::path file = dir.write("x.gguf", GgufBytes().text("general.name", "one").bytes());
  const auto c = Checkpoint::open(file);
  EXPECT_EQ(c->kind(), CheckpointKind::kGguf);
  EXPECT_EQ(c->path(), file.string());
  EXPECT_EQ(c->gguf()->metadata().get_string("general.name"), "one");
  EXPECT_TRUE(c->tensors().empty());
  EXPECT_EQ(c->text_file("config.json"), std::nullopt);
  EXPECT_EQ(Checkpoint::open(dir.path())->gguf()->metadata().get_string("general.name"), "one");
}

TEST(GgufCheckpoint, NamesATensorThatIsNotThere) {
  const TempDir dir;
  const auto c = Checkpoint::open(dir.write("x.gguf", part(0, 1).bytes()));
  EXPECT_EQ(c->find("absent"), nullptr);
  EXPECT_EQ(c->require("t0").view.n_bytes, 3);
  try {
    c->require("absent");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("x.gguf"), HasSubstr("absent")));
  }
}

TEST(GgufCheckpoint, AnyPartOfASetFindsTheOthers) {
  const TempDir dir;
  write_parts(dir);
  for (int number = 0; number <= 3; ++number) {  // 0: the folder
    SCOPED_TRACE(number);
    const auto c = Checkpoint::open(number == 0 ? dir.path() : dir / part_name(number, 3));
    ASSERT_EQ(c->tensors().size(), 3u);
    for (int no = 0; no < 3; ++no) {
      const TensorEntry& t = c->tensors()[static_cast<std::size_t>(no)];
      EXPECT_EQ(t.name, "t" + std::to_string(no));
      EXPECT_EQ(t.file, part_name(no + 1, 3));
      EXPECT_EQ(static_cast<char>(t.view.data[2]), static_cast<char>('0' + no));
    }
    EXPECT_EQ(c->gguf()->metadata().get_string("general.name"), "split") << "the first part's";
  }
}

TEST(GgufCheckpoint, NamesThePartThatIsMissing) {
  const TempDir dir;
  write_parts(dir);
  fs::remove(dir / part_name(2, 3));
  for (const int number : {1, 3}) {
    EXPECT_THAT(refusal(dir / part_name(number, 3), ErrorCode::kNotFound),
                AllOf(HasSubstr(part_name(2, 3)), HasSubstr("part 2 of 3 is missing")));
  }
}

TEST(GgufCheckpoint, RefusesPartsThatContradictOneAnother) {
  const TempDir dir;
  write_parts(dir);
  dir.write(part_name(2, 3), part(2, 3).bytes());
  EXPECT_THAT(refusal(dir / part_name(1, 3)),
              AllOf(HasSubstr(part_name(2, 3)), HasSubstr("split.no 2 of 3, expected 1 of 3")));
  dir.write(part_name(2, 3), part(1, 4).bytes());
  EXPECT_THAT(refusal(dir / part_name(1, 3)), HasSubstr("split.no 1 of 4, expected 1 of 3"));
  write_parts(dir, 3, /*n_tensors=*/4);
  EXPECT_THAT(refusal(dir / part_name(1, 3)),
              HasSubstr("split.tensors.count is 4, but the parts hold 3 tensors"));
}

TEST(GgufCheckpoint, RefusesAPartWhoseNameDoesNotSayWhich) {
  const TempDir dir;
  for (const char* name : {"m.gguf", "m-1-of-3.gguf", "m-0000a-of-00003.gguf"}) {
    EXPECT_THAT(refusal(dir.write(name, part(0, 3).bytes())), HasSubstr("does not say which"));
  }
  GgufBytes f;
  f.key("split.count", kI32, bytes_of(-1));
  EXPECT_THAT(refusal(dir.write("n.gguf", f.bytes())), HasSubstr("split.count is -1"));
}

TEST(GgufCheckpoint, RefusesATensorThatIsThereTwice) {
  const TempDir dir;
  GgufBytes f = part(0, 1);
  f.tensor("t0", {1}, 24, 32).data.resize(33);
  EXPECT_THAT(refusal(dir.write("x.gguf", f.bytes())),
              HasSubstr("tensor t0 is in x.gguf and again"));
  write_parts(dir);
  GgufBytes again = part(1, 3);
  again.tensors = part(0, 3).tensors;
  dir.write(part_name(2, 3), again.bytes());
  EXPECT_THAT(refusal(dir / part_name(1, 3)),
              HasSubstr("tensor t0 is in " + part_name(1, 3) + " and again in " + part_name(2, 3)));
}

TEST(GgufCheckpoint, RefusesAnEmptyFileAndAFolderOfStrangers) {
  const TempDir dir;
  EXPECT_THAT(refusal(dir.write("x.gguf", "")), HasSubstr("not a GGUF file"));
  dir.write("y.gguf", "");
  EXPECT_THAT(refusal(dir.path()), HasSubstr("2 GGUF files"));
}

TEST(GgufCheckpoint, OpensWhatOtherToolsWrote) {
  int n_files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(KOGIA_TEST_DATA "/golden")) {
    if (entry.path().extension() != ".gguf") continue;
    SCOPED_TRACE(entry.path());
    ++n_files;
    const auto c = open_gguf(entry.path());
    EXPECT_NE(c->find("token_embd.weight"), nullptr);
    EXPECT_THAT(c->require("output_norm.weight").view.shape.size(), 1u);
    const std::string arch = c->gguf()->metadata().require_string("general.architecture");
    EXPECT_EQ(c->require("token_embd.weight").view.shape[1],
              c->gguf()->metadata().require_int(arch + ".embedding_length"));
  }
  EXPECT_GE(n_files, 10);
}

fs::path cache_folder() {
  if (const char* folder = std::getenv("KOGIA_CACHE")) return folder;
  if (const char* folder = std::getenv("XDG_CACHE_HOME")) return fs::path(folder) / "kogia";
  const char* home = std::getenv("HOME");
  return fs::path(home == nullptr ? "." : home) / ".cache/kogia";
}

TEST(GgufCheckpoint, OpensSmolLm2) {
  const fs::path file = cache_folder() / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
  ASSERT_TRUE(fs::exists(file)) << file << " is missing: ./check fetches it before the tests";
  const auto c = Checkpoint::open(file);
  EXPECT_EQ(c->tensors().size(), 272u);
  EXPECT_EQ(c->gguf()->metadata().get_int("llama.block_count"), 30);
  EXPECT_EQ(c->gguf()->metadata().get_strings("tokenizer.ggml.tokens")->size(), 49152u);
  EXPECT_THAT(c->require("blk.29.ffn_down.weight").view.shape, ElementsAre(576, 1536));
}

}  // namespace
}  // namespace kogia
