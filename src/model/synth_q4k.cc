#include "model/synth_q4k.h"

#include <algorithm>
#include <cstring>

#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"

namespace kogia {
namespace {

constexpr int kGroup = 32, kGroups = 8, kBlockBytes = 144;

struct Group {
  float scale, min;  // x ≈ scale q - min, both at least 0
};

Group span_of(const float* x) {
  float low = 0, high = 0;
  for (int i = 0; i < kGroup; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  return {(high - low) / 15, -low};
}

/// x >= 0, to the nearest whole number up to `top`.
int nearest(float x, int top) { return std::min(static_cast<int>(x + 0.5F), top); }

float put_f16(float x, std::uint8_t* out) {
  const std::uint16_t h = f32_to_f16(x);
  std::memcpy(out, &h, 2);
  return f16_to_f32(h);
}

void encode_block(const float* x, std::uint8_t* out) {
  Group groups[kGroups];
  Group top{};
  for (int g = 0; g < kGroups; ++g) {
    groups[g] = span_of(x + g * kGroup);
    top = {std::max(top.scale, groups[g].scale), std::max(top.min, groups[g].min)};
  }
  const float d = put_f16(top.scale / 63, out), dmin = put_f16(top.min / 63, out + 2);
  ScaleMin packed{};
  for (int g = 0; g < kGroups; ++g) {
    packed.scale[g] = static_cast<std::uint8_t>(d > 0 ? nearest(groups[g].scale / d, 63) : 0);
    packed.min[g] = static_cast<std::uint8_t>(dmin > 0 ? nearest(groups[g].min / dmin, 63) : 0);
  }
  pack_scale_min(packed, out + 4);
  for (int g = 0; g < kGroups; ++g) {
    const float scale = d * static_cast<float>(packed.scale[g]);
    const float min = dmin * static_cast<float>(packed.min[g]), inverse = scale > 0 ? 1 / scale : 0;
    std::uint8_t* pairs = out + 16 + g / 2 * kGroup;
    for (int i = 0; i < kGroup; ++i) {
      const int q = nearest(std::max(0.0F, (x[g * kGroup + i] + min) * inverse), 15);
      pairs[i] = static_cast<std::uint8_t>(g % 2 == 0 ? q : pairs[i] | q << 4);
    }
  }
}

}  // namespace

void encode_q4_k_min_max(const float* x, std::byte* out, Index n) {
  for (Index i = 0; i < n / (kGroup * kGroups); ++i) {
    encode_block(x + i * kGroup * kGroups, reinterpret_cast<std::uint8_t*>(out) + i * kBlockBytes);
  }
}

}  // namespace kogia
