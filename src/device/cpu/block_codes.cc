#include "device/cpu/block_codes.h"

#include <cstring>

#include "base/error.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

using Byte = std::uint8_t;

std::uint16_t read_u16(const Byte* p) {
  std::uint16_t h;
  std::memcpy(&h, p, 2);
  return h;
}

// The pairs of a block of 32: values i and i + 16.
void take_nibbles(const Byte* pairs, int lowest, BlockCodes& to) {
  for (int i = 0; i < 16; ++i) {
    to.code[i] = static_cast<std::int8_t>((pairs[i] & 15) + lowest);
    to.code[i + 16] = static_cast<std::int8_t>((pairs[i] >> 4) + lowest);
  }
}

void take_five_bits(const Byte* high, const Byte* pairs, int lowest, BlockCodes& to) {
  std::uint32_t bits;
  std::memcpy(&bits, high, 4);
  for (int i = 0; i < 32; ++i) {
    const int low = i < 16 ? pairs[i] & 15 : pairs[i - 16] >> 4;
    to.code[i] = static_cast<std::int8_t>((low | static_cast<int>(bits >> i & 1) << 4) + lowest);
  }
}

void take_q2_k(const Byte* b, BlockCodes& to) {
  to.d = read_u16(b + 80), to.dmin = read_u16(b + 82);
  for (int j = 0; j < 16; ++j) {
    to.s[j] = static_cast<std::int8_t>(b[j] & 15);
    to.m[j] = static_cast<std::int8_t>(b[j] >> 4);
  }
  for (int group = 0; group < 8; ++group) {
    const Byte* from = b + 16 + group / 4 * 32;
    std::int8_t* code = to.code + group * 32;
    const int shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i) code[i] = static_cast<std::int8_t>(from[i] >> shift & 3);
  }
}

void take_q3_k(const Byte* b, BlockCodes& to) {
  const Byte *high = b, *quads = b + 32, *packed = b + 96;
  to.d = read_u16(b + 108);
  for (int j = 0; j < 16; ++j) {
    const int low4 = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int high2 = packed[8 + j % 4] >> (j / 4 * 2) & 3;
    to.s[j] = static_cast<std::int8_t>((low4 | high2 << 4) - 32);
  }
  for (int group = 0; group < 8; ++group) {
    const Byte* from = quads + group / 4 * 32;
    std::int8_t* code = to.code + group * 32;
    const int shift = group % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      code[i] = static_cast<std::int8_t>((from[i] >> shift & 3) - ((high[i] >> group & 1) ^ 1) * 4);
    }
  }
}

// q4_k, and with its high bits q5_k.
void take_q45_k(const Byte* b, const Byte* high, const Byte* pairs, BlockCodes& to) {
  to.dmin = read_u16(b + 2);
  const ScaleMin sm = unpack_scale_min(b + 4);
  for (int j = 0; j < 8; ++j) {
    to.s[j] = static_cast<std::int8_t>(sm.scale[j]);
    to.m[j] = static_cast<std::int8_t>(sm.min[j]);
  }
  for (int pair = 0; pair < 4; ++pair) {
    const Byte* from = pairs + pair * 32;
    std::int8_t* code = to.code + pair * 64;
    for (int i = 0; i < 32; ++i) code[i] = static_cast<std::int8_t>(from[i] & 15);
    for (int i = 0; i < 32; ++i) code[i + 32] = static_cast<std::int8_t>(from[i] >> 4);
  }
  if (high == nullptr) return;
  for (int group = 0; group < 8; ++group) {
    std::int8_t* code = to.code + group * 32;
    const Byte bit = static_cast<Byte>(1 << group);
    for (int i = 0; i < 32; ++i) {
      code[i] = static_cast<std::int8_t>(code[i] | ((high[i] & bit) != 0 ? 16 : 0));
    }
  }
}

void take_q6_k(const Byte* b, BlockCodes& to) {
  const Byte *low = b, *high = b + 128;
  to.d = read_u16(b + 208);
  std::memcpy(to.s, b + 192, 16);
  for (int group = 0; group < 8; ++group) {
    const Byte *lows = low + group / 4 * 64 + group % 2 * 32, *highs = high + group / 4 * 32;
    const int low_shift = group % 4 / 2 * 4, high_shift = group % 4 * 2;
    std::int8_t* code = to.code + group * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = (lows[i] >> low_shift & 15) | (highs[i] >> high_shift & 3) << 4;
      code[i] = static_cast<std::int8_t>(q - 32);
    }
  }
}

void take_iq4_xs(const Byte* b, BlockCodes& to) {
  unpack_iq4_xs_scales(b, to.s);
  for (int group = 0; group < 8; ++group) {
    for (int i = 0; i < 16; ++i) {
      const Byte pair = b[8 + 16 * group + i];
      to.code[32 * group + i] = static_cast<std::int8_t>(pair & 15);
      to.code[32 * group + i + 16] = static_cast<std::int8_t>(pair >> 4);
    }
  }
}

}  // namespace

BlockShape block_shape(DType dtype, bool look_up) {
  switch (dtype) {
    case DType::q4_0:
      return {Codes::q4, ScaleType::f16, false, -8};
    case DType::q4_1:
      return {Codes::q4, ScaleType::f16, true, 0};
    case DType::q5_0:
      return {Codes::q5, ScaleType::f16, false, -16};
    case DType::q5_1:
      return {Codes::q5, ScaleType::f16, true, 0};
    case DType::q8_0:
      return {Codes::q8, ScaleType::f16, false, 0};
    case DType::q2_k:
      return {Codes::q2, ScaleType::nibbles, true, 0};
    case DType::q3_k:
      return {Codes::q3, ScaleType::parts, false, -4};
    case DType::q4_k:
      return {Codes::q4, ScaleType::parts, true, 0};
    case DType::q5_k:
      return {Codes::q5, ScaleType::parts, true, 0};
    case DType::q6_k:
      return {Codes::q6, ScaleType::parts, false, -32};
    case DType::iq4_nl:
      return {look_up ? Codes::q4 : Codes::q8, ScaleType::f16, false, 0};
    case DType::iq4_xs:
      return {look_up ? Codes::q4 : Codes::q8, ScaleType::parts, false, 0};
    case DType::mxfp4:
      return {look_up ? Codes::q4 : Codes::q5, ScaleType::f32, false, look_up ? 0 : -12};
    default:
      throw_error(ErrorCode::kUnsupported, "{} is not a block format", name(dtype));
  }
}

void take_apart(DType dtype, const void* block, BlockCodes& to) {
  const Byte* b = static_cast<const Byte*>(block);
  to.d = read_u16(b);
  switch (dtype) {
    case DType::q4_0:
      return take_nibbles(b + 2, -8, to);
    case DType::q4_1:
      to.dmin = read_u16(b + 2);
      return take_nibbles(b + 4, 0, to);
    case DType::q5_0:
      return take_five_bits(b + 2, b + 6, -16, to);
    case DType::q5_1:
      to.dmin = read_u16(b + 2);
      return take_five_bits(b + 4, b + 8, 0, to);
    case DType::q8_0:
      std::memcpy(to.code, b + 2, 32);
      return;
    case DType::q2_k:
      return take_q2_k(b, to);
    case DType::q3_k:
      return take_q3_k(b, to);
    case DType::q4_k:
      return take_q45_k(b, nullptr, b + 16, to);
    case DType::q5_k:
      return take_q45_k(b, b + 16, b + 48, to);
    case DType::q6_k:
      return take_q6_k(b, to);
    case DType::iq4_nl:
      return take_nibbles(b + 2, 0, to);
    case DType::iq4_xs:
      return take_iq4_xs(b, to);
    case DType::mxfp4:
      to.scale = mxfp4_scale(b[0]);
      return take_nibbles(b + 1, 0, to);
    default:
      throw_error(ErrorCode::kUnsupported, "{} is not a block format", name(dtype));
  }
}

}  // namespace kogia
