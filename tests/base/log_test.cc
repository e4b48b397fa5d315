#include "base/log.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kogia {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string logged_at(LogLevel level) {
  set_log_level(level);
  testing::internal::CaptureStderr();
  log_debug("a detail: {}", 1);
  log_info("a fact: {}", 2);
  log_warning("{} and {}", "worry", 3);
  log_message(LogLevel::kError, "braces {} stay as they are");
  std::string text = testing::internal::GetCapturedStderr();
  set_log_level(LogLevel::kInfo);
  return text;
}

TEST(Log, WritesOneLineAMessageToStandardError) {
  const std::string text = logged_at(LogLevel::kDebug);
  EXPECT_THAT(text, HasSubstr("a detail: 1\n"));
  EXPECT_THAT(text, HasSubstr("a fact: 2\n"));
  EXPECT_THAT(text, HasSubstr("warning"));
  EXPECT_THAT(text, HasSubstr("worry and 3\n"));
  EXPECT_THAT(text, HasSubstr("braces {} stay as they are\n"));
}

TEST(Log, DropsWhatIsBelowTheLevel) {
  const std::string text = logged_at(LogLevel::kWarning);
  EXPECT_THAT(text, Not(HasSubstr("a detail")));
  EXPECT_THAT(text, Not(HasSubstr("a fact")));
  EXPECT_THAT(text, HasSubstr("worry"));
  EXPECT_EQ(logged_at(LogLevel::kOff), "");
}

}  // namespace
}  // namespace kogia
