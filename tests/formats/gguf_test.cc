// Case F07, and split sets.

#include "formats/gguf.h"

#include "formats/file_builders.h"
#include "formats/gguf_reader.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

constexpr std::uint32_t kU8 = 0, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9,
                        kU64 = 10;

GgufContents parse(const std::string& file) { return parse_gguf(as_bytes(file), "m.gguf"); }
std::string refusal(const std::string& file) {
  return message_of([&] { parse(file); });
}
std::string one_key(const std::string& key) { return gguf_file(0, 1, key); }
/// Tensors described by `infos`, and 64 bytes of data.
std::string with_tensors(std::uint64_t n, const std::string& infos, std::size_t n_data = 64) {
  return pad_to_32(gguf_file(n, 0, infos)) + std::string(n_data, 'd');
}

TEST(Gguf, ReadsKeysOfEveryKind) {
  const GgufMetadata m =
      parse(
          gguf_file(0, 6,
                    gguf_key("i", kU32, bytes_of(std::uint32_t{7})) +
                        gguf_key("f", kF32, bytes_of(1.5F)) +
                        gguf_key("b", kBool, std::string(1, '\1')) +
                        gguf_key("s", kString, text_of("qwen2")) +
                        gguf_key("l", kArray, gguf_array(kString, 2, text_of("a") + text_of(""))) +
                        gguf_key("n", kArray, gguf_array(kI32, 1, bytes_of(std::int32_t{-3})))))
          .metadata;
  EXPECT_EQ(m.get_int("i"), 7);
  EXPECT_EQ(m.get_float("i"), 7.0);
  EXPECT_EQ(m.get_float("f"), 1.5);
  EXPECT_EQ(m.get_bool("b"), true);
  EXPECT_EQ(m.require_string("s"), "qwen2");
  EXPECT_EQ(m.get_strings("l")->size(), 2U);
  EXPECT_EQ(m.get_ints("n")->at(0), -3);
  EXPECT_EQ(m.get_strings("gone"), nullptr);
  EXPECT_THAT(message_of([&] { m.get_int("s"); }),
              AllOf(HasSubstr("s is a string"), HasSubstr("expected an integer")));
  EXPECT_THAT(message_of([&] { m.require_int("gone"); }), HasSubstr("gone is missing"));
}

TEST(Gguf, F07aALengthNearTwoTo64IsRefused) {
  std::string file("GGUF\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\xF0\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
                   32);
  EXPECT_THAT(refusal(file), HasSubstr("bytes are left"));
  EXPECT_THAT(refusal(file + std::string(64, 'k')), HasSubstr("key 1 of 1"));
}

TEST(Gguf, F07bAnArrayWhoseBytesWrapIsRefusedByName) {
  const auto array = gguf_array(kU64, (std::uint64_t{1} << 61) + 1, std::string(8, '\0'));
  EXPECT_THAT(refusal(one_key(gguf_key("some.key", kArray, array))), HasSubstr("some.key"));
}

TEST(Gguf, F07cScoresOfAnotherTypeAreRefusedByName) {
  const auto array = gguf_array(kU8, 4, "\1\2\3\4");
  EXPECT_THAT(refusal(one_key(gguf_key("tokenizer.ggml.scores", kArray, array))),
              AllOf(HasSubstr("tokenizer.ggml.scores"), HasSubstr("expected floats")));
}

TEST(Gguf, F07eAWrongAlignmentIsRefusedByName) {
  for (const std::uint32_t n : {0U, 3U}) {
    EXPECT_THAT(refusal(one_key(gguf_key("general.alignment", kU32, bytes_of(n)))),
                HasSubstr("general.alignment"));
  }
  EXPECT_THAT(refusal(one_key(gguf_key("general.alignment", kI32, bytes_of(std::int32_t{32})))),
              HasSubstr("general.alignment"));
  EXPECT_EQ(parse(one_key(gguf_key("general.alignment", kU32, bytes_of(64U)))).tensors.size(), 0U);
}

TEST(Gguf, F07fArraysOfArraysAreRefusedByName) {
  std::string nested;
  for (int i = 0; i < 10000; ++i) nested += gguf_array(kArray, 1, "");
  EXPECT_THAT(refusal(one_key(gguf_key("deep.key", kArray, nested))), HasSubstr("deep.key"));
}

TEST(Gguf, F07gAnHonestVocabularyIsRead) {
  std::string words;
  for (int i = 0; i < 150000; ++i) words += text_of(fmt::format("word{}", i));
  const auto key = gguf_key("tokenizer.ggml.tokens", kArray, gguf_array(kString, 150000, words));
  EXPECT_EQ(parse(one_key(key)).metadata.get_strings("tokenizer.ggml.tokens")->back(),
            "word149999");
}

TEST(Gguf, CountsBeyondTheFileAreRefused) {
  EXPECT_THAT(refusal(gguf_file(UINT64_MAX, 0, "")), HasSubstr("items"));
  EXPECT_THAT(refusal(gguf_file(0, UINT64_MAX, "")), HasSubstr("items"));
}

TEST(Gguf, OtherFilesVersionsAndByteOrdersAreRefusedByName) {
  EXPECT_THAT(refusal("PK\3\4"), HasSubstr("not a GGUF"));
  EXPECT_THAT(refusal(""), HasSubstr("not a GGUF"));
  EXPECT_THAT(refusal(gguf_file(0, 0, "", 1)), HasSubstr("version 1"));
  EXPECT_THAT(refusal(gguf_file(0, 0, "", 0x03000000)), HasSubstr("big-endian"));
  EXPECT_EQ(parse(gguf_file(0, 0, "", 2)).tensors.size(), 0U);
}

TEST(Gguf, WrongKeysAreRefusedByName) {
  const auto key = gguf_key("k", kU32, bytes_of(1U));
  EXPECT_THAT(refusal(gguf_file(0, 2, key + key)), AllOf(HasSubstr("k"), HasSubstr("twice")));
  EXPECT_THAT(refusal(one_key(gguf_key("k", kBool, "\2"))), HasSubstr("boolean of 2"));
  EXPECT_THAT(refusal(one_key(gguf_key("k", 77, ""))), HasSubstr("unknown type 77"));
  EXPECT_THAT(refusal(one_key(gguf_key("k", kU64, bytes_of(UINT64_MAX)))), HasSubstr("63 bits"));
}

TEST(Gguf, ShapesAreReversedAndDataIsFound) {
  const auto tensors = parse(with_tensors(1, gguf_tensor("w", {4, 2}, 0, 32))).tensors;
  EXPECT_THAT(tensors.at(0).view.shape, testing::ElementsAre(2, 4));
  EXPECT_EQ(tensors[0].view.n_bytes, 32);
  EXPECT_EQ(static_cast<char>(*tensors[0].view.data), 'd');
}

TEST(Gguf, WrongTensorsAreRefusedByName) {
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {17}, 0, 0))),
              AllOf(HasSubstr("cut off"), HasSubstr("tensor w"),
                    HasSubstr("needs bytes 64..132, the file has 128")));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {1}, 0, UINT64_MAX / 2 - 31))),
              HasSubstr("tensor w"));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {1}, 0, 8))), HasSubstr("alignment"));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {31}, 8, 0))),
              HasSubstr("blocks of 32 q8_0"));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {256}, 16, 0))), HasSubstr("IQ2_XXS"));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {256}, 4711, 0))),
              HasSubstr("4711 (unknown)"));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {1, 1, 1, 1, 1}, 0, 0))),
              HasSubstr("5 dimensions"));
  EXPECT_THAT(refusal(with_tensors(1, gguf_tensor("w", {1ULL << 32, 1ULL << 32}, 0, 0))),
              HasSubstr("2^63"));
  EXPECT_THAT(refusal(with_tensors(2, gguf_tensor("v", {16}, 0, 0) + gguf_tensor("w", {2}, 0, 32))),
              HasSubstr("v and w share bytes"));
}

TEST(Gguf, SurvivesDamage) {
  const auto keys = gguf_key("a", kU32, bytes_of(7U)) +
                    gguf_key("b", kArray, gguf_array(kString, 2, text_of("x") + text_of("yz")));
  const auto file =
      pad_to_32(gguf_file(1, 2, keys + gguf_tensor("w", {8, 2}, 0, 0))) + std::string(64, 'd');
  survive_damage(file, [](const std::string& bytes) { parse(bytes); });
}

std::string part(std::uint32_t number, std::uint32_t count, std::uint32_t n_tensors,
                 const std::string& tensor) {
  const auto u16 = [](std::string_view key, std::uint32_t n) {
    return gguf_key(key, 2, bytes_of(static_cast<std::uint16_t>(n)));
  };
  return pad_to_32(gguf_file(1, 3,
                             u16("split.no", number) + u16("split.count", count) +
                                 gguf_key("split.tensors.count", kI32, bytes_of(n_tensors)) +
                                 gguf_tensor(tensor, {8}, 0, 0))) +
         std::string(32, 'd');
}

TEST(GgufSplit, AnyPartOpensTheSet) {
  const TempDir folder;
  folder.write("m-00001-of-00002.gguf", part(0, 2, 2, "a"));
  folder.write("m-00002-of-00002.gguf", part(1, 2, 2, "b"));
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "."}) {
    const auto checkpoint = Checkpoint::open(folder / name);
    EXPECT_EQ(checkpoint->require("b").file, "m-00002-of-00002.gguf");
    EXPECT_EQ(checkpoint->gguf()->metadata().get_int("split.no"), 0);
  }
}

TEST(GgufSplit, MissingAndWrongPartsAreNamed) {
  const TempDir folder;
  const auto first = folder.write("m-00001-of-00002.gguf", part(0, 2, 2, "a"));
  const auto open = [&] { Checkpoint::open(first); };
  EXPECT_THAT(message_of(open), HasSubstr("part 2 of 2 is missing"));
  folder.write("m-00002-of-00002.gguf", part(0, 2, 2, "b"));
  EXPECT_THAT(message_of(open), HasSubstr("split.no 0 of 2, expected 1 of 2"));
  folder.write("m-00002-of-00002.gguf", part(1, 2, 3, "a"));
  EXPECT_THAT(message_of(open), HasSubstr("tensor a"));
  folder.write("m-00001-of-00002.gguf", part(0, 2, 3, "a"));
  folder.write("m-00002-of-00002.gguf", part(1, 2, 3, "b"));
  EXPECT_THAT(message_of(open), HasSubstr("split.tensors.count is 3"));
  const auto odd = folder.write("odd.gguf", part(0, 2, 2, "a"));
  EXPECT_THAT(message_of([&] { Checkpoint::open(odd); }), HasSubstr("its name does not say which"));
}

TEST(Gguf, AFolderWithTwoModelsAsksWhich) {
  const TempDir folder;
  folder.write("a.gguf", gguf_file(0, 0, ""));
  EXPECT_EQ(Checkpoint::open(folder.path())->kind(), CheckpointKind::kGguf);
  folder.write("b.gguf", gguf_file(0, 0, ""));
  EXPECT_THAT(message_of([&] { Checkpoint::open(folder.path()); }), HasSubstr("2 GGUF files"));
}

}  // namespace
}  // namespace kogia
