#pragma once
// Matrices in every format that a checkpoint may store.

#include <cstring>
#include <vector>

#include "device/device_testing.h"
#include "device/reference/matrix.h"
#include "tensor/convert.h"

namespace kogia::testing {

inline constexpr DType kFormats[] = {
    DType::f32,  DType::f16,  DType::bf16, DType::f8_e4m3, DType::f8_e5m2, DType::q4_0,
    DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,    DType::q2_k,    DType::q3_k,
    DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_nl,  DType::iq4_xs,  DType::mxfp4};
inline constexpr Compute kComputes[] = {Compute::f32, Compute::bf16, Compute::int16, Compute::int8,
                                        Compute::fp8};

/// A stored matrix of random bits that mean finite numbers, and what they mean.
struct Stored {
  MatrixSource source;
  std::vector<std::byte> bytes, scale;
  std::vector<float> values;
};

/// Some formats have no encoder: every code at random, the block's f16 scales given.
inline void fill_blocks(Stored& m, DType dtype, std::uint64_t seed) {
  const Philox random(seed);
  for (std::size_t i = 0; i < m.bytes.size(); ++i) {
    m.bytes[i] = static_cast<std::byte>(static_cast<int>(random.normal(i) * 100) & 255);
  }
  struct Halves {
    Index d, min;
  };
  const Halves at = dtype == DType::q2_k                           ? Halves{80, 82}
                    : dtype == DType::q3_k                         ? Halves{108, -1}
                    : dtype == DType::q6_k                         ? Halves{208, -1}
                    : dtype == DType::q4_k || dtype == DType::q5_k ? Halves{0, 2}
                    : dtype == DType::q4_1 || dtype == DType::q5_1 ? Halves{0, 2}
                                                                   : Halves{0, -1};
  const Index size = info(dtype).block_bytes;
  if (dtype == DType::mxfp4) {  // about as large
    for (std::size_t i = 0; i < m.bytes.size(); i += static_cast<std::size_t>(size)) {
      m.bytes[i] = static_cast<std::byte>(119 + random.below(4, i));
    }
    return;
  }
  for (Index b = 0; b < static_cast<Index>(m.bytes.size()) / size; ++b) {
    for (const Index offset : {at.d, at.min}) {
      if (offset < 0) continue;
      const auto half =
          f32_to_f16(0.02F * random.normal(static_cast<std::uint64_t>(b * 2 + offset % 16)));
      std::memcpy(m.bytes.data() + b * size + offset, &half, 2);
    }
  }
}

inline Stored store(DType dtype, Index rows, Index cols, std::uint64_t seed) {
  Stored m;
  m.bytes.resize(static_cast<std::size_t>(rows * row_bytes(dtype, cols)));
  m.values.resize(static_cast<std::size_t>(rows * cols));
  if (is_block(dtype)) {
    fill_blocks(m, dtype, seed);
  } else {
    const auto x = random_floats(rows * cols, seed);
    quantize_row(dtype, x.data(), m.bytes.data(), rows * cols);
  }
  dequantize_row(dtype, m.bytes.data(), m.values.data(), rows * cols);
  m.source = {.dtype = dtype, .rows = rows, .cols = cols, .data = m.bytes.data()};
  return m;
}

/// FP8 block scales of a slice that begins at row first_row of its tensor.
inline void add_scales(Stored& m, Index block_rows, Index block_cols, Index first_row) {
  const Index rows = ceil_div(first_row + m.source.rows, block_rows);
  const Index cols = ceil_div(m.source.cols, block_cols);
  std::vector<float> scales = random_floats(rows * cols, /*seed=*/99, 0.01F);
  m.scale.resize(scales.size() * sizeof(float));
  std::memcpy(m.scale.data(), scales.data(), m.scale.size());
  m.source.scale = m.scale.data();
  m.source.scale_cols = cols;
  m.source.block_rows = block_rows;
  m.source.block_cols = block_cols;
  m.source.first_row = first_row;
  for (Index r = 0; r < m.source.rows; ++r) {
    reference::decode_row(m.source, r, m.values.data() + r * m.source.cols);
  }
}

}  // namespace kogia::testing
