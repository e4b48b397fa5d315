// Events as TensorBoard reads them.

#include "train/event_file.h"

#include <memory>

#include <gtest/gtest.h>

#include "support/temp_dir.h"

namespace kogia::test {
namespace {

// RFC 3720 B.4 and the usual check value.
TEST(Crc32c, IsThatOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(""), 0U);
}

// The bytes that tensorboard.summary.writer.RecordWriter of PyPI's tensorboard 2.21 writes of
// Event(wall_time=2.5, step=300, summary=Summary(value=[Value(tag="loss", simple_value=1.5)])).
constexpr unsigned char kRecord[] = {
    27,  0, 0,  0,  0,  0,  0,  0, 26,  13,  158, 19,  9,  0, 0, 0,   0,  0,   0,  4,  64, 16,
    172, 2, 42, 13, 10, 11, 10, 4, 108, 111, 115, 115, 21, 0, 0, 192, 63, 136, 83, 62, 28};

TEST(EventFile, WritesWhatTensorboardWrites) {
  const TempDir dir;
  const auto file = dir / "tensorboard/events.out.tfevents.0.kogia";
  EventFile(file, 0).add(300, 2.5, {{"loss", 1.5}});
  const std::string text = read_file(file);
  const std::string expected(reinterpret_cast<const char*>(kRecord), sizeof(kRecord));
  ASSERT_GE(text.size(), expected.size());
  EXPECT_EQ(text.substr(text.size() - expected.size()), expected);
}

TEST(EventFile, AStepStandsThereOnce) {
  const TempDir dir;
  const auto add = [](EventFile& events, Index first, Index last) {
    for (Index step = first; step <= last; ++step) {
      events.add(step, 0, {{"loss", static_cast<double>(step)}, {"lr", 0.5}});
    }
  };
  {
    EventFile whole(dir / "whole", 0);
    add(whole, 1, 300);
  }
  const std::string expected = read_file(dir / "whole");
  const auto file = dir / "stopped";
  {
    EventFile first(file, 0);
    add(first, 1, 290);
  }
  {
    EventFile again(file, 250);  // the checkpoint to go on from
    add(again, 251, 300);
  }
  EXPECT_EQ(read_file(file), expected);
  // A record cut off anywhere, and one with a bit flipped.
  for (const std::size_t cut : {1U, 5U, 20U, 44U}) {
    std::string damaged = expected.substr(0, expected.size() - cut);
    dir.write("stopped", damaged);
    add(*std::make_unique<EventFile>(file, 300), 300, 300);
    EXPECT_EQ(read_file(file), expected) << cut;
  }
  std::string flipped = expected;
  flipped[flipped.size() - 10] ^= 1;
  dir.write("stopped", flipped);
  add(*std::make_unique<EventFile>(file, 300), 300, 300);
  EXPECT_EQ(read_file(file), expected);
}

}  // namespace
}  // namespace kogia::test
