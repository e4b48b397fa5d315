#include "base/mapped_file.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

using test::TempDir;
using testing::HasSubstr;

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

ErrorCode code_of_opening(const std::filesystem::path& path) {
  try {
    MappedFile::open(path);
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(path.string()));
    return e.code();
  }
  ADD_FAILURE() << path << " could be opened";
  return ErrorCode::kUsage;
}

TEST(MappedFile, ShowsTheBytesOfTheFile) {
  const TempDir dir;
  const std::string text = std::string("kogia\0sima", 10) + std::string(10000, 'x');
  const MappedFile file = MappedFile::open(dir.write("a file", text));
  EXPECT_EQ(file.size(), 10010);
  EXPECT_EQ(text_of(file), text);
  EXPECT_EQ(file.name(), (dir / "a file").string());
}

TEST(MappedFile, AnEmptyFileIsAnEmptySpan) {
  const TempDir dir;
  const MappedFile file = MappedFile::open(dir.write("empty", ""));
  EXPECT_TRUE(file.bytes().empty());
  file.advise_sequential(0, 10);
}

TEST(MappedFile, SpansSurviveAMove) {
  const TempDir dir;
  MappedFile a = MappedFile::open(dir.write("a", "abc")),
             b = MappedFile::open(dir.write("b", "defg"));
  const auto* bytes_of_b = b.bytes().data();
  a = std::move(b);
  EXPECT_EQ(a.bytes().data(), bytes_of_b);
  EXPECT_EQ(text_of(a), "defg");
  const MappedFile c(std::move(a));
  EXPECT_EQ(c.bytes().data(), bytes_of_b);
}

TEST(MappedFile, AdviceClipsWhateverRangeItIsGiven) {
  const TempDir dir;
  const std::string text(50000, 'y');
  const MappedFile file = MappedFile::open(dir.write("f", text));
  constexpr Index kHuge = INT64_MAX;
  for (Index offset : {Index{-5}, Index{0}, Index{4097}, Index{49999}, Index{50000}, kHuge}) {
    for (Index n : {Index{-1}, Index{0}, Index{1}, Index{60000}, kHuge}) {
      file.advise_sequential(offset, n);
      file.advise_willneed(offset, n);
      file.advise_dontneed(offset, n);
    }
  }
  EXPECT_EQ(text_of(file), text);  // dropped pages come back from the file
}

TEST(MappedFile, SaysWhatIsWrongWithThePath) {
  const TempDir dir;
  EXPECT_EQ(code_of_opening(dir / "absent"), ErrorCode::kNotFound);
  EXPECT_EQ(code_of_opening(dir.write("file", "x") / "below"), ErrorCode::kNotFound);
  EXPECT_EQ(code_of_opening(dir.path()), ErrorCode::kInvalid);
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(code_of_opening(dir / "pipe"), ErrorCode::kInvalid);  // and does not hang
  EXPECT_EQ(code_of_opening(std::string(5000, 'n')), ErrorCode::kIo);
}

}  // namespace
}  // namespace kogia
