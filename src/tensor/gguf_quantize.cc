// Plain quantisers of the GGUF block formats.

#include "tensor/gguf_quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

using Byte = std::uint8_t;

void write_f16(Byte* p, float x) {
  const std::uint16_t h = f32_to_f16(x);
  std::memcpy(p, &h, 2);
}

// Truncation of x + 1/2 for whole numbers that fit the format, as the reference does. NaN gives 0.
int round_half_up(float x, float half, int top) {
  return static_cast<int>(std::fmin(std::fmax(x + half, 0.0F), static_cast<float>(top)));
}
// To nearest even, within [bottom, top]; NaN gives bottom.
float round_within(float x, float bottom, float top) {
  return std::fmin(std::fmax(std::nearbyint(x), bottom), top);
}

float largest_by_magnitude(const float* x, int n) {
  return *std::max_element(x, x + n, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

void put_pairs(const int* q, Byte* pairs) {
  for (int i = 0; i < 16; ++i) {
    pairs[i] = static_cast<Byte>((q[i] & 15) | (q[i + 16] & 15) << 4);
  }
}
void put_high_bits(const int* q, Byte* p) {
  std::uint32_t high = 0;
  for (int i = 0; i < 32; ++i) high |= static_cast<std::uint32_t>(q[i] >> 4 & 1) << i;
  std::memcpy(p, &high, 4);
}

// The value of largest magnitude becomes exactly -offset, so that all codes of a signed range are
// in use: d = extreme / -offset.
float signed_codes(const float* x, int offset, int* q) {
  const float d = largest_by_magnitude(x, 32) / static_cast<float>(-offset);
  const float inverse = d == 0 ? 0 : 1 / d;
  for (int i = 0; i < 32; ++i) {
    q[i] = round_half_up(x[i] * inverse, static_cast<float>(offset) + 0.5F, 2 * offset - 1);
  }
  return d;
}

struct ScaleAndMin {
  float d, m;
};
ScaleAndMin affine_codes(const float* x, int top, int* q) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float m = *low, d = (*high - m) / static_cast<float>(top);
  const float inverse = d == 0 ? 0 : 1 / d;
  for (int i = 0; i < 32; ++i) q[i] = round_half_up((x[i] - m) * inverse, 0.5F, top);
  return {d, m};
}

void encode_q4_0(const float* x, Byte* b) {
  int q[32];
  write_f16(b, signed_codes(x, 8, q));
  put_pairs(q, b + 2);
}

void encode_q4_1(const float* x, Byte* b) {
  int q[32];
  const auto [d, m] = affine_codes(x, 15, q);
  write_f16(b, d);
  write_f16(b + 2, m);
  put_pairs(q, b + 4);
}

void encode_q5_0(const float* x, Byte* b) {
  int q[32];
  write_f16(b, signed_codes(x, 16, q));
  put_high_bits(q, b + 2);
  put_pairs(q, b + 6);
}

void encode_q5_1(const float* x, Byte* b) {
  int q[32];
  const auto [d, m] = affine_codes(x, 31, q);
  write_f16(b, d);
  write_f16(b + 2, m);
  put_high_bits(q, b + 4);
  put_pairs(q, b + 8);
}

void encode_q8_0(const float* x, Byte* b) {
  const float d = std::fabs(largest_by_magnitude(x, 32)) / 127;
  const float inverse = d == 0 ? 0 : 1 / d;
  write_f16(b, d);
  for (int i = 0; i < 32; ++i)
    b[2 + i] = static_cast<Byte>(static_cast<std::int8_t>(
        std::fmin(std::fmax(std::round(x[i] * inverse), -127.0F), 127.0F)));
}

// The k-blocks. A search over slightly different scales, judged by the squared error that is left;
// the scales that come out are themselves rounded, so the codes are made afterwards from what a
// reader will decode.

struct Affine {
  float scale, min;  // x ≈ scale q - min, both at least 0
};

double affine_error(const float* x, int n, Affine a, int top) {
  double error = 0;
  const float inverse = a.scale > 0 ? 1 / a.scale : 0;
  for (int i = 0; i < n; ++i) {
    const float q = round_within(((x[i] + a.min) * inverse), 0.0F, static_cast<float>(top));
    const double d = static_cast<double>(a.scale * q - a.min) - static_cast<double>(x[i]);
    error += d * d;
  }
  return error;
}

Affine best_affine(const float* x, int n, int top) {
  const auto [low, high] = std::minmax_element(x, x + n);
  const float min = std::max(0.0F, -*low), range = std::max(0.0F, *high) + min;
  if (range == 0) return {0, min};
  Affine best = {range / static_cast<float>(top), min};
  double best_error = affine_error(x, n, best, top);
  for (int step = -4; step <= 8; ++step) {  // a narrower grid clips the ends and is finer inside
    for (const float shrink : {1.0F, 0.95F}) {
      const Affine a = {range / (static_cast<float>(top) + 0.1F * static_cast<float>(step)),
                        min * shrink};
      const double error = affine_error(x, n, a, top);
      if (error < best_error) best = a, best_error = error;
    }
  }
  return best;
}

Byte six_bits(float x, float unit) {
  return unit > 0 ? static_cast<Byte>(round_within((x / unit), 0.0F, 63.0F)) : Byte{0};
}

void encode_q4_k(const float* x, Byte* b) {
  Affine groups[8];
  float top_scale = 0, top_min = 0;
  for (int g = 0; g < 8; ++g) {
    groups[g] = best_affine(x + 32 * g, 32, 15);
    top_scale = std::max(top_scale, groups[g].scale);
    top_min = std::max(top_min, groups[g].min);
  }
  const float d = round_f16(top_scale / 63), dmin = round_f16(top_min / 63);
  ScaleMin sm;
  for (int g = 0; g < 8; ++g) {
    sm.scale[g] = six_bits(groups[g].scale, d);
    sm.min[g] = six_bits(groups[g].min, dmin);
  }
  write_f16(b, d);
  write_f16(b + 2, dmin);
  pack_scale_min(sm, b + 4);
  std::fill(b + 16, b + 144, Byte{0});
  for (int i = 0; i < 256; ++i) {
    const int g = i / 32;
    const float scale = d * static_cast<float>(sm.scale[g]),
                min = dmin * static_cast<float>(sm.min[g]);
    const float q = scale > 0 ? round_within(((x[i] + min) / scale), 0.0F, 15.0F) : 0.0F;
    b[16 + g / 2 * 32 + i % 32] |= static_cast<Byte>(static_cast<int>(q) << (g % 2 * 4));
  }
}

double symmetric_error(const float* x, int n, float scale, float bottom, float top) {
  double error = 0;
  for (int i = 0; i < n; ++i) {
    const float q = round_within((x[i] / scale), bottom, top);
    const double d = static_cast<double>(scale * q) - static_cast<double>(x[i]);
    error += d * d;
  }
  return error;
}

// A negative scale is legal: it puts the longer end of the codes (-32) on the positive side.
float best_symmetric(const float* x, int n) {
  const float extreme = largest_by_magnitude(x, n);
  if (extreme == 0) return 0;
  float best = extreme / -32;
  double best_error = symmetric_error(x, n, best, -32, 31);
  for (int step = -9; step <= 9; ++step) {
    const float scale = extreme / (-32 + 0.1F * static_cast<float>(step));
    const double error = symmetric_error(x, n, scale, -32, 31);
    if (error < best_error) best = scale, best_error = error;
  }
  return best;
}

void encode_q6_k(const float* x, Byte* b) {
  float scales[16];
  for (int j = 0; j < 16; ++j) scales[j] = best_symmetric(x + 16 * j, 16);
  const float d = round_f16(largest_by_magnitude(scales, 16) / -128);
  std::fill(b, b + 192, Byte{0});
  write_f16(b + 208, d);
  for (int j = 0; j < 16; ++j) {
    const float s = d != 0 ? round_within((scales[j] / d), -128.0F, 127.0F) : 0.0F;
    b[192 + j] = static_cast<Byte>(static_cast<std::int8_t>(s));
    const float scale = d * s;
    for (int i = 16 * j; i < 16 * j + 16; ++i) {
      const float q = scale != 0 ? round_within((x[i] / scale), -32.0F, 31.0F) : 0.0F;
      const int code = static_cast<int>(q) + 32;
      const int half = i / 128, group = i / 32 % 4, l = i % 32;
      b[half * 64 + group % 2 * 32 + l] |= static_cast<Byte>((code & 15) << (group / 2 * 4));
      b[128 + half * 32 + l] |= static_cast<Byte>(code >> 4 << (group * 2));
    }
  }
}

using Encode = void (*)(const float*, Byte*);
Encode encoder(DType dtype) {
  switch (dtype) {
    case DType::q4_0:
      return encode_q4_0;
    case DType::q4_1:
      return encode_q4_1;
    case DType::q5_0:
      return encode_q5_0;
    case DType::q5_1:
      return encode_q5_1;
    case DType::q8_0:
      return encode_q8_0;
    case DType::q4_k:
      return encode_q4_k;
    case DType::q6_k:
      return encode_q6_k;
    default:
      if (const EncodeBlock other = look_up_encoder(dtype)) return other;
      throw_error(ErrorCode::kUnsupported, "cannot encode weights as {}", name(dtype));
  }
}

}  // namespace

void quantize_blocks(DType dtype, const float* src, void* dst, Index n) {
  const Encode encode = encoder(dtype);
  const DTypeInfo& type = info(dtype);
  auto* block = static_cast<Byte*>(dst);
  for (Index i = 0; i < n; i += type.block_values, block += type.block_bytes)
    encode(src + i, block);
}

}  // namespace kogia
