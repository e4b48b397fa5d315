#include "tensor/gguf_blocks.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "tensor/convert.h"

namespace kogia {
namespace {

using Byte = std::uint8_t;

float read_f16(const Byte* p) {
  std::uint16_t h;
  std::memcpy(&h, p, 2);
  return f16_to_f32(h);
}
std::uint32_t read_u32(const Byte* p) {
  std::uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

int low_bits(const Byte* pairs, int i) { return i < 16 ? pairs[i] & 15 : pairs[i - 16] >> 4; }

void decode_q4_0(const Byte* b, float* y) {
  const float d = read_f16(b);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(low_bits(b + 2, i) - 8);
}

void decode_q4_1(const Byte* b, float* y) {
  const float d = read_f16(b), m = read_f16(b + 2);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(low_bits(b + 4, i)) + m;
}

int five_bits(const Byte* pairs, std::uint32_t high, int i) {
  return low_bits(pairs, i) | static_cast<int>(high >> i & 1) << 4;
}

void decode_q5_0(const Byte* b, float* y) {
  const float d = read_f16(b);
  const std::uint32_t high = read_u32(b + 2);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(five_bits(b + 6, high, i) - 16);
}

void decode_q5_1(const Byte* b, float* y) {
  const float d = read_f16(b), m = read_f16(b + 2);
  const std::uint32_t high = read_u32(b + 4);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(five_bits(b + 8, high, i)) + m;
}

void decode_q8_0(const Byte* b, float* y) {
  const float d = read_f16(b);
  for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<std::int8_t>(b[2 + i])) * d;
}

void decode_q2_k(const Byte* b, float* y) {
  const Byte *scales = b, *quads = b + 16;
  const float d = read_f16(b + 80), dmin = read_f16(b + 82);
  for (int i = 0; i < 256; ++i) {
    const int group = i / 32;  // 32 bytes hold four groups, one in each pair of bits
    const int q = quads[group / 4 * 32 + i % 32] >> (group % 4 * 2) & 3;
    const Byte s = scales[i / 16];
    y[i] =
        d * static_cast<float>(s & 15) * static_cast<float>(q) - dmin * static_cast<float>(s >> 4);
  }
}

void decode_q3_k(const Byte* b, float* y) {
  const Byte *high = b, *quads = b + 32, *packed = b + 96;
  const float d = read_f16(b + 108);
  for (int i = 0; i < 256; ++i) {
    const int group = i / 32, j = i / 16;
    const int low4 = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int scale = (low4 | (packed[8 + j % 4] >> (j / 4 * 2) & 3) << 4) - 32;
    const int low = quads[group / 4 * 32 + i % 32] >> (group % 4 * 2) & 3;
    const int q = low - ((high[i % 32] >> group & 1) != 0 ? 0 : 4);  // a set bit means no offset
    y[i] = d * static_cast<float>(scale) * static_cast<float>(q);
  }
}

void decode_q4_k(const Byte* b, float* y) {
  const float d = read_f16(b), dmin = read_f16(b + 2);
  const ScaleMin sm = unpack_scale_min(b + 4);
  for (int i = 0; i < 256; ++i) {
    const int group = i / 32;
    const int q = b[16 + group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15;
    y[i] = d * static_cast<float>(sm.scale[group]) * static_cast<float>(q) -
           dmin * static_cast<float>(sm.min[group]);
  }
}

void decode_q5_k(const Byte* b, float* y) {
  const float d = read_f16(b), dmin = read_f16(b + 2);
  const ScaleMin sm = unpack_scale_min(b + 4);
  const Byte *high = b + 16, *pairs = b + 48;
  for (int i = 0; i < 256; ++i) {
    const int group = i / 32;
    const int low = pairs[group / 2 * 32 + i % 32] >> (group % 2 * 4) & 15;
    const int q = low | (high[i % 32] >> group & 1) << 4;
    y[i] = d * static_cast<float>(sm.scale[group]) * static_cast<float>(q) -
           dmin * static_cast<float>(sm.min[group]);
  }
}

void decode_q6_k(const Byte* b, float* y) {
  const Byte *low = b, *high = b + 128;
  const auto scale = [b](int j) {
    return static_cast<float>(static_cast<std::int8_t>(b[192 + j]));
  };
  const float d = read_f16(b + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, group = i / 32 % 4, l = i % 32;
    const int q = (low[half * 64 + group % 2 * 32 + l] >> (group / 2 * 4) & 15) |
                  (high[half * 32 + l] >> (group * 2) & 3) << 4;
    y[i] = d * scale(i / 16) * static_cast<float>(q - 32);
  }
}

constexpr std::int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                        1,    13,   25,  38,  53,  69,  89,  113};
constexpr std::int8_t kE2m1Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,  //
                                         0, -1, -2, -3, -4, -6, -8, -12};

void decode_nibbles(const Byte* pairs, const std::int8_t* values, float scale, float* y) {
  for (int i = 0; i < 32; ++i) y[i] = scale * static_cast<float>(values[low_bits(pairs, i)]);
}

void decode_iq4_nl(const Byte* b, float* y) { decode_nibbles(b + 2, kIq4Values, read_f16(b), y); }

void decode_iq4_xs(const Byte* b, float* y) {
  const float d = read_f16(b);
  std::int8_t scales[8];
  unpack_iq4_xs_scales(b, scales);
  for (int g = 0; g < 8; ++g) {
    decode_nibbles(b + 8 + 16 * g, kIq4Values, d * static_cast<float>(scales[g]), y + 32 * g);
  }
}

void decode_mxfp4(const Byte* b, float* y) {
  decode_nibbles(b + 1, kE2m1Values, mxfp4_scale(b[0]), y);
}

using Decode = void (*)(const Byte*, float*);
Decode decoder(DType dtype) {
  switch (dtype) {
    case DType::q4_0:
      return decode_q4_0;
    case DType::q4_1:
      return decode_q4_1;
    case DType::q5_0:
      return decode_q5_0;
    case DType::q5_1:
      return decode_q5_1;
    case DType::q8_0:
      return decode_q8_0;
    case DType::q2_k:
      return decode_q2_k;
    case DType::q3_k:
      return decode_q3_k;
    case DType::q4_k:
      return decode_q4_k;
    case DType::q5_k:
      return decode_q5_k;
    case DType::q6_k:
      return decode_q6_k;
    case DType::iq4_nl:
      return decode_iq4_nl;
    case DType::iq4_xs:
      return decode_iq4_xs;
    case DType::mxfp4:
      return decode_mxfp4;
    default:
      throw_error(ErrorCode::kUnsupported, "{} is not a block format", name(dtype));
  }
}

}  // namespace

const std::int8_t* nibble_values(DType dtype) {
  if (dtype == DType::iq4_nl || dtype == DType::iq4_xs) return kIq4Values;
  return dtype == DType::mxfp4 ? kE2m1Values : nullptr;
}

float mxfp4_scale(std::uint8_t e) {
  const std::uint32_t bits = e < 2 ? 0x200000U << e : static_cast<std::uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

void unpack_iq4_xs_scales(const std::uint8_t* block, std::int8_t* scales) {
  std::uint16_t high;
  std::memcpy(&high, block + 2, 2);
  for (int g = 0; g < 8; ++g) {
    const int low = block[4 + g / 2] >> (g % 2 * 4) & 15;
    scales[g] = static_cast<std::int8_t>((low | (high >> (2 * g) & 3) << 4) - 32);
  }
}

ScaleMin unpack_scale_min(const std::uint8_t* p) {
  ScaleMin out;
  for (int i = 0; i < 4; ++i) {
    out.scale[i] = p[i] & 63;
    out.min[i] = p[4 + i] & 63;
    out.scale[4 + i] = static_cast<Byte>((p[8 + i] & 15) | (p[i] >> 2 & 48));
    out.min[4 + i] = static_cast<Byte>(p[8 + i] >> 4 | (p[4 + i] >> 2 & 48));
  }
  return out;
}

void pack_scale_min(const ScaleMin& from, std::uint8_t* p) {
  for (int i = 0; i < 4; ++i) {
    p[i] = static_cast<Byte>(from.scale[i] | (from.scale[4 + i] & 48) << 2);
    p[4 + i] = static_cast<Byte>(from.min[i] | (from.min[4 + i] & 48) << 2);
    p[8 + i] = static_cast<Byte>((from.scale[4 + i] & 15) | (from.min[4 + i] & 15) << 4);
  }
}

void dequantize_blocks(DType dtype, const void* src, float* dst, Index n) {
  const Decode decode = decoder(dtype);
  const DTypeInfo& type = info(dtype);
  const auto* block = static_cast<const Byte*>(src);
  for (Index i = 0; i < n; i += type.block_values, block += type.block_bytes)
    decode(block, dst + i);
}

}  // namespace kogia
