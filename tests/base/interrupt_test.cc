#include "base/interrupt.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "base/error.h"

namespace kogia {
namespace {

TEST(Interrupt, TheFirstCtrlCOnlySetsAFlag) {
  const InterruptGuard guard;
  EXPECT_FALSE(interrupted());
  EXPECT_NO_THROW(throw_if_interrupted());
  ::raise(SIGINT);
  EXPECT_TRUE(interrupted());
  try {
    throw_if_interrupted();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInterrupted);
  }
  clear_interrupt();
  EXPECT_FALSE(interrupted());
  ::raise(SIGINT);  // the first again
  EXPECT_TRUE(interrupted());
  clear_interrupt();
}

TEST(InterruptDeathTest, TheSecondCtrlCKills) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        ::raise(SIGINT);
        ::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(Interrupt, TheLastGuardRestoresTheHandler) {
  struct sigaction before{}, during{}, after{};
  ::sigaction(SIGINT, nullptr, &before);
  {
    const InterruptGuard outer;
    {
      const InterruptGuard inner;
    }
    ::sigaction(SIGINT, nullptr, &during);
    EXPECT_NE(during.sa_handler, before.sa_handler);
  }
  ::sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
}

}  // namespace
}  // namespace kogia
