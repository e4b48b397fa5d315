#include "tensor/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"
#include "tensor/quantize_encoders.h"
#include "tensor/quantize_search.h"

namespace kogia {
namespace quantize {
namespace {

using Byte = std::uint8_t;
constexpr int kBlock = 32;
constexpr float kLargest = 65504;
constexpr Pitches kPitches = {.first = -1, .step = 0.1F, .n = 21};

void write_f16(Byte* p, float x) {
  const std::uint16_t h = f32_to_f16(x);
  std::memcpy(p, &h, 2);
}

void put_pairs(const int* q, Byte* pairs) {
  for (int i = 0; i < 16; ++i) pairs[i] = static_cast<Byte>((q[i] & 15) | (q[i + 16] & 15) << 4);
}
void put_high_bits(const int* q, Byte* p) {
  std::uint32_t high = 0;
  for (int i = 0; i < kBlock; ++i) high |= static_cast<std::uint32_t>(q[i] >> 4 & 1) << i;
  std::memcpy(p, &high, 4);
}

/// Codes 0 … 2 half - 1 for the scale that f16 holds.
float symmetric_codes(const float* x, const float* weight, int half, int* q) {
  const auto bottom = static_cast<float>(-half), top = static_cast<float>(half - 1);
  const float d = round_f16(fit_symmetric<kBlock>(x, weight, bottom, top));
  const float inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < kBlock; ++i) {
    q[i] = static_cast<int>(nearest(clamped(x[i] * inverse, bottom, top))) + half;
  }
  return d;
}

Affine affine_codes(const float* x, const float* weight, float top, int* q) {
  const Affine fit = fit_affine<kBlock>(x, weight, top, true, kPitches);
  const Affine a = {.scale = round_f16(fit.scale),
                    .least = round_f16(clamped(fit.least, -kLargest, kLargest))};
  const float inverse = a.scale != 0 ? 1 / a.scale : 0;
  for (int i = 0; i < kBlock; ++i) {
    q[i] = static_cast<int>(nearest(clamped((x[i] - a.least) * inverse, 0, top)));
  }
  return a;
}

}  // namespace

void encode_q4_0(const float* x, const float* weight, Byte* b) {
  int q[kBlock];
  write_f16(b, symmetric_codes(x, weight, 8, q));
  put_pairs(q, b + 2);
}

void encode_q4_1(const float* x, const float* weight, Byte* b) {
  int q[kBlock];
  const Affine a = affine_codes(x, weight, 15, q);
  write_f16(b, a.scale);
  write_f16(b + 2, a.least);
  put_pairs(q, b + 4);
}

void encode_q5_0(const float* x, const float* weight, Byte* b) {
  int q[kBlock];
  write_f16(b, symmetric_codes(x, weight, 16, q));
  put_high_bits(q, b + 2);
  put_pairs(q, b + 6);
}

void encode_q5_1(const float* x, const float* weight, Byte* b) {
  int q[kBlock];
  const Affine a = affine_codes(x, weight, 31, q);
  write_f16(b, a.scale);
  write_f16(b + 2, a.least);
  put_high_bits(q, b + 4);
  put_pairs(q, b + 8);
}

namespace {

EncodeBlock k_encoder(DType dtype) {
  switch (dtype) {
    case DType::q4_k:
      return encode_q4_k;
    case DType::q5_k:
      return encode_q5_k;
    case DType::q6_k:
      return encode_q6_k;
    default:
      return nullptr;
  }
}

EncodeBlock small_encoder(DType dtype) {
  switch (dtype) {
    case DType::q4_0:
      return encode_q4_0;
    case DType::q4_1:
      return encode_q4_1;
    case DType::q5_0:
      return encode_q5_0;
    case DType::q5_1:
      return encode_q5_1;
    default:
      return nullptr;
  }
}

float harmless(float x) { return x != x ? 0 : clamped(x, -kLargest, kLargest); }

/// Of the values of a row, as they will be encoded.
float mean_square(const float* x, Index n) {
  double squares = 0;
  for (Index i = 0; i < n; ++i) {
    const auto v = static_cast<double>(harmless(x[i]));
    squares += v * v;
  }
  return static_cast<float>(squares / static_cast<double>(n));
}

/// Whole numbers of a sane size for the sums: the largest of a row counts 1. Where all are 0, all
/// count the same.
float importance_unit(const float* importance, Index n) {
  const float most = *std::max_element(importance, importance + n);
  return most > 0 ? 1 / most : 0;
}

constexpr Index kLongestBlock = 256;

}  // namespace
}  // namespace quantize

bool can_encode(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::bf16:
    case DType::f16:
    case DType::q8_0:
      return true;
    default:
      return quantize::k_encoder(dtype) != nullptr || quantize::small_encoder(dtype) != nullptr;
  }
}

void encode_row(DType dtype, const float* x, const float* importance, void* dst, Index n) {
  const quantize::EncodeBlock k_block = quantize::k_encoder(dtype),
                              small_block = quantize::small_encoder(dtype);
  const DTypeInfo& type = info(dtype);
  KOGIA_CHECK(can_encode(dtype) && n % type.block_values == 0);
  if (n == 0) return;
  if (!is_block(dtype)) return quantize_row(dtype, x, dst, n);

  const float unit = importance ? quantize::importance_unit(importance, n) : 0;
  const bool weighted = unit > 0;
  const float square = weighted && small_block ? quantize::mean_square(x, n) : 0;
  auto* block = static_cast<std::uint8_t*>(dst);
  float values[quantize::kLongestBlock], weights[quantize::kLongestBlock];
  for (Index begin = 0; begin < n; begin += type.block_values, block += type.block_bytes) {
    for (Index i = 0; i < type.block_values; ++i) {
      values[i] = quantize::harmless(x[begin + i]);
      if (weighted) weights[i] = importance[begin + i] * unit;
      if (weighted && small_block) weights[i] *= std::sqrt(square + values[i] * values[i]);
    }
    if (k_block) {
      k_block(values, weighted ? weights : nullptr, block);
    } else if (small_block && weighted) {
      small_block(values, weights, block);
    } else {
      quantize_row(dtype, values, block, type.block_values);
    }
  }
}

float encode_fp8_block(const float* x, Index x_stride, Index rows, Index cols, std::uint8_t* codes,
                       Index codes_stride) {
  constexpr float kTop = 448;
  float most = 0;
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) {
      const float magnitude = std::fabs(x[r * x_stride + c]);
      if (std::isfinite(magnitude)) most = std::max(most, magnitude);
    }
  }
  // A factor so small that its inverse is infinite would make NaN of zeros.
  const float scale = most / kTop < 1e-30F ? 1 : most / kTop;
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < cols; ++c) {
      const float v = x[r * x_stride + c];
      codes[r * codes_stride + c] = f32_to_e4m3(v != v ? 0.0F : v / scale);
    }
  }
  return scale;
}

}  // namespace kogia
