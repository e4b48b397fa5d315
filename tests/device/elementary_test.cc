#include "device/reference/elementary.h"

#include <cmath>

#include <gtest/gtest.h>

namespace kogia::reference {
namespace {

TEST(Elementary, ExpIsGoodToTheLastPlaces) {
  for (double x = -708; x < 709; x += 0.0137) {
    const double expected = std::exp(x);
    ASSERT_NEAR(exp(x), expected, 4e-16 * expected) << x;
  }
  EXPECT_EQ(exp(0.0), 1.0);
  EXPECT_EQ(exp(-800.0), 0.0);
  EXPECT_EQ(exp(-INFINITY), 0.0);
  EXPECT_EQ(exp(710.0), INFINITY);
  EXPECT_TRUE(std::isnan(exp(std::nan(""))));
}

TEST(Elementary, LogIsGoodToTheLastPlaces) {
  for (double x = 1e-300; x < 1e300; x *= 1.37) {
    ASSERT_NEAR(log(x), std::log(x), 4e-16 * std::fabs(std::log(x)) + 2e-16) << x;
  }
  for (double x = 0.5; x < 2; x += 0.00317) ASSERT_NEAR(log(x), std::log(x), 3e-16) << x;
  EXPECT_EQ(log(1.0), 0.0);
}

}  // namespace
}  // namespace kogia::reference
