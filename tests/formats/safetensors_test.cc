// What a safetensors file may be: cases F01 and F03, and the damage of untrusted files.

#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "safetensors_bytes.h"

namespace kogia {
namespace {

using test::header_length;
using test::safetensors;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<TensorEntry> parse(std::string_view bytes) {
  return parse_safetensors(test::as_bytes(bytes), "m.safetensors");
}

struct Refusal {
  ErrorCode code = ErrorCode::kUsage;
  std::string message;  // "" if nothing was thrown
};
Refusal refusal(std::string_view bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("m.safetensors: "));
    return {e.code(), e.what()};
  }
  return {};
}
/// The message about a header of this text over `n_data` bytes.
std::string refusal_of(std::string_view header, std::size_t n_data = 0) {
  return refusal(safetensors(header, n_data)).message;
}

TEST(Safetensors, GivesNamesTypesShapesAndBytes) {
  const std::string file = safetensors(
      R"({"__metadata__": {"format": "pt"},
          "w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
          "b": {"data_offsets": [12, 20], "shape": [2], "dtype": "F32"}})",
      20);
  const auto tensors = parse(file);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors[0].name, "w");
  EXPECT_EQ(tensors[0].file, "m.safetensors");
  EXPECT_EQ(tensors[0].view.dtype, DType::bf16);
  EXPECT_THAT(tensors[0].view.shape, ElementsAre(2, 3));
  EXPECT_EQ(tensors[0].view.n_bytes, 12);
  EXPECT_EQ(tensors[0].view.data[0], std::byte{0});
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[1].view.data[0], std::byte{12});
}

TEST(Safetensors, KnowsTheThirteenTypes) {
  const std::pair<const char*, DType> kTypes[] = {
      {"F64", DType::f64},         {"F32", DType::f32},         {"F16", DType::f16},
      {"BF16", DType::bf16},       {"F8_E4M3", DType::f8_e4m3}, {"F8_E5M2", DType::f8_e5m2},
      {"F8_E8M0", DType::f8_e8m0}, {"I64", DType::i64},         {"I32", DType::i32},
      {"I16", DType::i16},         {"I8", DType::i8},           {"U8", DType::u8},
      {"BOOL", DType::boolean}};
  for (const auto& [text, dtype] : kTypes) {
    const auto n = static_cast<std::size_t>(3 * info(dtype).block_bytes);
    const auto tensors = parse(safetensors(
        fmt::format(R"({{"t":{{"dtype":"{}","shape":[3],"data_offsets":[0,{}]}}}})", text, n), n));
    EXPECT_EQ(tensors.at(0).view.dtype, dtype) << text;
  }
  for (const char* text : {"F4", "F6_E2M3", "U16", "U32", "U64", "C64", "bf16", "Q8_0", ""}) {
    const auto [code, message] = refusal(safetensors(
        fmt::format(R"({{"t":{{"dtype":"{}","shape":[0],"data_offsets":[0,0]}}}})", text), 0));
    EXPECT_EQ(code, ErrorCode::kUnsupported) << text;
    EXPECT_THAT(message, HasSubstr(fmt::format("tensor t, dtype: unknown type {}", text)));
  }
}

// F01: lengths that promise more than there is.
TEST(Safetensors, F01HeaderLengths) {
  EXPECT_THAT(refusal("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F").message,
              HasSubstr("not a safetensors file"));
  EXPECT_THAT(refusal(header_length(60) + "{" + std::string(19, ' ')).message,
              HasSubstr("cut off: the header needs 68 bytes, the file has 28"));
  EXPECT_THAT(refusal(std::string_view("PK\x03\x04\x14\0\0\0\x08\0 a zip file", 21)).message,
              HasSubstr("not a safetensors file"));
  EXPECT_THAT(refusal(std::string(7, '\x01')).message, HasSubstr("cut off: 7 bytes"));
  EXPECT_THAT(refusal("").message, HasSubstr("cut off: 0 bytes"));
  EXPECT_THAT(parse(safetensors("{}", 0)), IsEmpty());
}

TEST(Safetensors, F01AHeaderBeyondTheCapIsRefusedNamingTheCap) {
  std::string header(132'095'296, ' ');
  header[0] = '{';
  header[1] = '}';
  const auto [code, message] = refusal(safetensors(header, 0));
  EXPECT_EQ(code, ErrorCode::kUnsupported);
  EXPECT_THAT(message, HasSubstr("the header is 132095296 bytes, more than the cap of 100000000"));
}

// F03: data that belongs to two tensors or to none.
TEST(Safetensors, F03RefusesOverlapsHolesTrailingBytesAndDoubleNames) {
  const auto two = [](int a0, int a1, int b0, int b1) {
    return fmt::format(R"({{"a":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}},)"
                       R"("b":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}}})",
                       a0, a1, b0, b1);
  };
  ASSERT_EQ(refusal_of(two(0, 4, 4, 8), 8), "");
  EXPECT_THAT(refusal_of(two(0, 4, 0, 4), 4), HasSubstr("overlaps"));
  EXPECT_THAT(refusal_of(two(0, 4, 2, 6), 6), HasSubstr("overlaps"));
  EXPECT_THAT(refusal_of(two(0, 4, 8, 12), 12), HasSubstr("tensor b begins at byte 8"));
  EXPECT_THAT(refusal_of(two(0, 4, 8, 12), 12), HasSubstr("hole"));
  EXPECT_THAT(refusal_of(two(1, 5, 5, 9), 9), HasSubstr("hole"));
  EXPECT_THAT(refusal_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 7),
              HasSubstr("3 bytes of data after the last tensor"));
  EXPECT_THAT(refusal_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                         R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                         8),
              HasSubstr("tensor a is described twice"));
  EXPECT_THAT(refusal_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})"),
              HasSubstr("cut off: tensor a needs bytes 0..4"));
}

TEST(Safetensors, F03AcceptsLegalOddities) {
  const auto empty = parse(safetensors(R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},)"
                                       R"("b":{"dtype":"F32","shape":[5,0],"data_offsets":[4,4]},)"
                                       R"("c":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                                       4));
  ASSERT_EQ(empty.size(), 3u);
  EXPECT_EQ(empty[0].view.n_values(), 0);
  EXPECT_EQ(empty[1].view.n_values(), 0);
  EXPECT_THAT(empty[2].view.shape, IsEmpty());
  EXPECT_EQ(empty[2].view.n_values(), 1);

  const auto padded =
      parse(safetensors(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}          )", 1));
  EXPECT_EQ(padded.size(), 1u);

  const std::string file =  // the views point into it
      safetensors(R"({"z":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},)"
                  R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                  3);
  const auto backwards = parse(file);
  EXPECT_EQ(backwards.at(0).name, "z");
  EXPECT_EQ(backwards.at(0).view.data[0], std::byte{1});
  EXPECT_EQ(backwards.at(1).view.data[0], std::byte{0});
}

TEST(Safetensors, F03RefusesMetadataThatIsNotText) {
  EXPECT_EQ(refusal_of(R"({"__metadata__": {}})"), "");
  EXPECT_EQ(refusal_of(R"({"__metadata__": {"a": "b", "dtype": "c"}})"), "");
  for (const char* value : {"3", "-3", "2.5", "null", "true", "[]", "{}", "[\"x\"]"}) {
    EXPECT_THAT(refusal_of(fmt::format(R"({{"__metadata__": {{"a": {}}}}})", value)),
                HasSubstr("__metadata__"))
        << value;
    if (std::string_view(value) == "{}") continue;  // legal: no metadata
    EXPECT_THAT(refusal_of(fmt::format(R"({{"__metadata__": {}}})", value)),
                HasSubstr("__metadata__"))
        << value;
  }
}

TEST(Safetensors, RefusesSizesThatDoNotFitOrOverflow) {
  const auto one = [](std::string_view shape, std::string_view offsets) {
    return fmt::format(R"({{"a":{{"dtype":"F32","shape":{},"data_offsets":{}}}}})", shape, offsets);
  };
  EXPECT_THAT(refusal_of(one("[2]", "[0,4]"), 4),
              HasSubstr("tensor a: bytes 0..4, but its shape and type need 8"));
  EXPECT_THAT(refusal_of(one("[1]", "[4,0]"), 4), HasSubstr("run backwards"));
  // 2^62 · 4 values wrap to 0 in 64 bits; 2^62 values of 4 bytes do too.
  EXPECT_THAT(refusal_of(one("[4611686018427387904,4]", "[0,0]")), HasSubstr("more than 2^63"));
  EXPECT_THAT(refusal_of(one("[4611686018427387904]", "[0,0]")), HasSubstr("more than 2^63"));
  EXPECT_THAT(refusal_of(one("[1]", "[9223372036854775804,9223372036854775808]")),
              HasSubstr("tensor a, data_offsets"));
  EXPECT_THAT(refusal_of(one("[1]", "[9223372036854775800,9223372036854775804]"), 4),
              HasSubstr("tensor a"));
  for (const char* shape : {"[-1]", "[1.0]", "[1e3]", "[18446744073709551616]", "[\"1\"]", "[[1]]",
                            "[null]", "1", "{}", "[true]", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"}) {
    EXPECT_THAT(refusal_of(one(shape, "[0,4]"), 4), HasSubstr("tensor a, shape")) << shape;
  }
  for (const char* offsets : {"[]", "[0]", "[0,4,4]", "[-0,4]", "0", "\"0,4\"", "[0,[4]]"}) {
    EXPECT_THAT(refusal_of(one("[1]", offsets), 4), HasSubstr("tensor a, data_offsets")) << offsets;
  }
}

TEST(Safetensors, RefusesMissingDoubleAndUnknownFields) {
  EXPECT_THAT(refusal_of(R"({"a":{"shape":[0],"data_offsets":[0,0]}})"),
              HasSubstr("tensor a has no dtype"));
  EXPECT_THAT(refusal_of(R"({"a":{"dtype":"U8","data_offsets":[0,0]}})"),
              HasSubstr("tensor a has no shape"));
  EXPECT_THAT(refusal_of(R"({"a":{"dtype":"U8","shape":[0]}})"),
              HasSubstr("tensor a has no data_offsets"));
  EXPECT_THAT(refusal_of(R"({"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}})"),
              HasSubstr("given twice"));
  EXPECT_THAT(refusal_of(R"({"a":{"color":"red"}})"), HasSubstr("unknown field color"));
}

TEST(Safetensors, RefusesHeadersOfAnotherForm) {
  for (const char* header :
       {"{", "{}x", "{\"a\":1}", "{\"a\":\"b\"}", "{\"a\":[]}", "{\"a\":null}", "{\"a\":{}}",
        "{\"a\":{\"dtype\":{}}}", "{\"a\":{\"dtype\":[\"U8\"]}}", "{{}}", "{\"\xff\":{}}"}) {
    EXPECT_NE(refusal_of(header), "") << header;
  }
  for (const char* header : {"[]", "3 ", "  {}"}) {
    EXPECT_THAT(refusal_of(header), HasSubstr("not a safetensors file")) << header;
  }
  EXPECT_THAT(refusal_of("{" + std::string(1'000'000, '[')), HasSubstr("not JSON"));
  EXPECT_NE(refusal_of("{\"a\":" + std::string(1'000'000, '[')), "");
  EXPECT_NE(refusal_of("{\"__metadata__\":{\"a\":" + std::string(1'000'000, '{')), "");
}

TEST(Safetensors, NothingHidesBehindAZeroByte) {
  EXPECT_THAT(refusal_of(std::string_view("{}\0{\"a\":1}", 10)), HasSubstr("a zero byte"));
}

TEST(Safetensors, MessagesStayShort) {
  EXPECT_LT(refusal_of("{\"" + std::string(100'000, 'w')).size(), 400u);
}

const std::string& small_file() {
  static const std::string bytes = safetensors(
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("s":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[12,15]}})",
      15);
  return bytes;
}

/// Every byte that a view promises can be read (AddressSanitizer looks on).
std::uint64_t touch(const std::vector<TensorEntry>& tensors) {
  std::uint64_t sum = 0;
  for (const TensorEntry& t : tensors) {
    for (Index i = 0; i < t.view.n_bytes; ++i) sum += std::to_integer<unsigned>(t.view.data[i]);
  }
  return sum;
}

TEST(Safetensors, RefusesEachCutOffCopy) {
  ASSERT_EQ(touch(parse(small_file())), 105u);
  for (std::size_t n = 0; n < small_file().size(); ++n) {
    const std::string exact = small_file().substr(0, n);
    EXPECT_THAT(refusal(exact).message, HasSubstr("cut off")) << n;
  }
}

TEST(Safetensors, SurvivesDamagedBytes) {
  int refused = 0;
  const std::size_t n_header = small_file().size() - 15;
  for (std::uint64_t attempt = 0; attempt < 500; ++attempt) {
    const Philox random(20261125, attempt);
    std::string bytes = small_file();
    const std::size_t n_edits = 1 + random.below(3, 0);
    for (std::size_t edit = 0; edit < n_edits; ++edit) {
      bytes[random.below(n_header, 2 * edit + 1)] =
          static_cast<char>(random.below(256, 2 * edit + 2));
    }
    try {
      touch(parse(bytes));
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 400);  // the rest renamed a tensor or changed metadata
  EXPECT_LT(refused, 500);
}

TEST(SafetensorsIndex, GivesTheFileOfEachTensor) {
  const auto map = parse_safetensors_index(
      R"({"metadata": {"total_size": 3, "x": [null, {"y": -1.5}]},
          "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "x.safetensors"}})",
      "index.json");
  EXPECT_THAT(map, ElementsAre(testing::Pair("a", "model-00001-of-00002.safetensors"),
                               testing::Pair("b", "x.safetensors")));
}

std::string index_refusal(std::string_view text) {
  try {
    parse_safetensors_index(text, "index.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalid);
    return e.what();
  }
  return "";
}

TEST(SafetensorsIndex, RefusesFileNamesThatLeaveTheFolder) {
  for (const char* name : {"../w.safetensors", "/etc/w.safetensors", "sub/w.safetensors",
                           "..\\\\w.safetensors", "..", "", "w.bin", "w\\u0000.safetensors"}) {
    EXPECT_THAT(index_refusal(fmt::format(R"({{"weight_map": {{"a": "{}"}}}})", name)),
                HasSubstr("expected a plain file name ending in .safetensors"))
        << name;
  }
}

TEST(SafetensorsIndex, RefusesWhatIsNotAMap) {
  for (const char* text :
       {"", "[]", "3", "\"x\"", "{}", "{\"weight_map\": {}}", "{\"weight_map\": null}",
        "{\"weight_map\": 3}", "{\"weight_map\": [\"w.safetensors\"]}",
        "{\"weight_map\": {\"a\": 3}}", "{\"weight_map\": {\"a\": [\"w.safetensors\"]}}",
        "{\"weight_map\": {\"a\": {}}}", "{\"weight_map\": \"w.safetensors\"}",
        "[{\"weight_map\": {\"a\": \"w.safetensors\"}}]"}) {
    EXPECT_THAT(index_refusal(text), HasSubstr("index.json: ")) << text;
  }
  EXPECT_THAT(index_refusal(R"({"weight_map": {"a": "w.safetensors", "a": "v.safetensors"}})"),
              HasSubstr("names a twice"));
  EXPECT_NE(index_refusal("{\"metadata\":" + std::string(1'000'000, '[')), "");
}

}  // namespace
}  // namespace kogia
