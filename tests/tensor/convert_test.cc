// The number formats against torch and gguf (tools/golden/make_dtype_fixtures.py).

#include "tensor/convert.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/random.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

class DtypeFixture {
 public:
  DtypeFixture() : file_(MappedFile::open(folder() + "/dtypes.bin")) {
    std::ifstream list(folder() + "/dtypes.txt");
    std::string name;
    std::size_t offset = 0, n = 0;
    while (list >> name >> offset >> n) arrays_[name] = file_.bytes().subspan(offset, n);
  }
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const auto bytes = arrays_.at(name);
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  static std::string folder() { return KOGIA_TEST_DATA "/tensor"; }
  MappedFile file_;
  std::map<std::string, std::span<const std::byte>> arrays_;
};

bool same(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

void expect_same(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    ASSERT_TRUE(same(a[i], b[i])) << i << ": " << a[i] << " " << b[i];
}

TEST(Convert, All256CodesOfTheByteFormatsDecodeAsInTorch) {
  const DtypeFixture fixture;
  const auto e4m3 = fixture.get<float>("e4m3"), e5m2 = fixture.get<float>("e5m2"),
             e8m0 = fixture.get<float>("e8m0");
  for (int i = 0; i < 256; ++i) {
    const auto b = static_cast<std::uint8_t>(i);
    const auto at = static_cast<std::size_t>(i);
    EXPECT_TRUE(same(e4m3_to_f32(b), e4m3[at])) << i;
    EXPECT_TRUE(same(e5m2_to_f32(b), e5m2[at])) << i;
    EXPECT_TRUE(same(e8m0_to_f32(b), e8m0[at])) << i;
  }
}

TEST(Convert, FloatsRoundAsInTorch) {
  const DtypeFixture fixture;
  const auto x = fixture.get<float>("floats");
  const auto bf16 = fixture.get<std::uint16_t>("floats_bf16"),
             f16 = fixture.get<std::uint16_t>("floats_f16");
  const auto e4m3 = fixture.get<std::uint8_t>("floats_e4m3"),
             e5m2 = fixture.get<std::uint8_t>("floats_e5m2");
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(f32_to_bf16(x[i]), bf16[i]) << x[i];
    EXPECT_EQ(f32_to_f16(x[i]), f16[i]) << x[i];
    EXPECT_EQ(f32_to_e4m3(x[i]), e4m3[i]) << x[i];
    EXPECT_EQ(f32_to_e5m2(x[i]), e5m2[i]) << x[i];
  }
}

TEST(Convert, EveryCodeSurvivesTheRoundTrip) {
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const auto h = static_cast<std::uint16_t>(i);
    const bool f16_nan = (h & 0x7C00) == 0x7C00 && (h & 0x3FF) != 0;
    const bool bf16_nan = (h & 0x7F80) == 0x7F80 && (h & 0x7F) != 0;
    if (f16_nan) {
      EXPECT_TRUE(std::isnan(f16_to_f32(h)));
    } else {
      EXPECT_EQ(f32_to_f16(f16_to_f32(h)), h);
    }
    if (bf16_nan) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(bf16_to_f32(h)))));
    } else {
      EXPECT_EQ(f32_to_bf16(bf16_to_f32(h)), h);
    }
  }
  for (int i = 0; i < 256; ++i) {
    const auto b = static_cast<std::uint8_t>(i);
    if (!std::isnan(e4m3_to_f32(b))) {
      EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(b)), b);
    }
    if (!std::isnan(e5m2_to_f32(b))) {
      EXPECT_EQ(f32_to_e5m2(e5m2_to_f32(b)), b);
    }
    if (b != 255) {
      EXPECT_EQ(f32_to_e8m0_up(e8m0_to_f32(b)), b);
    }
  }
}

TEST(Convert, F16MeansWhatItsFieldsSay) {
  for (int h = 0; h < 0x7C00; ++h) {
    const int exponent = h >> 10, mantissa = h & 0x3FF;
    const double value =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    ASSERT_EQ(static_cast<double>(f16_to_f32(static_cast<std::uint16_t>(h))), value);
  }
}

TEST(Convert, NanStaysNanAndKeepsItsSign) {
  const float nan = std::bit_cast<float>(0x7FC00000U), negative = std::bit_cast<float>(0xFF800001U);
  EXPECT_EQ(f32_to_e4m3(nan), 0x7F);
  EXPECT_EQ(f32_to_e4m3(negative), 0xFF);
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(negative)))) << "a NaN whose payload is cut off";
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(negative))));
  EXPECT_TRUE(std::isnan(e5m2_to_f32(f32_to_e5m2(nan))));
}

// cases N07: the scale is made a power of two first, then the codes are made with it.
TEST(Convert, PowerOfTwoScalesAreRoundedBeforeTheCodesAreMade) {
  const float block[] = {3.0F, 1.0F, -0.7F, 0.0F};
  const std::uint8_t scale = f32_to_e8m0_up(3.0F / 448);
  EXPECT_EQ(scale, 120) << "2^-7";
  const float expected_codes[] = {384, 128, -88, 0}, expected[] = {3.0F, 1.0F, -0.6875F, 0.0F};
  for (int i = 0; i < 4; ++i) {
    const float code = e4m3_to_f32(f32_to_e4m3(block[i] / e8m0_to_f32(scale)));
    EXPECT_EQ(code, expected_codes[i]);
    EXPECT_EQ(code * e8m0_to_f32(scale), expected[i]);
  }
}

TEST(Convert, E8m0RoundsUpAndNeverLeavesItsRange) {
  EXPECT_EQ(f32_to_e8m0_up(1.0F), 127);
  EXPECT_EQ(f32_to_e8m0_up(std::nextafterf(1.0F, 2.0F)), 128);
  EXPECT_EQ(f32_to_e8m0_up(std::nextafterf(1.0F, 0.0F)), 127);
  EXPECT_EQ(f32_to_e8m0_up(0x1p-149F), 0);
  EXPECT_EQ(f32_to_e8m0_up(std::nextafterf(0x1p-127F, 1.0F)), 1);
  EXPECT_EQ(f32_to_e8m0_up(3e38F), 254);
}

constexpr DType kBlocks[] = {DType::q4_0,   DType::q4_1,   DType::q5_0, DType::q5_1, DType::q8_0,
                             DType::q2_k,   DType::q3_k,   DType::q4_k, DType::q5_k, DType::q6_k,
                             DType::iq4_nl, DType::iq4_xs, DType::mxfp4};

TEST(GgufBlocks, RandomBlocksDecodeBitForBitAsInGguf) {
  const DtypeFixture fixture;
  for (const DType dtype : kBlocks) {
    SCOPED_TRACE(name(dtype));
    const auto raw = fixture.get<std::byte>(std::string(name(dtype)) + "_blocks");
    const auto expected = fixture.get<float>(std::string(name(dtype)) + "_values");
    std::vector<float> values(expected.size());
    ASSERT_EQ(row_bytes(dtype, static_cast<Index>(values.size())), static_cast<Index>(raw.size()));
    dequantize_row(dtype, raw.data(), values.data(), static_cast<Index>(values.size()));
    expect_same(values, expected);

    std::vector<std::byte> unaligned(raw.size() + 1);
    std::memcpy(unaligned.data() + 1, raw.data(), raw.size());
    std::vector<float> again(values.size());
    dequantize_row(dtype, unaligned.data() + 1, again.data(), static_cast<Index>(again.size()));
    expect_same(again, expected);
  }
}

TEST(GgufBlocks, SimpleFormatsEncodeBitForBitAsInGguf) {
  const DtypeFixture fixture;
  const auto weights = fixture.get<float>("weights");
  for (const DType dtype :
       {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::mxfp4}) {
    const auto expected = fixture.get<std::byte>(std::string(name(dtype)) + "_weights");
    std::vector<std::byte> raw(expected.size());
    quantize_row(dtype, weights.data(), raw.data(), static_cast<Index>(weights.size()));
    EXPECT_EQ(raw, expected) << name(dtype);
  }
}

double relative_rms_error(DType dtype, const std::vector<float>& x) {
  const auto n = static_cast<Index>(x.size());
  std::vector<std::byte> raw(static_cast<std::size_t>(row_bytes(dtype, n)));
  quantize_row(dtype, x.data(), raw.data(), n);
  std::vector<float> back(x.size());
  dequantize_row(dtype, raw.data(), back.data(), n);
  double error = 0, power = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(back[i]) - static_cast<double>(x[i]);
    error += d * d;
    power += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return std::sqrt(error / power);
}

TEST(GgufBlocks, NormalWeightsKeepTheirValueWithinTheFormat) {
  const Philox random(5);
  std::vector<float> x(256 * 16);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.02F * random.normal(i);
  EXPECT_LT(relative_rms_error(DType::q8_0, x), 0.007);
  EXPECT_LT(relative_rms_error(DType::q6_k, x), 0.022);
  EXPECT_LT(relative_rms_error(DType::q5_0, x), 0.05);
  EXPECT_LT(relative_rms_error(DType::q4_k, x), 0.08);
  EXPECT_LT(relative_rms_error(DType::q5_k, x), 0.04);
  EXPECT_LT(relative_rms_error(DType::iq4_nl, x), 0.09);
  EXPECT_LT(relative_rms_error(DType::iq4_xs, x), 0.09);
  EXPECT_LT(relative_rms_error(DType::mxfp4, x), 0.15);
  EXPECT_LT(relative_rms_error(DType::q4_0, x), 0.10);
}

TEST(GgufBlocks, DegenerateRowsEncodeToFiniteNumbers) {
  for (const DType dtype : {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                            DType::q4_k, DType::q6_k, DType::q5_k, DType::iq4_nl, DType::iq4_xs}) {
    for (const float value : {0.0F, 1.0F, -1.0F, 1e-30F, 3e4F}) {
      const std::vector<float> x(256, value);
      std::vector<std::byte> raw(static_cast<std::size_t>(row_bytes(dtype, 256)));
      quantize_row(dtype, x.data(), raw.data(), 256);
      std::vector<float> back(256);
      dequantize_row(dtype, raw.data(), back.data(), 256);
      for (const float y : back) {
        ASSERT_NEAR(y, value, 0.02F * std::fabs(value) + 1e-6F) << name(dtype) << " " << value;
      }
    }
    std::vector<float> bad(256, 1.0F);
    bad[3] = std::nanf("");
    bad[40] = INFINITY;
    std::vector<std::byte> raw(static_cast<std::size_t>(row_bytes(dtype, 256)));
    quantize_row(dtype, bad.data(), raw.data(), 256);  // garbage in, but no undefined behaviour
  }
}

TEST(GgufBlocks, SixBitScalesSurvivePacking) {
  const Philox random(6);
  for (std::uint64_t round = 0; round < 100; ++round) {
    ScaleMin sm;
    for (std::uint64_t i = 0; i < 8; ++i) {
      sm.scale[i] = static_cast<std::uint8_t>(random.below(64, round * 16 + i));
      sm.min[i] = static_cast<std::uint8_t>(random.below(64, round * 16 + 8 + i));
    }
    std::uint8_t packed[12];
    pack_scale_min(sm, packed);
    const ScaleMin back = unpack_scale_min(packed);
    EXPECT_EQ(std::memcmp(&sm, &back, sizeof sm), 0);
  }
}

TEST(GgufBlocks, WhatCannotBeDoneIsRefusedByName) {
  std::vector<float> x(256);
  std::vector<std::byte> raw(256);
  for (const DType dtype : {DType::q2_k, DType::q3_k, DType::i32, DType::f8_e8m0}) {
    try {
      quantize_row(dtype, x.data(), raw.data(), 256);
      ADD_FAILURE() << name(dtype);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_NE(std::string(error.what()).find(name(dtype)), std::string::npos);
    }
  }
  EXPECT_THROW(dequantize_row(DType::i64, raw.data(), x.data(), 8), Error);
}

}  // namespace
}  // namespace kogia
