// GGUF from strangers (case F07): what is right reads as it was written, what is wrong is refused
// by name.

#include <filesystem>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/random.h"
#include "formats/gguf_bytes.h"
#include "formats/gguf_reader.h"
#include "support/temp_dir.h"

namespace kogia {
namespace {

using namespace test;  // NOLINT: the names of GGUF's types
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

GgufContents parse(const std::string& bytes) { return parse_gguf(as_bytes(bytes), "x.gguf"); }
GgufContents parse(const GgufBytes& file) { return parse(file.bytes()); }

/// What a refusal says; fails if the file is taken.
std::string refusal(const std::string& bytes, ErrorCode code = ErrorCode::kInvalid) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    EXPECT_THAT(e.what(), HasSubstr("x.gguf"));
    return e.what();
  }
  ADD_FAILURE() << "taken, expected a refusal";
  return {};
}
std::string refusal(const GgufBytes& file, ErrorCode code = ErrorCode::kInvalid) {
  return refusal(file.bytes(), code);
}
GgufBytes one_key(std::string_view name, std::uint32_t type, const std::string& value) {
  return GgufBytes().key(name, type, value);
}

/// Two tensors of different types, the first not a multiple of the alignment long; keys of many
/// types.
GgufBytes small_file() {
  GgufBytes f;
  f.text("general.architecture", "llama").key("llama.block_count", kU32, bytes_of(2u));
  f.array("tokenizer.ggml.tokens", kString, std::vector<std::string>{"a", "", "héllo"});
  f.array("tokenizer.ggml.scores", kF32, std::vector<float>{0.5f, -1, 2});
  f.array("tokenizer.ggml.token_type", kI32, std::vector<std::int32_t>{1, 3, -4});
  f.tensor("norm", {5}, 0, 0).tensor("w", {64, 3}, 8, 32);
  f.data = std::string(20, 'n') + std::string(12, '\0') + std::string(3 * 2 * 34, 'w');
  return f;
}

TEST(Gguf, ReadsKeysOfEveryType) {
  GgufBytes f;
  f.key("u8", kU8, bytes_of<std::uint8_t>(200)).key("i8", kI8, bytes_of<std::int8_t>(-7));
  f.key("u16", kU16, bytes_of<std::uint16_t>(65535)).key("i16", kI16, bytes_of<std::int16_t>(-300));
  f.key("u32", kU32, bytes_of<std::uint32_t>(4000000000))
      .key("i32", kI32, bytes_of<std::int32_t>(-70000));
  f.key("u64", kU64, bytes_of<std::uint64_t>(INT64_MAX))
      .key("i64", kI64, bytes_of<std::int64_t>(INT64_MIN));
  f.key("f32", kF32, bytes_of(1.5f))
      .key("f64", kF64, bytes_of(-2.25))
      .key("no", kBool, bytes_of<char>(0));
  f.key("yes", kBool, bytes_of<char>(1)).text("s", "text").text("", "no name");
  const GgufMetadata m = parse(f).metadata;
  EXPECT_EQ(m.file, "x.gguf");
  EXPECT_EQ(m.get_int("u8"), 200);
  EXPECT_EQ(m.get_int("i8"), -7);
  EXPECT_EQ(m.get_int("u16"), 65535);
  EXPECT_EQ(m.get_int("i16"), -300);
  EXPECT_EQ(m.get_int("u32"), 4000000000);
  EXPECT_EQ(m.get_int("i32"), -70000);
  EXPECT_EQ(m.get_int("u64"), INT64_MAX);
  EXPECT_EQ(m.require_int("i64"), INT64_MIN);
  EXPECT_EQ(m.get_float("f32"), 1.5);
  EXPECT_EQ(m.get_float("f64"), -2.25);
  EXPECT_EQ(m.get_float("i8"), -7.0) << "an integer is a float as well";
  EXPECT_EQ(m.get_bool("yes"), true);
  EXPECT_EQ(m.get_bool("no"), false);
  EXPECT_EQ(m.require_string("s"), "text");
  EXPECT_TRUE(m.has(""));
  EXPECT_FALSE(m.has("absent"));
  EXPECT_EQ(m.get_int("absent"), std::nullopt);
  EXPECT_EQ(m.get_strings("absent"), nullptr);
}

TEST(Gguf, ReadsArraysOfEveryType) {
  GgufBytes f;
  f.array("u8", kU8, std::vector<std::uint8_t>{0, 255})
      .array("i8", kI8, std::vector<std::int8_t>{-1});
  f.array("u16", kU16, std::vector<std::uint16_t>{65535})
      .array("i16", kI16, std::vector<short>{-2});
  f.array("u32", kU32, std::vector<unsigned>{~0u}).array("i32", kI32, std::vector<int>{-3, 4, 5});
  f.array("u64", kU64, std::vector<std::uint64_t>{INT64_MAX});
  f.array("i64", kI64, std::vector<std::int64_t>{INT64_MIN});
  f.array("f32", kF32, std::vector<float>{0.25f}).array("f64", kF64, std::vector<double>{-8, 9});
  f.array("bool", kBool, std::vector<std::uint8_t>{1, 0}).array("none", kF32, std::vector<float>{});
  f.array("s", kString, std::vector<std::string>{"", "zwei"});
  const GgufMetadata m = parse(f).metadata;
  EXPECT_THAT(*m.get_ints("u8"), ElementsAre(0, 255));
  EXPECT_THAT(*m.get_ints("i8"), ElementsAre(-1));
  EXPECT_THAT(*m.get_ints("u16"), ElementsAre(65535));
  EXPECT_THAT(*m.get_ints("i16"), ElementsAre(-2));
  EXPECT_THAT(*m.get_ints("u32"), ElementsAre(4294967295));
  EXPECT_THAT(*m.get_ints("i32"), ElementsAre(-3, 4, 5));
  EXPECT_THAT(*m.get_ints("u64"), ElementsAre(INT64_MAX));
  EXPECT_THAT(*m.get_ints("i64"), ElementsAre(INT64_MIN));
  EXPECT_THAT(*m.get_floats("f32"), ElementsAre(0.25));
  EXPECT_THAT(*m.get_floats("f64"), ElementsAre(-8, 9));
  EXPECT_THAT(*m.get_ints("bool"), ElementsAre(1, 0));
  EXPECT_THAT(*m.get_strings("s"), ElementsAre("", "zwei"));
  EXPECT_THAT(*m.get_strings("none"), IsEmpty()) << "an array without items is of any type";
}

TEST(Gguf, GettersNameKeyAndBothTypes) {
  const GgufMetadata m = parse(small_file()).metadata;
  const auto says = [&](const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  EXPECT_EQ(says([&] { m.get_int("general.architecture"); }),
            "x.gguf: general.architecture is a string, expected an integer");
  EXPECT_EQ(says([&] { m.get_string("llama.block_count"); }),
            "x.gguf: llama.block_count is an integer, expected a string");
  EXPECT_EQ(says([&] { m.get_bool("llama.block_count"); }),
            "x.gguf: llama.block_count is an integer, expected a boolean");
  EXPECT_EQ(says([&] { m.get_float("tokenizer.ggml.scores"); }),
            "x.gguf: tokenizer.ggml.scores is floats, expected a float");
  EXPECT_EQ(says([&] { m.get_ints("tokenizer.ggml.tokens"); }),
            "x.gguf: tokenizer.ggml.tokens is strings, expected integers");
  EXPECT_EQ(says([&] { m.require_int("llama.rope"); }), "x.gguf: llama.rope is missing");
  EXPECT_EQ(says([&] { m.require_string("name"); }), "x.gguf: name is missing");
}

TEST(Gguf, ReadsTensorsSlowestFirst) {
  for (const std::uint32_t version : {2u, 3u}) {
    GgufBytes f = small_file();
    f.version = version;
    const std::string bytes = f.bytes();
    const GgufContents c = parse(bytes);
    ASSERT_EQ(c.tensors.size(), 2u);
    const TensorView& norm = c.tensors[0].view;
    EXPECT_EQ(c.tensors[0].name, "norm");
    EXPECT_THAT(norm.shape, ElementsAre(5));
    EXPECT_EQ(norm.dtype, DType::f32);
    EXPECT_EQ(norm.n_bytes, 20);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(norm.data), 20), std::string(20, 'n'));
    const TensorView& w = c.tensors[1].view;
    EXPECT_THAT(w.shape, ElementsAre(3, 64));
    EXPECT_EQ(w.dtype, DType::q8_0);
    EXPECT_EQ(w.n_bytes, 204);
    EXPECT_EQ(reinterpret_cast<const char*>(w.data) + 204, bytes.data() + bytes.size());
  }
}

TEST(Gguf, HonoursItsAlignment) {
  for (const std::uint32_t n : {1u, 8u, 64u, 4096u}) {
    GgufBytes f;
    f.key("general.alignment", kU32, bytes_of(n)).tensor("a", {1}, 24, 0).tensor("b", {1}, 24, n);
    f.data = std::string(n, 'a') + "b";
    const std::string bytes = f.bytes(n);
    const GgufContents c = parse(bytes);
    EXPECT_EQ(c.tensors[1].view.data - c.tensors[0].view.data, static_cast<std::ptrdiff_t>(n));
  }
}

TEST(Gguf, KnowsTheTypesByNumber) {
  const std::vector<std::pair<std::uint32_t, DType>> types = {
      {0, DType::f32},     {1, DType::f16},     {2, DType::q4_0},   {3, DType::q4_1},
      {6, DType::q5_0},    {7, DType::q5_1},    {8, DType::q8_0},   {10, DType::q2_k},
      {11, DType::q3_k},   {12, DType::q4_k},   {13, DType::q5_k},  {14, DType::q6_k},
      {20, DType::iq4_nl}, {23, DType::iq4_xs}, {39, DType::mxfp4}, {24, DType::i8},
      {25, DType::i16},    {26, DType::i32},    {27, DType::i64},   {28, DType::f64},
      {30, DType::bf16}};
  for (const auto& [number, dtype] : types) {
    GgufBytes f;
    f.tensor("t", {256, 2}, number, 0);
    f.data.assign(static_cast<std::size_t>(2 * row_bytes(dtype, 256)), 'x');
    const GgufContents c = parse(f);
    EXPECT_EQ(c.tensors[0].view.dtype, dtype) << number;
    EXPECT_EQ(gguf_type_number(dtype), number);
    f.data.pop_back();
    EXPECT_THAT(refusal(f), HasSubstr("cut off: tensor t")) << number;
  }
  EXPECT_EQ(gguf_type_number(DType::f8_e4m3), std::nullopt);
}

// --- what is wrong -------------------------------------------------------------------------------

TEST(Gguf, RefusesWhatIsNoGguf) {
  EXPECT_THAT(refusal(""), HasSubstr("not a GGUF file"));
  EXPECT_THAT(refusal("GGU"), HasSubstr("not a GGUF file"));
  EXPECT_THAT(refusal("PK\3\4 and more bytes than a header has"), HasSubstr("not a GGUF file"));
  EXPECT_THAT(refusal(std::string("GGUF\3\0\0\0", 8)), HasSubstr("bytes are left"));
  GgufBytes f = small_file();
  for (const std::uint32_t version : {0u, 1u, 4u}) {
    f.version = version;
    EXPECT_THAT(refusal(f, ErrorCode::kUnsupported),
                HasSubstr("GGUF version " + std::to_string(version)));
  }
  f.version = 3u << 24;
  EXPECT_THAT(refusal(f, ErrorCode::kUnsupported), HasSubstr("big-endian"));
}

TEST(Gguf, F07abLengthsBeyondTheFileAreRefusedByName) {
  std::string huge =
      "GGUF" + bytes_of(3u) + bytes_of<std::uint64_t>(0) + bytes_of<std::uint64_t>(1);
  huge += bytes_of<std::uint64_t>(0xFFFFFFFFFFFFFFF0);
  EXPECT_THAT(refusal(huge), HasSubstr("bytes are left"));  // nothing but the length
  EXPECT_THAT(refusal(huge + std::string(64, 'k')),
              AllOf(HasSubstr("key 1 of 1"), HasSubstr("18446744073709551600 bytes")));
  const std::uint64_t wraps = (std::uint64_t{1} << 61) + 1;  // times 8 is 8
  for (const std::uint32_t type : {kU64, kF64, kString}) {
    EXPECT_THAT(refusal(one_key("k.wraps", kArray,
                                bytes_of(type) + bytes_of(wraps) + std::string(64, 'x'))),
                AllOf(HasSubstr("k.wraps"), HasSubstr("2305843009213693953 items")));
  }
  EXPECT_THAT(refusal(one_key("k.text", kString, bytes_of(~std::uint64_t{0}) + "abc")),
              HasSubstr("k.text"));
  GgufBytes f = small_file();
  f.n_keys = ~std::uint64_t{0};
  EXPECT_THAT(refusal(f), HasSubstr("18446744073709551615 items"));
  f = small_file();
  f.n_tensors = std::uint64_t{1} << 62;
  EXPECT_THAT(refusal(f), HasSubstr("4611686018427387904 items"));
  EXPECT_THAT(refusal(GgufBytes().text(std::string(65536, 'k'), "v")), HasSubstr("65536 bytes"));
}

TEST(Gguf, F07cVocabulariesOfTheWrongTypeAreRefusedByName) {
  for (const char* key :
       {"tokenizer.ggml.scores", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
    EXPECT_THAT(refusal(GgufBytes().array(key, kU8, std::vector<std::uint8_t>(3, 1))),
                AllOf(HasSubstr(key), HasSubstr("is integers")));
  }
  EXPECT_THAT(refusal(GgufBytes().array("tokenizer.ggml.token_type", kF32, std::vector<float>{1})),
              AllOf(HasSubstr("tokenizer.ggml.token_type"), HasSubstr("is floats")));
  EXPECT_THAT(refusal(one_key("tokenizer.ggml.scores", kF32, bytes_of(1.f))), HasSubstr("a float"));
}

TEST(Gguf, F07dNothingIsAllocatedByBlockCount) {
  const auto m =
      parse(one_key("llama.block_count", kU64, bytes_of<std::uint64_t>(INT64_MAX))).metadata;
  EXPECT_EQ(m.get_int("llama.block_count"), INT64_MAX);
}

TEST(Gguf, F07eWrongAlignmentsAreRefusedByName) {
  for (const std::uint32_t n : {0u, 3u, 24u}) {
    EXPECT_THAT(refusal(one_key("general.alignment", kU32, bytes_of(n))),
                AllOf(HasSubstr("general.alignment"), HasSubstr("power of two")));
  }
  for (const std::uint32_t type : {kI32, kF32}) {
    EXPECT_THAT(refusal(one_key("general.alignment", type, bytes_of(32))),
                AllOf(HasSubstr("general.alignment"), HasSubstr("unsigned integer of 32 bits")));
  }
  EXPECT_THAT(refusal(GgufBytes().text("general.alignment", "32")), HasSubstr("general.alignment"));
}

TEST(Gguf, F07fArraysOfArraysAreRefusedHoweverDeep) {
  std::string nested;
  for (int depth = 0; depth < 10'000; ++depth)
    nested += bytes_of<std::uint32_t>(kArray) + bytes_of<std::uint64_t>(1);
  EXPECT_THAT(refusal(one_key("deep", kArray, nested)),
              AllOf(HasSubstr("deep"), HasSubstr("array of arrays")));
}

TEST(Gguf, RefusesValuesThatMeanNothing) {
  EXPECT_THAT(refusal(one_key("k", 13, bytes_of(0.0))), HasSubstr("k: a value of unknown type 13"));
  EXPECT_THAT(refusal(one_key("k", kArray, bytes_of(99u) + bytes_of<std::uint64_t>(0))),
              HasSubstr("k: an array of unknown type 99"));
  EXPECT_THAT(refusal(one_key("k", kBool, bytes_of<char>(2))), HasSubstr("k: a boolean of 2"));
  EXPECT_THAT(refusal(GgufBytes().array("k", kBool, std::vector<std::uint8_t>{0, 7})),
              HasSubstr("k: a boolean of 7"));
  EXPECT_THAT(refusal(one_key("k", kU64, bytes_of(std::uint64_t{1} << 63))), HasSubstr("k: 9223"));
  EXPECT_THAT(refusal(GgufBytes().array("k", kU64, std::vector<std::uint64_t>{1, ~0ull})),
              HasSubstr("k: 1844"));
  EXPECT_THAT(refusal(GgufBytes().text("k", "1").text("k", "2")),
              HasSubstr("k: the key is there twice"));
}

TEST(Gguf, F07gAnHonestVocabularyIsReadWhole) {
  std::vector<std::string> tokens;
  for (int i = 0; i < 150'000; ++i) tokens.push_back("token" + std::to_string(i));
  GgufBytes f;
  f.array("tokenizer.ggml.tokens", kString, tokens);
  f.array("tokenizer.ggml.scores", kF32, std::vector<float>(tokens.size(), -1));
  const GgufMetadata m = parse(f).metadata;
  EXPECT_EQ(*m.get_strings("tokenizer.ggml.tokens"), tokens);
  EXPECT_EQ(m.get_floats("tokenizer.ggml.scores")->size(), tokens.size());
}

TEST(Gguf, RefusesHeadersThatWouldExhaustMemory) {
  // Bytes become 64-bit integers, so that an array of 1 GiB would take 8; the file is a hole.
  const TempDir dir;
  const std::string array = gguf_array(kU8, std::uint64_t{1} << 30, "");
  const auto path = dir.write("x.gguf", one_key("k", kArray, array).bytes());
  std::filesystem::resize_file(path, (std::uintmax_t{1} << 30) + 4096);
  const MappedFile file = MappedFile::open(path);
  try {
    parse_gguf(file.bytes(), "x.gguf");
    ADD_FAILURE() << "taken, expected a refusal";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("k: 1073741824 items"), HasSubstr("may take 268435456")));
  }
}

TEST(Gguf, KeepsMessagesShort) {
  const std::string name(60'000, 'n');
  EXPECT_LT(refusal(one_key(name, 13, "")).size(), 400u);
  EXPECT_LT(refusal(GgufBytes().tensor(name, {4}, 0, 1 << 20)).size(), 400u);
}

GgufBytes one_tensor(const std::vector<std::uint64_t>& ne, std::uint32_t type,
                     std::uint64_t offset) {
  GgufBytes f;
  f.tensor("t", ne, type, offset).data = std::string(4096, 'x');
  return f;
}

TEST(Gguf, RefusesShapesThatCannotBe) {
  EXPECT_THAT(refusal(one_tensor({}, 0, 0)), HasSubstr("tensor t: 0 dimensions, expected 1 to 4"));
  EXPECT_THAT(refusal(one_tensor({1, 1, 1, 1, 1}, 0, 0)), HasSubstr("tensor t: 5 dimensions"));
  GgufBytes f;
  f.tensors = text_of("t") + bytes_of(~0u) + std::string(64, '\0');
  f.n_tensors = 1;
  EXPECT_THAT(refusal(f), HasSubstr("tensor t: 4294967295 dimensions"));
  EXPECT_THAT(refusal(one_tensor({~std::uint64_t{0}}, 0, 0)), HasSubstr("tensor t: 1844"));
  const std::uint64_t big = std::uint64_t{1} << 32;
  EXPECT_THAT(refusal(one_tensor({big, big}, 0, 0)), HasSubstr("tensor t: more than 2^63 bytes"));
  EXPECT_THAT(refusal(one_tensor({big, 1u << 30}, 0, 0)), HasSubstr("more than 2^63 bytes"));
  EXPECT_THAT(refusal(one_tensor({big, big, big, big}, 24, 0)), HasSubstr("more than 2^63 bytes"));
  EXPECT_THAT(refusal(one_tensor({33}, 8, 0)), HasSubstr("tensor t: rows of 33 values"));
  EXPECT_THAT(refusal(one_tensor({32, 8}, 12, 0)), HasSubstr("blocks of 256 q4_k"));
}

TEST(Gguf, RefusesTypesByName) {
  EXPECT_THAT(refusal(one_tensor({256}, 21, 0), ErrorCode::kUnsupported),
              HasSubstr("tensor t: type 21 (IQ3_S)"));
  EXPECT_THAT(refusal(one_tensor({256}, 40, 0), ErrorCode::kUnsupported), HasSubstr("NVFP4"));
  EXPECT_THAT(refusal(one_tensor({256}, 4'000'000'000, 0), ErrorCode::kUnsupported),
              HasSubstr("tensor t: type 4000000000 (unknown)"));
}

TEST(Gguf, RefusesDataOutsideTheFile) {
  EXPECT_THAT(refusal(one_tensor({1025}, 0, 0)),
              HasSubstr("cut off: tensor t needs bytes 64..4164, the file has 4160"));
  EXPECT_THAT(refusal(one_tensor({4}, 0, 4096)),
              HasSubstr("cut off: tensor t needs bytes 4160..4176, the file has 4160"));
  EXPECT_THAT(refusal(one_tensor({4}, 0, 8)), HasSubstr("tensor t: its offset 8 is no multiple"));
  EXPECT_THAT(refusal(one_tensor({4}, 0, INT64_MAX - 31)), HasSubstr("ends beyond 2^63"));
  EXPECT_THAT(refusal(one_tensor({4}, 0, ~std::uint64_t{31})), HasSubstr("beyond 63 bits"));
  EXPECT_THAT(refusal(one_tensor({std::uint64_t{1} << 60}, 0, std::uint64_t{1} << 62)),
              HasSubstr("ends beyond 2^63"));
}

TEST(Gguf, RefusesTensorsThatShareBytes) {
  GgufBytes f = one_tensor({9}, 0, 0);  // 36 bytes, so the next may begin at 64
  f.tensor("u", {4}, 0, 32);
  EXPECT_THAT(refusal(f), HasSubstr("tensors t and u share bytes"));
  f = one_tensor({4}, 0, 64);
  f.tensor("u", {1024}, 0, 0);  // described in another order than they lie
  EXPECT_THAT(refusal(f), HasSubstr("tensors u and t share bytes"));
  f = one_tensor({4}, 0, 32);
  f.tensor("u", {4}, 0, 0);
  EXPECT_EQ(parse(f).tensors.size(), 2u);
}

// --- damage --------------------------------------------------------------------------------------

TEST(Gguf, RefusesAFileCutOffAnywhere) {
  const std::string whole = small_file().bytes();
  EXPECT_EQ(parse(whole).tensors.size(), 2u);
  for (std::size_t n = 0; n < whole.size(); ++n) {
    SCOPED_TRACE(n);
    const std::string cut(whole.data(), n);  // its own allocation: a sanitizer sees a read beyond
    EXPECT_THAT(refusal(cut), testing::Not(IsEmpty()));
  }
}

/// Touches all that a taken file gives.
std::size_t use(const GgufContents& c) {
  std::size_t sum = c.metadata.values.size();
  for (const TensorEntry& t : c.tensors) {
    for (Index i = 0; i < t.view.n_bytes; ++i) sum += static_cast<std::size_t>(t.view.data[i]);
  }
  return sum;
}

TEST(Gguf, SurvivesDamage) {
  const std::string whole = small_file().bytes();
  int refused = 0;
  constexpr int kSeeds = 500;
  for (int seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    const Philox random(static_cast<std::uint64_t>(seed));
    std::string bytes = whole;
    const std::uint64_t n_edits = 1 + random.below(6, 0);
    for (std::uint64_t edit = 1; edit <= n_edits; ++edit) {
      const auto at = static_cast<std::size_t>(random.below(whole.size(), 3 * edit));
      const auto value = static_cast<char>(random.below(256, 3 * edit + 1));
      bytes[at] = random.below(2, 3 * edit + 2) == 0 ? value : '\xFF';
    }
    try {
      EXPECT_GT(use(parse(bytes)), 0u);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, kSeeds / 4);
  EXPECT_LT(refused, kSeeds) << "damage inside the data is not to be seen";
}

}  // namespace
}  // namespace kogia
