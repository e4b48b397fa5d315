#include "base/error.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kogia {
namespace {

TEST(Error, WhatAFilePutsIntoAMessageStaysReadable) {
  // A NUL would end the sentence, an escape sequence would be obeyed by a terminal.
  const std::string name("blk.1\0w\x1b[2J\x7f", 12);
  const Error error(ErrorCode::kInvalid, "tensor " + name + ": 0 dimensions,\nexpected 1 to 4 – é");
  EXPECT_STREQ(error.what(), "tensor blk.1\\x00w\\x1b[2J\\x7f: 0 dimensions,\nexpected 1 to 4 – é");
}

TEST(Error, OfAnEndlessMessageBeginAndEndAreKept) {
  const Error error(ErrorCode::kInvalid, "type " + std::string(100'000, 'a') + ", expected F32");
  const std::string text = error.what();
  EXPECT_LT(text.size(), 2000U);
  EXPECT_THAT(text, testing::StartsWith("type aaa"));
  EXPECT_THAT(text, testing::EndsWith("aaa, expected F32"));
}

}  // namespace
}  // namespace kogia
