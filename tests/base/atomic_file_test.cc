#include "base/atomic_file.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

using test::read_file;
using test::TempDir;
using testing::HasSubstr;

std::ptrdiff_t n_files(const TempDir& dir) {
  return std::distance(std::filesystem::directory_iterator(dir.path()), {});
}

TEST(AtomicFile, AppearsOnlyWhenCommitted) {
  const TempDir dir;
  AtomicFile file(dir / "out");
  file.append("hello ");
  file.append_zeros(3);
  file.append("world");
  EXPECT_EQ(file.size(), 14);
  EXPECT_FALSE(std::filesystem::exists(dir / "out"));
  file.commit();
  EXPECT_EQ(read_file(dir / "out"), std::string("hello \0\0\0world", 14));
  EXPECT_EQ(n_files(dir), 1);
}

TEST(AtomicFile, WithoutCommitTheOldFileStaysAndNothingElse) {
  const TempDir dir;
  dir.write("out", "old");
  {
    AtomicFile file(dir / "out");
    file.append(std::string(3 << 20, 'n'));  // more than the buffer, so that the disk has seen it
  }
  EXPECT_EQ(read_file(dir / "out"), "old");
  EXPECT_EQ(n_files(dir), 1);
}

TEST(AtomicFile, ReplacesTheOldFile) {
  const TempDir dir;
  dir.write("out", "something longer");
  write_file_atomically(dir / "out", "new");
  EXPECT_EQ(read_file(dir / "out"), "new");
  EXPECT_EQ(n_files(dir), 1);
}

TEST(AtomicFile, StreamsPiecesOfAllSizesInOrder) {
  const TempDir dir;
  std::string expected;
  AtomicFile file(dir / "out");
  for (int size : {1, 1000, (1 << 20) - 1, 1 << 20, 3, (1 << 20) + 1, 0, 5 << 20, 7}) {
    const std::string piece(static_cast<std::size_t>(size), static_cast<char>('a' + size % 26));
    file.append(piece);
    expected += piece;
  }
  file.append_zeros(10000);
  expected.append(10000, '\0');
  file.commit();
  EXPECT_TRUE(read_file(dir / "out") == expected);
}

TEST(AtomicFile, TwoWritersOfOneTargetDoNotMeet) {
  const TempDir dir;
  AtomicFile a(dir / "out"), b(dir / "out");
  a.append("from a");
  b.append("from b");
  b.commit();
  EXPECT_EQ(read_file(dir / "out"), "from b");
  a.commit();
  EXPECT_EQ(read_file(dir / "out"), "from a");
  EXPECT_EQ(n_files(dir), 1);
}

TEST(AtomicFile, NamesTheTargetInItsErrors) {
  const TempDir dir;
  try {
    AtomicFile file(dir / "no such folder/out");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kNotFound);
    EXPECT_THAT(e.what(), HasSubstr("no such folder/out"));
  }
  EXPECT_THROW(AtomicFile(dir.path()), Error);
  EXPECT_THROW(AtomicFile(dir.path() / ""), Error);
}

TEST(AtomicFile, AFailedCommitLeavesNoTemporary) {
  const TempDir dir;
  {
    AtomicFile file(dir / "late");
    file.append("x");
    std::filesystem::create_directories(dir / "late/below");  // a file cannot replace a folder
    EXPECT_THROW(file.commit(), Error);
  }
  EXPECT_EQ(n_files(dir), 1);
}

}  // namespace
}  // namespace kogia
