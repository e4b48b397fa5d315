#pragma once
// Exact scalar conversions of every dtype, both ways: the reference that kernels are tested
// against.

#include <bit>
#include <cstdint>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

inline float bf16_to_f32(std::uint16_t b) { return std::bit_cast<float>(std::uint32_t{b} << 16); }
std::uint16_t f32_to_bf16(float x);  // round to nearest even; NaN stays a (quiet) NaN
float f16_to_f32(std::uint16_t h);
std::uint16_t f32_to_f16(float x);  // round to nearest even, overflow to infinity
float e4m3_to_f32(std::uint8_t b);
std::uint8_t f32_to_e4m3(float x);  // round to nearest even, saturates at ±448, NaN to 0x7F | sign
float e5m2_to_f32(std::uint8_t b);
std::uint8_t f32_to_e5m2(
    float x);  // round to nearest even, saturates at ±57344; infinity stays infinity
float e8m0_to_f32(std::uint8_t b);     // 255 is NaN
std::uint8_t f32_to_e8m0_up(float x);  // smallest power of two >= x; x > 0

/// Rounds a float to bf16 or f16 and back.
inline float round_bf16(float x) { return bf16_to_f32(f32_to_bf16(x)); }
inline float round_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

/// Decodes `n` values (whole blocks) of any floating or block dtype. src may be unaligned.
/// Source: GGUF blocks as the PyPI package `gguf` decodes them, bit for bit.
void dequantize_row(DType dtype, const void* src, float* dst, Index n);

/// Encodes `n` values (whole blocks); block types use the plain reference rule of their format
/// (round to nearest with the block's own scale). dst has row_bytes(dtype, n) bytes.
void quantize_row(DType dtype, const float* src, void* dst, Index n);

}  // namespace kogia
