// What the writers write, the readers read back.

#include <algorithm>

#include "formats/checkpoint.h"
#include "formats/file_builders.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/safetensors_writer.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

namespace fs = std::filesystem;

void declare_three(TensorWriter& w) {
  w.declare("a", DType::f32, {3});
  w.declare("b", DType::bf16, {2, 5});
  w.declare("c", DType::i8, {7});
}
/// 12 + 20 + 7 bytes 0, 1, 2, … in uneven pieces.
void append_bytes(TensorWriter& w) {
  std::vector<std::byte> bytes(39);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  w.append(std::span(bytes).first(15));
  w.append(std::span(bytes).subspan(15));
}
void expect_three(const Checkpoint& c) {
  int next = 0;
  for (const char* name : {"a", "b", "c"}) {
    const TensorView& v = c.require(name).view;
    for (Index i = 0; i < v.n_bytes; ++i)
      EXPECT_EQ(std::to_integer<int>(v.data[i]), next++) << name;
  }
  EXPECT_EQ(next, 39);
  EXPECT_THAT(c.require("b").view.shape, testing::ElementsAre(2, 5));
}
bool is_empty(const test::TempDir& folder) { return fs::is_empty(folder.path()); }

TEST(GgufWriter, WritesWhatTheReaderReads) {
  const test::TempDir folder;
  GgufWriter w(folder / "m.gguf");
  w.set("u", std::uint32_t{7});
  w.set("f", 0.5F);
  w.set("b", true);
  w.set("s", "text");
  w.set("l", std::span<const std::string>());
  const std::vector<std::int32_t> types = {1, -2};
  w.set("t", types);
  w.set("x", std::vector<float>{0.25F, -2});
  declare_three(w);
  w.begin();
  append_bytes(w);
  w.commit();
  const auto c = Checkpoint::open(folder / "m.gguf");
  expect_three(*c);
  const GgufMetadata& m = c->gguf()->metadata();
  EXPECT_EQ(m.get_int("u"), 7);
  EXPECT_EQ(m.get_float("f"), 0.5);
  EXPECT_EQ(m.get_bool("b"), true);
  EXPECT_EQ(m.get_string("s"), "text");
  EXPECT_TRUE(m.get_strings("l")->empty());
  EXPECT_THAT(*m.get_ints("t"), testing::ElementsAre(1, -2));
  EXPECT_THAT(*m.get_floats("x"), testing::ElementsAre(0.25, -2));
  for (const TensorEntry& t : c->tensors()) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.view.data) % 32, 0u) << t.name;
  }
}

TEST(GgufWriterDeathTest, ChecksKeysAndTheOrderOfCalls) {
  const test::TempDir folder;
  GgufWriter w(folder / "m.gguf");
  w.set("k", std::uint32_t{1});
  EXPECT_DEATH(w.set("k", true), "writer");
  EXPECT_DEATH(w.set("general.alignment", std::uint32_t{64}), "writer");
  declare_three(w);
  w.begin();
  EXPECT_DEATH(w.set("late", true), "writer");
  EXPECT_DEATH(w.begin(), "writer");
  EXPECT_DEATH(w.commit(), "writer");  // nothing has been appended
  append_bytes(w);
  EXPECT_DEATH(w.append(std::vector<std::byte>(1)), "writer");
}

TEST(GgufWriter, LeavesNothingBehindWithoutCommit) {
  const test::TempDir folder;
  {
    GgufWriter w(folder / "m.gguf");
    declare_three(w);
    w.begin();
  }
  EXPECT_TRUE(is_empty(folder));
}

TEST(SafetensorsWriter, WritesOneFileOrShardsAndAnIndex) {
  for (const Index shard_bytes : {Index{1} << 20, Index{32}, Index{1}}) {
    const test::TempDir folder;
    SafetensorsWriter w(folder / "model/", shard_bytes);
    w.add_text("config.json", "{}");
    declare_three(w);
    w.begin();
    append_bytes(w);
    EXPECT_FALSE(fs::exists(folder / "model"));
    w.commit();
    const auto c = Checkpoint::open(folder / "model");
    expect_three(*c);
    EXPECT_EQ(c->text_file("config.json"), "{}");
    const auto n_files =
        std::distance(fs::directory_iterator(folder / "model"), fs::directory_iterator());
    EXPECT_EQ(n_files, shard_bytes == 1 ? 5 : shard_bytes == 32 ? 4 : 2);
  }
}

TEST(SafetensorsWriter, LeavesNothingBehindWithoutCommit) {
  const test::TempDir folder;
  {
    SafetensorsWriter w(folder / "model");
    declare_three(w);
    w.begin();
    append_bytes(w);
  }
  EXPECT_TRUE(is_empty(folder));
}

TEST(SafetensorsWriter, RefusesAFolderThatHoldsSomething) {
  const test::TempDir folder;
  folder.write("model/old", "x");
  EXPECT_THAT(test::message_of([&] { SafetensorsWriter w(folder / "model"); }),
              testing::HasSubstr("not empty"));
}

}  // namespace
}  // namespace kogia
