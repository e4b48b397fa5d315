#include "hub/choose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace kogia::hub {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Listing listing_of(std::vector<std::string> paths) {
  Listing listing{.commit = std::string(40, 'a'), .files = {}};
  for (std::string& path : paths) {
    listing.files.push_back({.path = std::move(path), .size = 1, .blob = std::string(40, 'b')});
  }
  return listing;
}

std::vector<std::string> chosen(const Listing& listing, const std::string& file = {}) {
  std::vector<std::string> paths;
  const ModelName name{.repository = "o/n", .revision = "main", .file = file};
  for (const RemoteFile& f : choose_files(listing, name).files) paths.push_back(f.path);
  return paths;
}

std::string refusal(const Listing& listing, ErrorCode code, const std::string& file = {}) {
  try {
    chosen(listing, file);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code);
    return error.what();
  }
  return "accepted";
}

TEST(ChooseFiles, OneFormOfTheWeightsAndTheTextsBesideIt) {
  EXPECT_THAT(chosen(listing_of({"README.md", "config.json", "tokenizer.json", "merges.txt",
                                 "model.safetensors", "pytorch_model.bin", "tf_model.h5",
                                 "consolidated.safetensors", "onnx/model.onnx", "x-Q4_0.gguf",
                                 "figures/a.png", "adapter_model.safetensors"})),
              ElementsAre("model.safetensors", "tokenizer.json", "merges.txt", "config.json"));
}

TEST(ChooseFiles, AnIndexComesFirstAndDecides) {
  const Listing l =
      listing_of({"config.json", "model-00001-of-00002.safetensors",
                  "model-00002-of-00002.safetensors", "model.safetensors.index.json"});
  const Choice choice = choose_files(l, {.repository = "o/n", .revision = "main", .file = {}});
  EXPECT_TRUE(choice.by_index);
  ASSERT_EQ(choice.files.size(), 2u);
  EXPECT_EQ(choice.files[0].path, "model.safetensors.index.json");
  const std::vector<std::string> named{"model-00001-of-00002.safetensors"};
  EXPECT_EQ(choose_weights(l, named, "i").size(), 1u);
  for (const char* bad : {"absent.safetensors", "config.json"}) {
    EXPECT_THROW(choose_weights(l, std::vector<std::string>{bad}, "i"), Error);
  }
}

TEST(ChooseFiles, TheOnlyGgufNeedsNoName) {
  EXPECT_THAT(chosen(listing_of({"a.gguf", "mmproj-a-f16.gguf", "a.imatrix.gguf", "README.md"})),
              ElementsAre("a.gguf"));
}

TEST(ChooseFiles, SeveralGgufsAreListed) {
  const auto text = refusal(
      listing_of({"a-Q4_0.gguf", "s/a-Q8_0-00001-of-00002.gguf", "s/a-Q8_0-00002-of-00002.gguf"}),
      ErrorCode::kUsage);
  EXPECT_THAT(text, HasSubstr("o/n:a-Q4_0.gguf"));
  EXPECT_THAT(text, HasSubstr("o/n:s/a-Q8_0.gguf  (2 parts)"));
}

TEST(ChooseFiles, AQuantisationNamesItsFile) {
  const Listing l = listing_of({"M-BF16.gguf", "M-F16.gguf", "M-Q4_K_M.gguf", "M-Q4_K_S.gguf",
                                "M-UD-Q2_K_XL.gguf", "Q8_0/M-Q8_0-00001-of-00002.gguf",
                                "Q8_0/M-Q8_0-00002-of-00002.gguf", "M-IQ4_XS-imat.gguf"});
  EXPECT_THAT(chosen(l, "F16"), ElementsAre("M-F16.gguf")) << "BF16 is another";
  EXPECT_THAT(chosen(l, "q4_k_m"), ElementsAre("M-Q4_K_M.gguf"));
  EXPECT_THAT(chosen(l, "Q2_K_XL"), ElementsAre("M-UD-Q2_K_XL.gguf"));
  EXPECT_THAT(chosen(l, "IQ4_XS"), ElementsAre("M-IQ4_XS-imat.gguf")) << "inside the name";
  EXPECT_THAT(chosen(l, "M-Q4_K_S.gguf"), ElementsAre("M-Q4_K_S.gguf"));
  EXPECT_THAT(chosen(l, "Q8_0").size(), 2u);
  EXPECT_THAT(chosen(l, "M-Q8_0-00002-of-00002.gguf").size(), 2u) << "any part means all";
  EXPECT_THAT(refusal(l, ErrorCode::kNotFound, "Q5_K_M"), HasSubstr("M-Q4_K_M.gguf"));
  EXPECT_THAT(refusal(l, ErrorCode::kNotFound, "Q4_K"), HasSubstr("'Q4_K'"));
}

TEST(ChooseFiles, AQuantisationOfTwoFilesIsAmbiguous) {
  const Listing l = listing_of({"M-Q4_K_M.gguf", "M-UD-Q4_K_M.gguf"});
  EXPECT_THAT(refusal(l, ErrorCode::kUsage, "Q4_K_M"), HasSubstr("2 GGUF models"));
  EXPECT_THAT(chosen(l, "UD-Q4_K_M"), ElementsAre("M-UD-Q4_K_M.gguf"));
  EXPECT_THAT(chosen(l, "M-Q4_K_M"), ElementsAre("M-Q4_K_M.gguf"));
}

TEST(ChooseFiles, AnyOtherFileIsNamedByItsPath) {
  EXPECT_THAT(chosen(listing_of({"config.json", "a/b.txt"}), "a/b.txt"), ElementsAre("a/b.txt"));
}

TEST(ChooseFiles, WhatIsNoModelIsRefused) {
  EXPECT_THAT(refusal(listing_of({"pytorch_model.bin", "config.json"}), ErrorCode::kUnsupported),
              HasSubstr("neither"));
  EXPECT_THAT(refusal(listing_of({}), ErrorCode::kUnsupported), HasSubstr("neither"));
  EXPECT_THAT(refusal(listing_of({"model.safetensors"}), ErrorCode::kUnsupported),
              HasSubstr("config.json"));
  EXPECT_THAT(refusal(listing_of({"a.safetensors", "b.safetensors", "config.json"}),
                      ErrorCode::kUnsupported),
              HasSubstr("2 .safetensors files"));
  EXPECT_THAT(
      refusal(listing_of({"a-00001-of-00003.gguf", "a-00003-of-00003.gguf"}), ErrorCode::kInvalid),
      HasSubstr("2 of 3 parts"));
}

}  // namespace
}  // namespace kogia::hub
