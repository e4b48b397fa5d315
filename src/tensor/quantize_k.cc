// q4_k, q5_k and q6_k: a search for each group's scale, then for the six- or eight-bit scales of
// the block and the f16 factors that they share.

#include <array>
#include <cstring>

#include "tensor/convert.h"
#include "tensor/gguf_blocks.h"
#include "tensor/quantize_encoders.h"
#include "tensor/quantize_search.h"

namespace kogia::quantize {
namespace {

using Byte = std::uint8_t;
constexpr int kBlock = 256;
constexpr float kLargestF16 = 65504;

void write_f16(Byte* p, float x) {
  const std::uint16_t h = f32_to_f16(x);
  std::memcpy(p, &h, 2);
}

float to_f16(float x) { return round_f16(clamped(x, -kLargestF16, kLargestF16)); }

int whole(float x, float unit, int bottom, int top) {
  if (unit == 0) return 0;
  return static_cast<int>(
      nearest(clamped(x / unit, static_cast<float>(bottom), static_cast<float>(top))));
}

// ---------------------------------------------------------------------------------------------------
// q4_k and q5_k: x ≈ d s q - dmin m, eight groups of 32

constexpr int kGroups = 8, kGroup = 32, kTopScale = 63;

struct AffineBlock {
  const float* x = nullptr;
  float top = 0;  // 15 or 31
  float weight[kBlock] = {};
  float d = 0, dmin = 0;  // as f16 holds them
  ScaleMin sm = {};

  Affine grid_of(int s, int m) const {
    return {.scale = d * static_cast<float>(s), .least = -dmin * static_cast<float>(m)};
  }
  Affine grid(int g) const { return grid_of(sm.scale[g], sm.min[g]); }
  float error(int g, Affine a) const {
    return affine_error<kGroup>(x + g * kGroup, weight + g * kGroup, a, top);
  }
  float error() const {
    float total = 0;
    for (int g = 0; g < kGroups; ++g) total += error(g, grid(g));
    return total;
  }
};

void weigh(AffineBlock& b, const float* importance) {
  const float* x = b.x;
  if (importance != nullptr) {
    const float squares = 2 * sum<kBlock>([&](int i) { return x[i] * x[i]; }) / kBlock;
    for (int i = 0; i < kBlock; ++i) b.weight[i] = importance[i] * std::sqrt(squares + x[i] * x[i]);
    return;
  }
  for (int g = 0; g < kGroups; ++g) {
    const float* group = x + g * kGroup;
    const float rms = std::sqrt(sum<kGroup>([&](int i) { return group[i] * group[i]; }) / kGroup);
    for (int i = 0; i < kGroup; ++i) b.weight[g * kGroup + i] = rms + std::fabs(group[i]);
  }
}

/// Each group on its own, then the shared factors from the largest.
void fit_groups(AffineBlock& b) {
  constexpr Pitches kPitches = {.first = -1, .step = 0.1F, .n = 21};
  Affine fits[kGroups];
  float top_scale = 0, top_min = 0;
  for (int g = 0; g < kGroups; ++g) {
    fits[g] = fit_affine<kGroup>(b.x + g * kGroup, b.weight + g * kGroup, b.top, false, kPitches);
    top_scale = std::max(top_scale, fits[g].scale);
    top_min = std::max(top_min, -fits[g].least);
  }
  b.d = to_f16(top_scale / kTopScale);
  b.dmin = to_f16(top_min / kTopScale);
  for (int g = 0; g < kGroups; ++g) {
    b.sm.scale[g] = static_cast<Byte>(whole(fits[g].scale, b.d, 0, kTopScale));
    b.sm.min[g] = static_cast<Byte>(whole(-fits[g].least, b.dmin, 0, kTopScale));
  }
}

/// The neighbours of each group's two whole numbers.
void adjust_groups(AffineBlock& b) {
  for (int g = 0; g < kGroups; ++g) {
    const int s = b.sm.scale[g], m = b.sm.min[g];
    float best = b.error(g, b.grid(g));
    for (int i = std::max(s - 1, 0); i <= std::min(s + 1, kTopScale); ++i) {
      for (int j = std::max(m - 1, 0); j <= std::min(m + 1, kTopScale); ++j) {
        const float error = b.error(g, b.grid_of(i, j));
        if (!(error < best)) continue;
        best = error;
        b.sm.scale[g] = static_cast<Byte>(i);
        b.sm.min[g] = static_cast<Byte>(j);
      }
    }
  }
}

/// The best d and dmin for the codes that the present ones give: two unknowns, least squares.
/// Kept where the error goes down.
bool adjust_factors(AffineBlock& b) {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // a = s q, b = m
  for (int g = 0; g < kGroups; ++g) {
    const Affine grid = b.grid(g);
    const float inverse = grid.scale > 0 ? 1 / grid.scale : 0;
    const double s = b.sm.scale[g], m = b.sm.min[g];
    const float *x = b.x + g * kGroup, *w = b.weight + g * kGroup;
    const auto code = [&](int i) {
      return nearest(clamped((x[i] - grid.least) * inverse, 0, b.top));
    };
    const auto total = [](float v) { return static_cast<double>(v); };
    aa += s * s * total(sum<kGroup>([&](int i) { return w[i] * code(i) * code(i); }));
    ab += s * m * total(sum<kGroup>([&](int i) { return w[i] * code(i); }));
    bb += m * m * total(sum<kGroup>([&](int i) { return w[i]; }));
    ax += s * total(sum<kGroup>([&](int i) { return w[i] * code(i) * x[i]; }));
    bx += m * total(sum<kGroup>([&](int i) { return w[i] * x[i]; }));
  }
  AffineBlock other = b;
  const double determinant = aa * bb - ab * ab;
  if (determinant > 1e-9 * aa * bb) {
    other.d = to_f16(static_cast<float>((ax * bb - bx * ab) / determinant));
    other.dmin = to_f16(static_cast<float>((ax * ab - bx * aa) / determinant));
  } else if (aa > 0) {
    other.d = to_f16(static_cast<float>((ax + static_cast<double>(b.dmin) * ab) / aa));
  }
  if (!(other.d > 0 && other.dmin >= 0 && other.error() < b.error())) return false;
  b.d = other.d;
  b.dmin = other.dmin;
  return true;
}

AffineBlock fit_block(const float* x, const float* importance, float top) {
  AffineBlock b;
  b.x = x;
  b.top = top;
  weigh(b, importance);
  fit_groups(b);
  for (int round = 0; round < 3; ++round) {
    adjust_groups(b);
    if (!adjust_factors(b)) break;
  }
  return b;
}

void put_codes(const AffineBlock& b, Byte* codes) {
  for (int g = 0; g < kGroups; ++g) {
    const Affine grid = b.grid(g);
    const float inverse = grid.scale > 0 ? 1 / grid.scale : 0;
    for (int i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      codes[i] = static_cast<Byte>(nearest(clamped((b.x[i] - grid.least) * inverse, 0, b.top)));
    }
  }
}

void put_head(const AffineBlock& b, Byte* block) {
  write_f16(block, b.d);
  write_f16(block + 2, b.dmin);
  pack_scale_min(b.sm, block + 4);
}

/// The low four bits: pairs of values i and i + 32.
void put_pairs(const Byte* codes, Byte* pairs) {
  for (int i = 0; i < kBlock / 2; ++i) {
    const int low = i / kGroup * 2 * kGroup + i % kGroup;
    pairs[i] = static_cast<Byte>((codes[low] & 15) | (codes[low + kGroup] & 15) << 4);
  }
}

}  // namespace

void encode_q4_k(const float* x, const float* importance, Byte* block) {
  const AffineBlock b = fit_block(x, importance, 15);
  Byte codes[kBlock];
  put_codes(b, codes);
  put_head(b, block);
  put_pairs(codes, block + 16);
}

void encode_q5_k(const float* x, const float* importance, Byte* block) {
  const AffineBlock b = fit_block(x, importance, 31);
  Byte codes[kBlock];
  put_codes(b, codes);
  put_head(b, block);
  Byte* high = block + 16;
  std::fill(high, high + kGroup, Byte{0});
  for (int i = 0; i < kBlock; ++i) {
    high[i % kGroup] |= static_cast<Byte>(codes[i] >> 4 << (i / kGroup));
  }
  put_pairs(codes, block + 48);
}

// ---------------------------------------------------------------------------------------------------
// q6_k: x ≈ d s q, sixteen groups of 16

namespace {

constexpr int kParts = 16, kPart = 16;
constexpr float kBottom6 = -32, kTop6 = 31;

struct SymmetricBlock {
  const float* x = nullptr;
  float weight[kBlock] = {};
  float d = 0;
  int scale[kParts] = {};

  float error(int j, int s) const {
    return symmetric_error<kPart>(x + j * kPart, weight + j * kPart, d * static_cast<float>(s),
                                  kBottom6, kTop6);
  }
  float error() const {
    float total = 0;
    for (int j = 0; j < kParts; ++j) total += error(j, scale[j]);
    return total;
  }
};

void fit_parts(SymmetricBlock& b) {
  float fits[kParts];
  for (int j = 0; j < kParts; ++j) {
    fits[j] = fit_symmetric<kPart>(b.x + j * kPart, b.weight + j * kPart, kBottom6, kTop6);
  }
  b.d = to_f16(largest_by_magnitude(fits, kParts) / -128);
  for (int j = 0; j < kParts; ++j) b.scale[j] = whole(fits[j], b.d, -128, 127);
}

void adjust_parts(SymmetricBlock& b) {
  for (int j = 0; j < kParts; ++j) {
    const int s = b.scale[j];
    float best = b.error(j, s);
    for (const int other : {s - 1, s + 1}) {
      if (other < -128 || other > 127) continue;
      const float error = b.error(j, other);
      if (error < best) best = error, b.scale[j] = other;
    }
  }
}

bool adjust_factor(SymmetricBlock& b) {
  double qq = 0, qx = 0;
  for (int j = 0; j < kParts; ++j) {
    const float scale = b.d * static_cast<float>(b.scale[j]);
    const float inverse = scale != 0 ? 1 / scale : 0;
    const float *x = b.x + j * kPart, *w = b.weight + j * kPart;
    const auto code = [&](int i) { return nearest(clamped(x[i] * inverse, kBottom6, kTop6)); };
    const double s = b.scale[j];
    qq += s * s * static_cast<double>(sum<kPart>([&](int i) { return w[i] * code(i) * code(i); }));
    qx += s * static_cast<double>(sum<kPart>([&](int i) { return w[i] * code(i) * x[i]; }));
  }
  SymmetricBlock other = b;
  if (qq > 0) other.d = to_f16(static_cast<float>(qx / qq));
  if (other.d == 0 || !(other.error() < b.error())) return false;
  b.d = other.d;
  return true;
}

}  // namespace

void encode_q6_k(const float* x, const float* importance, Byte* block) {
  SymmetricBlock b;
  b.x = x;
  for (int i = 0; i < kBlock; ++i) b.weight[i] = importance ? importance[i] : 1;
  fit_parts(b);
  for (int round = 0; round < 3; ++round) {
    adjust_parts(b);
    if (!adjust_factor(b)) break;
  }
  std::fill(block, block + 192, Byte{0});
  write_f16(block + 208, b.d);
  for (int j = 0; j < kParts; ++j) {
    block[192 + j] = static_cast<Byte>(static_cast<std::int8_t>(b.scale[j]));
    const float scale = b.d * static_cast<float>(b.scale[j]);
    const float inverse = scale != 0 ? 1 / scale : 0;
    for (int i = j * kPart; i < (j + 1) * kPart; ++i) {
      const int code = static_cast<int>(nearest(clamped(x[i] * inverse, kBottom6, kTop6))) + 32;
      const int half = i / 128, group = i / 32 % 4, l = i % 32;
      block[half * 64 + group % 2 * 32 + l] |= static_cast<Byte>((code & 15) << (group / 2 * 4));
      block[128 + half * 32 + l] |= static_cast<Byte>(code >> 4 << (group * 2));
    }
  }
}

}  // namespace kogia::quantize
