#include "base/did_you_mean.h"

#include <gtest/gtest.h>

namespace kogia::test {
namespace {

TEST(DidYouMean, FindsSlipsButNoStrangers) {
  const std::vector<std::string> names{"run", "chat", "inspect", "tokenize", "perplexity"};
  EXPECT_EQ(did_you_mean("inspct", names), "inspect");
  EXPECT_EQ(did_you_mean("hcat", names), "chat");
  EXPECT_EQ(did_you_mean("token", names), "tokenize");
  EXPECT_EQ(did_you_mean("ppl", names), std::nullopt);
  EXPECT_EQ(did_you_mean("", names), std::nullopt);
  EXPECT_EQ(did_you_mean(std::string(100000, 'x'), names), std::nullopt);
}

}  // namespace
}  // namespace kogia::test
