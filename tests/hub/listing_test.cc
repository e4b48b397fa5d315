#include "hub/listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "hub/content_range.h"

namespace kogia::hub {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kCommit(40, 'c'), kSha1(40, '1'), kSha256(64, '2');

std::string listing(const std::string& siblings) {
  return R"({"id":"a/b","sha":")" + kCommit + R"(","siblings":[)" + siblings + "]}";
}

std::string refusal(const std::string& text) {
  try {
    parse_listing(text, "hub");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalid);
    return error.what();
  }
  return "accepted";
}

TEST(Listing, TellsSizesAndHashes) {
  const Listing l =
      parse_listing(listing(R"({"rfilename":"config.json","size":12,"blobId":")" + kSha1 +
                            R"("},{"rfilename":"m.safetensors","size":1,"blobId":")" + kSha1 +
                            R"(","lfs":{"sha256":")" + kSha256 +
                            R"(","size":99,"pointerSize":3}},)" + R"({"rfilename":"bare"})"),
                    "hub");
  EXPECT_EQ(l.commit, kCommit);
  ASSERT_EQ(l.files.size(), 3u);
  EXPECT_EQ(l.files[0].size, 12);
  EXPECT_EQ(l.files[0].blob, kSha1);
  EXPECT_EQ(l.files[1].size, 99) << "the file, not its pointer";
  EXPECT_EQ(l.files[1].blob, kSha256);
  EXPECT_EQ(l.files[2].size, -1);
  EXPECT_EQ(l.files[2].blob, "");
}

TEST(Listing, NamesThatLeadOutAreRefusedAndOddOnesLeftOut) {
  for (const char* name : {"../x", "/x", "a/../../x", "a//b", "", "..", "a\\u0000b"}) {
    EXPECT_THAT(refusal(listing(R"({"rfilename":")" + std::string(name) + "\"}")),
                HasSubstr("no name of a file inside a repository"))
        << name;
  }
  const Listing l =
      parse_listing(listing(R"({"rfilename":"a\\b"},{"rfilename":"a\nb"},{"rfilename":"c"})"), "h");
  ASSERT_EQ(l.files.size(), 1u);
  EXPECT_EQ(l.files[0].path, "c");
}

TEST(Listing, WhatIsNoListingIsRefused) {
  EXPECT_THAT(refusal(""), HasSubstr("not JSON"));
  EXPECT_THAT(refusal("<html>"), HasSubstr("not JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("not an object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("'sha'"));
  EXPECT_THAT(refusal(R"({"sha":"x"})"), HasSubstr("'sha'"));
  EXPECT_THAT(refusal(R"({"sha":")" + kCommit + "\"}"), HasSubstr("'siblings'"));
  EXPECT_THAT(refusal(listing("1")), HasSubstr("'rfilename'"));
  EXPECT_THAT(refusal(listing(R"({"rfilename":"a"},{"rfilename":"a"})")), HasSubstr("a twice"));
  EXPECT_THAT(refusal(listing(R"({"rfilename":"a","size":-1})")), HasSubstr("a: size"));
  EXPECT_THAT(refusal(listing(R"({"rfilename":"a","size":99999999999999})")), HasSubstr("a: size"));
  EXPECT_THAT(refusal(listing(R"({"rfilename":"a","blobId":"../x"})")), HasSubstr("a: blobId"));
  EXPECT_THAT(refusal(listing(R"({"rfilename":"a","lfs":{"sha256":"0"}})")),
              HasSubstr("a: sha256"));
  EXPECT_THAT(refusal(std::string(100'000, '[')), HasSubstr("nested too deep"));
}

TEST(WeightMap, GivesEachFileOnce) {
  EXPECT_THAT(parse_weight_files(
                  R"({"metadata":{"x":[1]},"weight_map":{"b":"2.st","a":"1.st","c":"2.st"}})", "i"),
              ElementsAre("1.st", "2.st"));
  for (const char* bad : {"{}", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})",
                          R"({"weight_map":{"a":"../x"}})", "5"}) {
    EXPECT_THROW(parse_weight_files(bad, "i"), Error) << bad;
  }
}

TEST(ContentRange, MustBeWhatWasAskedFor) {
  const RemoteFile file{.path = "w", .size = 100, .blob = {}};
  const auto accepts = [&](const char* value) {
    Response response;
    if (value != nullptr) response.headers["content-range"] = value;
    try {
      check_content_range(response, 10, 19, file, "hub");
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(accepts("bytes 10-19/100"));
  EXPECT_TRUE(accepts("bytes 10-15/100")) << "less than asked for: the rest is asked for next";
  EXPECT_TRUE(accepts("bytes 10-19/*"));
  for (const char* bad : {"bytes 0-19/100", "bytes 10-20/100", "bytes 10-9/100", "bytes 10-19/101",
                          "bytes 10-19", "bytes */100", "bytes 10-19/100x", "10-19/100", "",
                          "bytes -10-19/100", "bytes 99999999999999999999-1/1"}) {
    EXPECT_FALSE(accepts(bad)) << bad;
  }
  EXPECT_FALSE(accepts(nullptr));
}

}  // namespace
}  // namespace kogia::hub
