#include "tensor/convert.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

constexpr std::uint32_t kSign = 0x80000000, kInfinity = 0x7F800000;

// Rounds |x| (finite, or infinite) to a format of `kMantissa` mantissa bits whose smallest normal
// number is 2^kMinExponent, to nearest even, subnormals included. The result is still a float; the
// exponent may have grown beyond the format's largest, which is the caller's business.
template <int kMantissa, int kMinExponent>
float round_magnitude(float magnitude) {
  constexpr float kMinNormal = std::bit_cast<float>((kMinExponent + 127) << 23);
  if (magnitude < kMinNormal) {
    // One unit of `magic`'s last place is the format's smallest subnormal, so the sum rounds there.
    constexpr float magic = std::bit_cast<float>((kMinExponent - kMantissa + 23 + 127) << 23);
    return (magnitude + magic) - magic;
  }
  constexpr int kDropped = 23 - kMantissa;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude);
  const std::uint32_t even = (bits >> kDropped) & 1;
  const std::uint32_t rounded = (bits + ((1U << (kDropped - 1)) - 1 + even)) >> kDropped
                                                                                    << kDropped;
  return std::bit_cast<float>(rounded);
}

// The code of a magnitude that round_magnitude() has made representable.
template <int kMantissa, int kMinExponent>
std::uint32_t magnitude_code(float magnitude) {
  constexpr float kMinNormal = std::bit_cast<float>((kMinExponent + 127) << 23);
  if (magnitude < kMinNormal) {
    constexpr float kUnitsPerOne = std::bit_cast<float>((kMantissa - kMinExponent + 127) << 23);
    return static_cast<std::uint32_t>(magnitude * kUnitsPerOne);
  }
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude);
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(kMinExponent - 1 + 127) << kMantissa;
  return (bits >> (23 - kMantissa)) - kRebias;
}

template <int kMantissa, int kMinExponent>
float code_magnitude(std::uint32_t code) {
  constexpr std::uint32_t kMantissaMask = (1U << kMantissa) - 1;
  const std::uint32_t exponent = code >> kMantissa;
  if (exponent == 0) {
    constexpr float kUnit = std::bit_cast<float>((kMinExponent - kMantissa + 127) << 23);
    return static_cast<float>(code & kMantissaMask) * kUnit;
  }
  constexpr std::uint32_t kRebias = static_cast<std::uint32_t>(kMinExponent - 1 + 127) << kMantissa;
  return std::bit_cast<float>((code + kRebias) << (23 - kMantissa));
}

std::uint32_t sign_of(float x) { return std::bit_cast<std::uint32_t>(x) & kSign; }
float magnitude_of(float x) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & ~kSign);
}
float with_sign(float magnitude, std::uint32_t sign) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
}

template <class T>
T load(const void* src, Index i) {
  T value;
  std::memcpy(&value, static_cast<const std::byte*>(src) + i * static_cast<Index>(sizeof(T)),
              sizeof(T));
  return value;
}

template <class T>
void store(void* dst, Index i, T value) {
  std::memcpy(static_cast<std::byte*>(dst) + i * static_cast<Index>(sizeof(T)), &value, sizeof(T));
}

}  // namespace

std::uint16_t f32_to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & ~kSign) > kInfinity) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16;
  const std::uint32_t code = h & 0x7FFF;
  if (code >= 0x7C00) {
    const std::uint32_t quiet = code > 0x7C00 ? 0x400000 : 0;
    return std::bit_cast<float>(sign | kInfinity | (code & 0x3FF) << 13 | quiet);
  }
  return with_sign(code_magnitude<10, -14>(code), sign);
}

std::uint16_t f32_to_f16(float x) {
  const std::uint32_t sign = sign_of(x) >> 16;
  const float magnitude = magnitude_of(x);
  if (std::isnan(x)) {
    const std::uint32_t payload = (std::bit_cast<std::uint32_t>(magnitude) >> 13) & 0x3FF;
    return static_cast<std::uint16_t>(sign | 0x7E00 | payload);
  }
  const float rounded = round_magnitude<10, -14>(magnitude);
  const std::uint32_t code = rounded > 65504.0F ? 0x7C00 : magnitude_code<10, -14>(rounded);
  return static_cast<std::uint16_t>(sign | code);
}

float e4m3_to_f32(std::uint8_t b) {
  const std::uint32_t sign = static_cast<std::uint32_t>(b & 0x80) << 24;
  if ((b & 0x7F) == 0x7F) return with_sign(std::numeric_limits<float>::quiet_NaN(), sign);
  return with_sign(code_magnitude<3, -6>(b & 0x7F), sign);
}

std::uint8_t f32_to_e4m3(float x) {
  const std::uint32_t sign = sign_of(x) >> 24;
  if (std::isnan(x)) return static_cast<std::uint8_t>(sign | 0x7F);
  const float rounded = round_magnitude<3, -6>(magnitude_of(x));
  const std::uint32_t code = rounded > 448.0F ? 0x7E : magnitude_code<3, -6>(rounded);
  return static_cast<std::uint8_t>(sign | code);
}

float e5m2_to_f32(std::uint8_t b) { return f16_to_f32(static_cast<std::uint16_t>(b << 8)); }

std::uint8_t f32_to_e5m2(float x) {
  const std::uint32_t sign = sign_of(x) >> 24;
  if (std::isnan(x)) return static_cast<std::uint8_t>(sign | 0x7E);
  if (std::isinf(x)) return static_cast<std::uint8_t>(sign | 0x7C);
  const float rounded = round_magnitude<2, -14>(magnitude_of(x));
  const std::uint32_t code = rounded > 57344.0F ? 0x7B : magnitude_code<2, -14>(rounded);
  return static_cast<std::uint8_t>(sign | code);
}

float e8m0_to_f32(std::uint8_t b) {
  if (b == 255) return std::numeric_limits<float>::quiet_NaN();
  if (b == 0) return std::bit_cast<float>(0x400000U);  // 2^-127 is a subnormal float
  return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 23);
}

std::uint8_t f32_to_e8m0_up(float x) {
  KOGIA_CHECK(!(x <= 0));
  if (!std::isfinite(x)) return 255;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if (bits <= 0x400000) return 0;  // up to 2^-127
  const std::uint32_t exponent = bits >> 23, mantissa = bits & 0x7FFFFF;
  const std::uint32_t code = exponent + (mantissa != 0 ? 1 : 0);
  return static_cast<std::uint8_t>(code < 255 ? code : 254);  // above 2^127: the largest there is
}

void dequantize_row(DType dtype, const void* src, float* dst, Index n) {
  KOGIA_CHECK(n % info(dtype).block_values == 0);
  if (is_block(dtype)) return dequantize_blocks(dtype, src, dst, n);
  switch (dtype) {
    case DType::f64:
      for (Index i = 0; i < n; ++i) dst[i] = static_cast<float>(load<double>(src, i));
      return;
    case DType::f32:
      std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::bf16:
      for (Index i = 0; i < n; ++i) dst[i] = bf16_to_f32(load<std::uint16_t>(src, i));
      return;
    case DType::f16:
      for (Index i = 0; i < n; ++i) dst[i] = f16_to_f32(load<std::uint16_t>(src, i));
      return;
    case DType::f8_e4m3:
      for (Index i = 0; i < n; ++i) dst[i] = e4m3_to_f32(load<std::uint8_t>(src, i));
      return;
    case DType::f8_e5m2:
      for (Index i = 0; i < n; ++i) dst[i] = e5m2_to_f32(load<std::uint8_t>(src, i));
      return;
    case DType::f8_e8m0:
      for (Index i = 0; i < n; ++i) dst[i] = e8m0_to_f32(load<std::uint8_t>(src, i));
      return;
    default:
      throw_error(ErrorCode::kUnsupported, "cannot decode {} as numbers of a weight", name(dtype));
  }
}

void quantize_row(DType dtype, const float* src, void* dst, Index n) {
  KOGIA_CHECK(n % info(dtype).block_values == 0);
  if (is_block(dtype)) return quantize_blocks(dtype, src, dst, n);
  switch (dtype) {
    case DType::f64:
      for (Index i = 0; i < n; ++i) store(dst, i, static_cast<double>(src[i]));
      return;
    case DType::f32:
      std::memcpy(dst, src, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case DType::bf16:
      for (Index i = 0; i < n; ++i) store(dst, i, f32_to_bf16(src[i]));
      return;
    case DType::f16:
      for (Index i = 0; i < n; ++i) store(dst, i, f32_to_f16(src[i]));
      return;
    case DType::f8_e4m3:
      for (Index i = 0; i < n; ++i) store(dst, i, f32_to_e4m3(src[i]));
      return;
    case DType::f8_e5m2:
      for (Index i = 0; i < n; ++i) store(dst, i, f32_to_e5m2(src[i]));
      return;
    default:
      throw_error(ErrorCode::kUnsupported, "cannot encode weights as {}", name(dtype));
  }
}

}  // namespace kogia
