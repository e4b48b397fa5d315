// The reference's matrix products against sums written out here: what every other instruction set
// is then held to must itself be right.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "device/device_testing.h"
#include "device/reference/matrix.h"
#include "tensor/convert.h"

namespace kogia::testing {
namespace {

/// A stored matrix, its scales, and its values.
struct Stored {
  MatrixSource source;
  std::vector<std::byte> bytes, scale;
  std::vector<float> values;  // [rows, cols]
};

Stored store(DType dtype, Index rows, Index cols, std::uint64_t seed) {
  Stored m;
  const auto x = random_floats(rows * cols, seed);
  m.bytes.resize(static_cast<std::size_t>(rows * row_bytes(dtype, cols)));
  m.values.resize(x.size());
  for (Index r = 0; r < rows; ++r) {
    std::byte* at = m.bytes.data() + r * row_bytes(dtype, cols);
    quantize_row(dtype, x.data() + r * cols, at, cols);
    dequantize_row(dtype, at, m.values.data() + r * cols, cols);
  }
  m.source = {.dtype = dtype, .rows = rows, .cols = cols, .data = m.bytes.data()};
  return m;
}

/// Gives an FP8 matrix scales of ragged blocks that begin `first_row` rows above it.
void add_scales(Stored& m, DType dtype, Index block_rows, Index block_cols, Index first_row) {
  const Index rows = ceil_div(first_row + m.source.rows, block_rows),
              cols = ceil_div(m.source.cols, block_cols);
  m.scale.resize(static_cast<std::size_t>(rows * cols * info(dtype).block_bytes));
  std::vector<float> scales;
  for (Index i = 0; i < rows * cols; ++i) {
    const auto code = static_cast<std::uint8_t>(120 + i * 5 % 13);
    const float value = e8m0_to_f32(code) * (dtype == DType::f8_e8m0 ? 1.0F : 1.25F);
    scales.push_back(value);
    if (dtype == DType::f8_e8m0) {
      m.scale[static_cast<std::size_t>(i)] = std::byte{code};
    } else {
      quantize_row(dtype, &value, m.scale.data() + i * info(dtype).block_bytes, 1);
    }
  }
  for (Index r = 0; r < m.source.rows; ++r) {
    for (Index c = 0; c < m.source.cols; ++c) {
      const Index at = (first_row + r) / block_rows * cols + c / block_cols;
      m.values[static_cast<std::size_t>(r * m.source.cols + c)] *=
          scales[static_cast<std::size_t>(at)];
    }
  }
  m.source.scale = m.scale.data();
  m.source.scale_dtype = dtype;
  m.source.scale_cols = cols;
  m.source.block_rows = block_rows;
  m.source.block_cols = block_cols;
  m.source.first_row = first_row;
}

std::vector<float> product(const std::vector<double>& x, const std::vector<float>& w, Index rows,
                           Index outs, Index cols) {
  std::vector<float> y;
  for (Index r = 0; r < rows; ++r) {
    for (Index o = 0; o < outs; ++o) {
      double sum = 0;
      for (Index c = 0; c < cols; ++c) {
        sum += x[static_cast<std::size_t>(r * cols + c)] *
               static_cast<double>(w[static_cast<std::size_t>(o * cols + c)]);
      }
      y.push_back(static_cast<float>(sum));
    }
  }
  return y;
}

std::vector<float> run_linear(const Matrix& w, const std::vector<float>& x, Index rows) {
  ThreadPool pool(2);
  std::vector<float> y(static_cast<std::size_t>(rows * w.rows()), -1);
  const LinearArgs args = {.x = x.data(),
                           .x_stride = w.cols(),
                           .w = &w,
                           .y = y.data(),
                           .y_stride = w.rows(),
                           .rows = rows};
  reference::linear({&args, 1}, pool);
  return y;
}

std::vector<double> as_doubles(const std::vector<float>& x) { return {x.begin(), x.end()}; }

TEST(ReferenceLinear, F32ComputeMultipliesTheStoredValues) {
  for (const DType dtype :
       {DType::f32, DType::bf16, DType::f16, DType::f8_e4m3, DType::q4_0, DType::q4_1, DType::q5_0,
        DType::q8_0, DType::q4_k, DType::q6_k, DType::iq4_nl, DType::iq4_xs, DType::mxfp4}) {
    SCOPED_TRACE(name(dtype));
    const Index cols = is_block(dtype) ? 512 : 65;
    const Stored m = store(dtype, 67, cols, /*seed=*/1);
    const auto w = reference::pack(m.source, {.compute = Compute::f32});
    EXPECT_EQ(w->n_bytes(), 67 * row_bytes(dtype, cols)) << "formats keep their size";
    for (const Index rows : {0, 1, 17, 33}) {
      const auto x = random_floats(rows * cols, /*seed=*/2);
      expect_near(run_linear(*w, x, rows), product(as_doubles(x), m.values, rows, 67, cols),
                  {.abs = 1e-6, .rel = 1e-6});
    }
  }
}

TEST(ReferenceLinear, Bf16ComputeRoundsTheActivationsOfBf16Files) {
  for (const DType dtype : {DType::bf16, DType::q4_1, DType::f8_e4m3, DType::f32}) {
    SCOPED_TRACE(name(dtype));
    const Stored m = store(dtype, 5, 256, /*seed=*/3);
    const auto w = reference::pack(m.source, {.compute = Compute::bf16});
    const auto x = random_floats(256, /*seed=*/4);
    auto rounded = as_doubles(x);
    if (dtype != DType::f32) {
      for (double& v : rounded) v = static_cast<double>(round_bf16(static_cast<float>(v)));
    }
    expect_near(run_linear(*w, x, 1), product(rounded, m.values, 1, 5, 256),
                {.abs = 1e-6, .rel = 1e-6});
  }
}

TEST(ReferenceLinear, Int8ComputeQuantisesEach32ColumnsByThemselves) {
  const Stored m = store(DType::q8_0, 3, 64, /*seed=*/5);
  const auto w = reference::pack(m.source, {.compute = Compute::int8});
  auto x = random_floats(64, /*seed=*/6);
  x[3] = 100;  // coarse steps for the first block, none for the second
  std::vector<double> rounded;
  for (std::size_t i = 0; i < 64; ++i) {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(i / 32 * 32);
    float top = 0;
    std::for_each(begin, begin + 32, [&](float v) { top = std::max(top, std::fabs(v)); });
    const double step = static_cast<double>(top / 127);
    rounded.push_back(std::nearbyint(static_cast<double>(x[i]) / step) * step);
  }
  expect_near(run_linear(*w, x, 1), product(rounded, m.values, 1, 3, 64), {.abs = 1e-5});
  const std::vector<float> zeros(64, 0.0F);
  for (const float y : run_linear(*w, zeros, 1)) EXPECT_EQ(y, 0);
}

TEST(ReferenceLinear, Fp8ComputeQuantisesEach128ColumnsToE4m3) {
  Stored m = store(DType::f8_e4m3, 4, 200, /*seed=*/7);  // the last block has 72 columns
  add_scales(m, DType::f32, 128, 128, 0);
  const auto w = reference::pack(m.source, {.compute = Compute::fp8});
  const auto x = random_floats(200, /*seed=*/8);
  std::vector<double> rounded;
  for (std::size_t i = 0; i < 200; ++i) {
    const std::size_t begin = i / 128 * 128;
    float top = 0;
    for (std::size_t j = begin; j < std::min<std::size_t>(200, begin + 128); ++j)
      top = std::max(top, std::fabs(x[j]));
    const float s = top / 448;
    rounded.push_back(static_cast<double>(e4m3_to_f32(f32_to_e4m3(x[i] / s))) *
                      static_cast<double>(s));
  }
  expect_near(run_linear(*w, x, 1), product(rounded, m.values, 1, 4, 200),
              {.abs = 1e-5, .rel = 1e-6});
}

TEST(ReferenceLinear, ScalesOfRaggedBlocksAndOfSlicesAreTheirTensors) {
  for (const DType scale : {DType::f32, DType::bf16, DType::f8_e8m0}) {
    for (const Index first_row : {0, 100, 128, 200}) {
      SCOPED_TRACE(::testing::Message() << name(scale) << " first_row " << first_row);
      Stored m = store(DType::f8_e4m3, 131, 300, /*seed=*/9);
      add_scales(m, scale, 128, 128, first_row);
      const auto w = reference::pack(m.source, {.compute = Compute::f32});
      const auto x = random_floats(2 * 300, /*seed=*/10);
      const auto expected = product(as_doubles(x), m.values, 2, 131, 300);
      m.bytes.clear(), m.scale.clear();  // the source may go away
      expect_near(run_linear(*w, x, 2), expected, {.abs = 1e-6, .rel = 1e-6});
    }
  }
}

TEST(ReferenceLinear, TransposedPackingMultipliesByTheTranspose) {
  for (const DType dtype : {DType::bf16, DType::q4_k, DType::f8_e4m3}) {
    Stored m = store(dtype, 70, 256, /*seed=*/11);
    if (dtype == DType::f8_e4m3) add_scales(m, DType::f32, 128, 128, 64);
    const auto w = reference::pack(m.source, {.compute = Compute::f32, .transpose = true});
    EXPECT_EQ(w->rows(), 256);
    EXPECT_EQ(w->cols(), 70);
    std::vector<float> transposed;
    for (std::size_t c = 0; c < 256; ++c) {
      for (std::size_t r = 0; r < 70; ++r) transposed.push_back(m.values[r * 256 + c]);
    }
    const auto x = random_floats(3 * 70, /*seed=*/12);
    expect_near(run_linear(*w, x, 3), product(as_doubles(x), transposed, 3, 256, 70),
                {.abs = 1e-6, .rel = 1e-6});
  }
}

TEST(ReferenceLinear, AddsBiasAndResidualAndKeepsToItsColumns) {
  const Stored m = store(DType::f32, 5, 9, /*seed=*/13);
  const auto w = reference::pack(m.source, {.compute = Compute::f32});
  const auto x = random_floats(2 * 11, /*seed=*/14), bias = random_floats(5, /*seed=*/15);
  auto y = random_floats(2 * 8, /*seed=*/16);
  const auto before = y;
  ThreadPool pool(1);
  const LinearArgs args = {.x = x.data(),
                           .x_stride = 11,
                           .w = w.get(),
                           .bias = bias.data(),
                           .residual = y.data(),
                           .y = y.data(),
                           .y_stride = 8,
                           .rows = 2};
  reference::linear({&args, 1}, pool);
  for (std::size_t r = 0; r < 2; ++r) {
    for (std::size_t o = 0; o < 8; ++o) {
      double expected = static_cast<double>(before[r * 8 + o]);
      if (o < 5) {
        expected += static_cast<double>(bias[o]);
        for (std::size_t c = 0; c < 9; ++c) {
          expected += static_cast<double>(x[r * 11 + c]) * static_cast<double>(m.values[o * 9 + c]);
        }
      }
      EXPECT_NEAR(static_cast<double>(y[r * 8 + o]), expected, 1e-6);
    }
  }
}

TEST(ReferenceLinear, WhatCannotBeMultipliedIsRefused) {
  const Stored plain = store(DType::bf16, 2, 32, 17), blocks = store(DType::q8_0, 2, 32, 18);
  EXPECT_THROW(reference::pack(plain.source, {.compute = Compute::int8}), Error);
  EXPECT_THROW(reference::pack(plain.source, {.compute = Compute::fp8}), Error);
  EXPECT_THROW(reference::pack(blocks.source, {.compute = Compute::fp8}), Error);
  MatrixSource integers = plain.source;
  integers.dtype = DType::i32;
  EXPECT_THROW(reference::pack(integers, {.compute = Compute::f32}), Error);
}

TEST(ReferenceEmbed, GivesTheStoredRows) {
  const Stored m = store(DType::q4_1, 50, 64, /*seed=*/19);
  ThreadPool pool(2);
  for (const auto& table :
       {reference::borrow(m.source, {}), reference::pack(m.source, {.compute = Compute::f32})}) {
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < 40; ++i) ids.push_back(i * 7 % 50);
    std::vector<float> y(40 * 64);
    reference::embed({.table = table.get(), .ids = ids, .y = y.data()}, pool);
    for (Index i = 0; i < 40; ++i) {
      EXPECT_TRUE(same_bits(row(y, i, 64), row(m.values, ids[static_cast<std::size_t>(i)], 64)));
    }
  }
}

}  // namespace
}  // namespace kogia::testing
