#pragma once
// The encoders that quantize.cc chooses from.

#include <cstdint>

namespace kogia::quantize {

/// A block's values and, where there is one, its importance; both finite and of a sane size.
using EncodeBlock = void (*)(const float* x, const float* importance, std::uint8_t* block);

void encode_q4_k(const float* x, const float* importance, std::uint8_t* block);
void encode_q5_k(const float* x, const float* importance, std::uint8_t* block);
void encode_q6_k(const float* x, const float* importance, std::uint8_t* block);

/// The formats of 32 values, with the weight of each value's error.
void encode_q4_0(const float* x, const float* weight, std::uint8_t* block);
void encode_q4_1(const float* x, const float* weight, std::uint8_t* block);
void encode_q5_0(const float* x, const float* weight, std::uint8_t* block);
void encode_q5_1(const float* x, const float* weight, std::uint8_t* block);

}  // namespace kogia::quantize
