#include "hub/names.h"

#include <gtest/gtest.h>

namespace kogia::hub {
namespace {

TEST(ModelName, IsTakenApart) {
  const auto plain = parse_model_name("deepseek-ai/DeepSeek-V3");
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->repository, "deepseek-ai/DeepSeek-V3");
  EXPECT_EQ(plain->revision, "main");
  EXPECT_EQ(plain->file, "");
  const auto full = parse_model_name("a_b/c.d@refs/pr/3:sub/x-Q4_K_M.gguf");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->repository, "a_b/c.d");
  EXPECT_EQ(full->revision, "refs/pr/3");
  EXPECT_EQ(full->file, "sub/x-Q4_K_M.gguf");
  EXPECT_EQ(full->text(), "a_b/c.d@refs/pr/3:sub/x-Q4_K_M.gguf");
}

TEST(ModelName, WhatTheHubRefusesIsNone) {
  for (const char* text : {"",
                           "/",
                           "a",
                           "a/",
                           "/b",
                           "a/b/c",
                           "./a",
                           "../a",
                           "~/a",
                           "a/.b",
                           "a/b.",
                           "-a/b",
                           "a/b-",
                           "a--b/c",
                           "a/b..c",
                           "a/b.git",
                           "a/b:",
                           "a/b@",
                           "a/b@x:",
                           "a/b:../c",
                           "a/b:/etc/passwd",
                           "a/b@../x",
                           "a/b@x y",
                           "a/b\n",
                           "a b/c",
                           "caf\xc3\xa9/b",
                           "a\\b/c",
                           "C:/x/y"}) {
    EXPECT_FALSE(parse_model_name(text)) << text;
  }
  EXPECT_FALSE(parse_model_name(std::string(97, 'a') + "/b"));
  EXPECT_TRUE(parse_model_name(std::string(96, 'a') + "/b"));
}

TEST(SafePath, StaysInsideAndIsPlain) {
  for (const char* path : {"a", "a/b.c", "..a", "a..", ".gitattributes", "a b/\xc3\xa9"}) {
    EXPECT_TRUE(is_safe_path(path)) << path;
  }
  for (const char* path : {"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/../b", "a\\b",
                           "a\nb", "a\x1b[2J", "\x7f"}) {
    EXPECT_FALSE(is_safe_path(path)) << path;
  }
  EXPECT_FALSE(is_safe_path(std::string_view("a\0b", 3)));
  EXPECT_FALSE(is_safe_path(std::string(256, 'a')));
  EXPECT_FALSE(is_safe_path("a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a"));
}

TEST(Hashes, AreLowerCaseDigitsOfTheRightNumber) {
  EXPECT_TRUE(is_commit(std::string(40, 'a')));
  EXPECT_FALSE(is_commit(std::string(40, 'A')));
  EXPECT_FALSE(is_commit(std::string(39, 'a')));
  EXPECT_FALSE(is_commit(std::string(40, 'g')));
  EXPECT_TRUE(is_blob(std::string(64, '0')));
  EXPECT_FALSE(is_blob(std::string(41, '0')));
}

TEST(UrlEncode, LeavesOnlyWhatAnyServerReadsAlike) {
  EXPECT_EQ(url_encode("a/b c%?#\xc3\xa9", true), "a/b%20c%25%3F%23%C3%A9");
  EXPECT_EQ(url_encode("refs/pr/1", false), "refs%2Fpr%2F1");
}

}  // namespace
}  // namespace kogia::hub
