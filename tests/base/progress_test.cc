#include "base/progress.h"

#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kogia {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(FormatBytes, PicksTheUnitAPersonWould) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(98362432), "93.8 MiB");
  EXPECT_EQ(format_bytes((Index{1} << 20) - 1), "1.0 MiB");  // never "1024.0 KiB"
  EXPECT_EQ(format_bytes(INT64_MAX), "8.0 EiB");
}

TEST(FormatDuration, ReadsLikeAClock) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(7.4), "0:07");
  EXPECT_EQ(format_duration(754), "12:34");
  EXPECT_EQ(format_duration(11100), "3:05:00");
  EXPECT_EQ(format_duration(-3), "0:00");
  EXPECT_EQ(format_duration(1e300), "277777:46:40");
}

TEST(RenderProgress, ShowsShareAmountRateAndTimeLeft) {
  const auto text = render_progress("packing", 25, 100, 5, ProgressUnit::kCount, 100);
  EXPECT_THAT(text, HasSubstr("packing  25 % [#######.......................]"));
  EXPECT_THAT(text, HasSubstr("25 of 100  5/s  ETA 0:15"));
  EXPECT_THAT(render_progress("x", 1 << 20, 4 << 20, 2, ProgressUnit::kBytes, 100),
              HasSubstr("1.0 MiB of 4.0 MiB  512.0 KiB/s  ETA 0:06"));
  EXPECT_THAT(render_progress("answers", 5, 10, 5, ProgressUnit::kCount, 100, "431 tok/s"),
              HasSubstr("5 of 10  1/s  ETA 0:05  431 tok/s"));
}

// What was done before the clock started says nothing of the rate.
TEST(RenderProgress, AJobThatGoesOnIsNoFasterForIt) {
  EXPECT_THAT(render_progress("training", 720, 800, 10, ProgressUnit::kCount, 100, {}, 700),
              HasSubstr("90 % [###########################...] 720 of 800  2/s  ETA 0:40"));
}

TEST(RenderProgress, NeverDividesByZeroOrOverflowsTheLine) {
  for (Index done : {0, 1, 7, 200}) {
    for (Index total : {-1, 0, 1, 7}) {
      for (double elapsed : {0.0, 0.5, 1e9}) {
        for (int width : {0, 5, 20, 40, 300}) {
          const auto text =
              render_progress("label", done, total, elapsed, ProgressUnit::kBytes, width);
          EXPECT_LE(text.size(), static_cast<std::size_t>(width));
          EXPECT_THAT(text, Not(HasSubstr("nan")));
          EXPECT_THAT(text, Not(HasSubstr("inf")));
        }
      }
    }
  }
}

TEST(RenderProgress, WithoutATotalThereIsNoBar) {
  const auto text = render_progress("reading", 300, 0, 3, ProgressUnit::kCount, 80);
  EXPECT_EQ(text, "reading 300  100/s");
}

TEST(Progress, CountsFromManyThreadsAndIsSilentWhenAsked) {
  testing::internal::CaptureStderr();
  {
    Progress progress("work", 4000, ProgressUnit::kCount, Progress::Mode::kSilent);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) progress.add(1);
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(progress.done(), 4000);
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
}

TEST(Progress, AShortJobLeavesNoLineInALog) {
  testing::internal::CaptureStderr();
  {
    Progress progress("work", 2, ProgressUnit::kCount, Progress::Mode::kLines);
    progress.add(2);
    progress.finish();
    progress.finish();
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
}

TEST(Progress, ABarIsDrawnInPlaceAndWipedAtTheEnd) {
  testing::internal::CaptureStderr();
  {
    Progress progress("packing", 4, ProgressUnit::kCount, Progress::Mode::kBar);
    progress.add(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(350));  // a bar appears only after 0.3 s
    progress.add(1);
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, HasSubstr("\r\033[Kpacking  50 % ["));
  EXPECT_THAT(text, testing::EndsWith("\r\033[K"));
  EXPECT_THAT(text, Not(HasSubstr("\n")));
}

}  // namespace
}  // namespace kogia
