#include "tensor/dtype.h"

#include <gtest/gtest.h>

namespace kogia {
namespace {

TEST(DType, NamesAreReadBackInAnyCase) {
  for (int i = 0; i <= static_cast<int>(DType::mxfp4); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(name(dtype)), dtype) << name(dtype);
  }
  EXPECT_EQ(parse_dtype("Q4_K"), DType::q4_k);
  EXPECT_EQ(parse_dtype("BF16"), DType::bf16);
  EXPECT_EQ(parse_dtype("bf1"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
}

TEST(DType, RowsAreWholeBlocks) {
  EXPECT_EQ(row_bytes(DType::f32, 7), 28);
  EXPECT_EQ(row_bytes(DType::q8_0, 64), 68);
  EXPECT_EQ(row_bytes(DType::q4_k, 512), 288);
  EXPECT_EQ(row_bytes(DType::q6_k, 256), 210);
  EXPECT_EQ(row_bytes(DType::iq4_nl, 64), 36);
  EXPECT_EQ(row_bytes(DType::iq4_xs, 256), 136);
  EXPECT_EQ(row_bytes(DType::mxfp4, 64), 34);
  EXPECT_EQ(row_bytes(DType::q4_0, 0), 0);
  EXPECT_DEATH(row_bytes(DType::q4_0, 33), "block_values");
}

}  // namespace
}  // namespace kogia
