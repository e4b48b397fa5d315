// Plain quantisers of the GGUF formats whose nibbles are looked up, and of q5_k: a scale from the
// largest value, then the nearest code of what a reader will decode.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"
#include "tensor/gguf_quantize.h"

namespace kogia {
namespace {

using Byte = std::uint8_t;

void write_f16(Byte* p, float x) {
  const std::uint16_t h = f32_to_f16(x);
  std::memcpy(p, &h, 2);
}

float largest_by_magnitude(const float* x, int n) {
  return *std::max_element(x, x + n, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

/// To nearest even, within [bottom, top]; NaN gives bottom.
int round_within(float x, int bottom, int top) {
  const float up = std::fmax(std::nearbyint(x), static_cast<float>(bottom));
  return static_cast<int>(std::fmin(up, static_cast<float>(top)));
}

// --- nibbles -----------------------------------------------------------------------------------

/// The first of the nearest.
int nearest(const std::int8_t* values, float scale, float x) {
  int best = 0;
  float least = std::fabs(scale * static_cast<float>(values[0]) - x);
  for (int q = 1; q < 16; ++q) {
    const float off = std::fabs(scale * static_cast<float>(values[q]) - x);
    if (off < least) best = q, least = off;
  }
  return best;
}

void put_nearest(const std::int8_t* values, float scale, const float* x, Byte* pairs) {
  for (int i = 0; i < 16; ++i) {
    const int low = nearest(values, scale, x[i]), high = nearest(values, scale, x[i + 16]);
    pairs[i] = static_cast<Byte>(low | high << 4);
  }
}

/// The value of largest magnitude becomes the code of largest magnitude, -127.
float iq4_scale(const float* x) { return largest_by_magnitude(x, 32) / -127; }

void encode_iq4_nl(const float* x, Byte* b) {
  write_f16(b, iq4_scale(x));
  put_nearest(nibble_values(DType::iq4_nl), round_f16(iq4_scale(x)), x, b + 2);
}

void encode_iq4_xs(const float* x, Byte* b) {
  float scales[8];
  for (int g = 0; g < 8; ++g) scales[g] = iq4_scale(x + 32 * g);
  const float d = round_f16(largest_by_magnitude(scales, 8) / -32);
  std::uint16_t high = 0;
  std::fill(b + 4, b + 8, Byte{0});
  write_f16(b, d);
  for (int g = 0; g < 8; ++g) {
    const int s = d != 0 ? round_within(scales[g] / d, -32, 31) : 0, code = s + 32;
    b[4 + g / 2] |= static_cast<Byte>((code & 15) << (g % 2 * 4));
    high |= static_cast<std::uint16_t>(code >> 4 << (2 * g));
    const float scale = d * static_cast<float>(s);
    put_nearest(nibble_values(DType::iq4_xs), scale, x + 32 * g, b + 8 + 16 * g);
  }
  std::memcpy(b + 2, &high, 2);
}

/// As `gguf` has it: the exponent of the largest value, less the two of E2M1's own 6 = 1.5 · 2².
void encode_mxfp4(const float* x, Byte* b) {
  const float top = std::fabs(largest_by_magnitude(x, 32));
  const int exponent = top > 0 ? std::clamp(std::ilogb(top), -126, 128) - 2 + 127 : 0;
  b[0] = static_cast<Byte>(std::clamp(exponent, 0, 254));
  put_nearest(nibble_values(DType::mxfp4), mxfp4_scale(b[0]), x, b + 1);
}

// --- q5_k --------------------------------------------------------------------------------------

Byte six_bits(float x, float unit) {
  return unit > 0 ? static_cast<Byte>(round_within(x / unit, 0, 63)) : Byte{0};
}

void encode_q5_k(const float* x, Byte* b) {
  float scales[8], mins[8];
  for (int g = 0; g < 8; ++g) {
    const auto [low, high] = std::minmax_element(x + 32 * g, x + 32 * g + 32);
    mins[g] = std::fmax(0.0F, -*low);
    scales[g] = (std::fmax(0.0F, *high) + mins[g]) / 31;
  }
  const float d = round_f16(*std::max_element(scales, scales + 8) / 63);
  const float dmin = round_f16(*std::max_element(mins, mins + 8) / 63);
  ScaleMin sm;
  for (int g = 0; g < 8; ++g) {
    sm.scale[g] = six_bits(scales[g], d);
    sm.min[g] = six_bits(mins[g], dmin);
  }
  write_f16(b, d);
  write_f16(b + 2, dmin);
  pack_scale_min(sm, b + 4);
  Byte *high = b + 16, *pairs = b + 48;
  std::fill(high, b + 176, Byte{0});
  for (int i = 0; i < 256; ++i) {
    const int g = i / 32;
    const float scale = d * static_cast<float>(sm.scale[g]);
    const float min = dmin * static_cast<float>(sm.min[g]);
    const int q = scale > 0 ? round_within((x[i] + min) / scale, 0, 31) : 0;
    pairs[g / 2 * 32 + i % 32] |= static_cast<Byte>((q & 15) << (g % 2 * 4));
    high[i % 32] |= static_cast<Byte>(q >> 4 << g);
  }
}

}  // namespace

EncodeBlock look_up_encoder(DType dtype) {
  switch (dtype) {
    case DType::q5_k:
      return encode_q5_k;
    case DType::iq4_nl:
      return encode_iq4_nl;
    case DType::iq4_xs:
      return encode_iq4_xs;
    case DType::mxfp4:
      return encode_mxfp4;
    default:
      return nullptr;
  }
}

}  // namespace kogia
