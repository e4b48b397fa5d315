#include "hub/blob.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia::hub {
namespace {

using test::read_file;
using test::TempDir;

std::string hash_of(const std::string& bytes, bool git) {
  Digest digest(std::string(git ? 40 : 64, '0'), static_cast<Index>(bytes.size()));
  digest.update(std::as_bytes(std::span(bytes)));
  return digest.finish();
}

std::string some_bytes(std::size_t n) {
  std::string bytes(n, '\0');
  std::uint32_t state = 12345;
  for (char& c : bytes) c = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return bytes;
}

struct Case {
  TempDir dir;
  Folder blobs = Folder::open(dir.path().string());
  std::string bytes;
  RemoteFile file;

  explicit Case(std::size_t n) : bytes(some_bytes(n)) {
    file = {.path = "w", .size = static_cast<Index>(n), .blob = hash_of(bytes, false)};
  }
  // Writes bytes [done, end) of a part.
  void write(IncompleteBlob& blob, std::size_t part, Index end) const {
    const Index from = blob.part_begin(part) + blob.done(part);
    blob.write(part, std::as_bytes(std::span(bytes))
                         .subspan(static_cast<std::size_t>(from),
                                  static_cast<std::size_t>(end - blob.done(part))));
  }
  std::filesystem::path incomplete() const { return dir / (file.blob + ".kogia.incomplete"); }
};

constexpr auto kPart = static_cast<std::size_t>(IncompleteBlob::kPartBytes);

TEST(Digest, IsThatOfTheToolsThatNameTheFiles) {
  // printf 'hello\n' | sha256sum; printf 'hello\n' | git hash-object --stdin
  EXPECT_EQ(hash_of("hello\n", false),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
  EXPECT_EQ(hash_of("hello\n", true), "ce013625030ba8dba906f756967f9e9ca394464a");
  EXPECT_EQ(hash_of("", true), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

TEST(IncompleteBlob, PartsInAnyOrderMakeTheFile) {
  const Case c(2 * kPart + 12345);
  IncompleteBlob blob(c.blobs, c.file);
  ASSERT_EQ(blob.n_parts(), 3u);
  c.write(blob, 2, 12345);
  blob.hash_ahead();
  c.write(blob, 0, 1000);
  c.write(blob, 1, blob.part_size(1));
  blob.hash_ahead();
  EXPECT_FALSE(std::filesystem::exists(c.dir / c.file.blob));
  c.write(blob, 0, blob.part_size(0));
  EXPECT_TRUE(blob.finish());
  EXPECT_EQ(read_file(c.dir / c.file.blob), c.bytes);
  EXPECT_FALSE(std::filesystem::exists(c.incomplete()));
  EXPECT_TRUE(has_right_hash(c.blobs, c.file));
}

TEST(IncompleteBlob, TheNextRunContinuesAtTheByte) {
  const Case c(kPart + 777);
  {
    IncompleteBlob blob(c.blobs, c.file);
    c.write(blob, 0, 4321);
    c.write(blob, 1, 7);
  }
  EXPECT_EQ(IncompleteBlob::bytes_left_by_earlier_run(c.blobs, c.file), 4328);
  IncompleteBlob blob(c.blobs, c.file);
  EXPECT_EQ(blob.done(0), 4321);
  EXPECT_EQ(blob.done(1), 7);
  c.write(blob, 0, blob.part_size(0));
  c.write(blob, 1, blob.part_size(1));
  EXPECT_TRUE(blob.finish());
}

TEST(IncompleteBlob, AStopBetweenCutAndRenameLosesNothing) {
  const Case c(1000);
  c.dir.write(c.file.blob + ".kogia.incomplete", c.bytes);
  IncompleteBlob blob(c.blobs, c.file);
  EXPECT_EQ(blob.done(0), 1000);
  EXPECT_TRUE(blob.finish());
}

TEST(IncompleteBlob, WrongBytesAreForgottenAndNeverGetTheName) {
  Case c(1000);
  IncompleteBlob blob(c.blobs, c.file);
  c.bytes[500] ^= 1;
  c.write(blob, 0, 1000);
  EXPECT_FALSE(blob.finish());
  EXPECT_EQ(blob.total_done(), 0);
  EXPECT_FALSE(std::filesystem::exists(c.dir / c.file.blob));
  c.bytes[500] ^= 1;
  c.write(blob, 0, 1000);
  EXPECT_TRUE(blob.finish()) << "the second try";
}

// What is left of an earlier run may be anything: then the hash decides, and nothing else breaks.
TEST(IncompleteBlob, AnyRemainsAreContinuedOrForgotten) {
  const Case c(5000);
  {
    IncompleteBlob blob(c.blobs, c.file);
    c.write(blob, 0, 3000);
  }
  const std::string kept = read_file(c.incomplete());
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    std::string damaged = kept;
    const auto random = [&, n = seed]() mutable { return (n = n * 1664525 + 1013904223) >> 8; };
    auto next = random;
    for (int i = 0; i < 3; ++i) {
      // Most of the changes in what is behind the bytes.
      const std::size_t at = next() % 2 == 0 ? 5000 + next() % (kept.size() - 5000) : next() % 5000;
      damaged[at] = static_cast<char>(next());
    }
    if (seed % 5 == 0) damaged.resize(next() % (kept.size() + 100));
    c.dir.write(c.incomplete().filename().string(), damaged);
    IncompleteBlob blob(c.blobs, c.file);
    ASSERT_GE(blob.done(0), 0);
    ASSERT_LE(blob.done(0), 5000);
    c.write(blob, 0, 5000);
    if (!blob.finish()) {
      c.write(blob, 0, 5000);
      ASSERT_TRUE(blob.finish());
    }
    ASSERT_EQ(read_file(c.dir / c.file.blob), c.bytes);
  }
}

TEST(IncompleteBlob, AnEmptyFileIsCompleteAtOnce) {
  Case c(0);
  c.file.blob = hash_of("", true);
  IncompleteBlob blob(c.blobs, c.file);
  EXPECT_EQ(blob.n_parts(), 0u);
  EXPECT_TRUE(blob.finish());
  EXPECT_TRUE(std::filesystem::exists(c.dir / c.file.blob));
}

TEST(Folder, MakesNoFolderThroughALink) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "real");
  std::filesystem::create_symlink(dir / "real", dir / "link");
  const Folder folder = Folder::open(dir.path().string());
  EXPECT_THROW(folder.below("link"), Error);
  EXPECT_THROW(folder.below("link/x"), Error);
  EXPECT_FALSE(std::filesystem::exists(dir / "real/x"));
  folder.below("a/b");
  EXPECT_TRUE(std::filesystem::is_directory(dir / "a/b"));
}

TEST(Folder, ALinkIsReplacedInOneStep) {
  const TempDir dir;
  const Folder folder = Folder::open(dir.path().string());
  dir.write("x", "a file");
  ASSERT_TRUE(folder.try_put_link("../one", "x"));
  ASSERT_TRUE(folder.try_put_link("../two", "x"));
  EXPECT_EQ(folder.read_link("x"), "../two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

}  // namespace
}  // namespace kogia::hub
