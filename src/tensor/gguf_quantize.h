#pragma once
// Parts of quantize_blocks() (tensor/gguf_blocks.h) that lie in other files.

#include <cstdint>

#include "tensor/dtype.h"

namespace kogia {

/// One block of a format.
using EncodeBlock = void (*)(const float* x, std::uint8_t* block);

/// Of q5_k, iq4_nl, iq4_xs and mxfp4; null for the others.
EncodeBlock look_up_encoder(DType dtype);

}  // namespace kogia
