// E4M3 with a scale a tile: every instruction set gives the bits of the definition.

#include <cmath>
#include <limits>

#include "device/device_testing.h"
#include "tensor/convert.h"

namespace kogia::testing {
namespace {

struct Case {
  Index rows, cols;
};
constexpr Case kCases[] = {{0, 5}, {1, 1}, {3, 127}, {5, 128}, {2, 129}, {130, 300}, {7, 16}};

/// Numbers of all sizes, zeros, and rows and columns of nothing but zeros.
std::vector<float> numbers(const Case& c) {
  std::vector<float> x;
  for (Index i = 0; i < c.rows * c.cols; ++i) {
    const auto k = static_cast<std::uint32_t>(i * 2654435761U);
    const float size =
        std::ldexp(1.0F + static_cast<float>(k % 4096) / 4096, static_cast<int>(k >> 12) % 24 - 18);
    x.push_back(i / c.cols == 1 || i % c.cols == 3 || k % 11 == 0 ? 0 : k % 2 == 0 ? size : -size);
  }
  return x;
}

float scale_of(float largest) { return std::max(largest, 1e-4F) / 448; }

TEST(Fp8Tiles, AlongRowsAreTheDefinitionToTheBit) {
  for (const Case& c : kCases) {
    const std::vector<float> x = numbers(c);
    const Index n_tiles = ceil_div(c.cols, kFp8Tile);
    const auto n = static_cast<std::size_t>(c.rows * c.cols);
    std::vector<float> expected(n), scales(static_cast<std::size_t>(c.rows * n_tiles));
    std::vector<std::uint8_t> codes(n);
    for (Index r = 0; r < c.rows; ++r) {
      for (Index t = 0; t < n_tiles; ++t) {
        const Index begin = r * c.cols + t * kFp8Tile;
        const Index end = r * c.cols + std::min((t + 1) * kFp8Tile, c.cols);
        float largest = 0;
        for (Index i = begin; i < end; ++i)
          largest = std::max(largest, std::fabs(x[static_cast<std::size_t>(i)]));
        const float s = scale_of(largest);
        scales[static_cast<std::size_t>(r * n_tiles + t)] = s;
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          codes[i] = f32_to_e4m3(x[i] / s);
          expected[i] = e4m3_to_f32(codes[i]) * s;
        }
      }
    }
    for (const Isa isa : available_isas()) {
      for (const int n_threads : {1, 2}) {
        const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
        std::vector<float> y(n, 7), s(scales.size(), 7), decoded(n, 7);
        std::vector<std::uint8_t> got(n, 7);
        device->fp8({.x = x.data(),
                     .x_stride = c.cols,
                     .rows = c.rows,
                     .cols = c.cols,
                     .blocks = {},
                     .y = y.data(),
                     .y_stride = c.cols,
                     .codes = got.data(),
                     .scales = s.data()});
        device->fp8_decode({.codes = got.data(),
                            .scales = s.data(),
                            .rows = c.rows,
                            .cols = c.cols,
                            .y = decoded.data(),
                            .y_stride = c.cols});
        EXPECT_TRUE(same_bits(y, expected)) << name(isa) << " " << c.rows << " x " << c.cols;
        EXPECT_EQ(got, codes) << name(isa);
        EXPECT_TRUE(same_bits(s, scales)) << name(isa);
        EXPECT_TRUE(same_bits(decoded, expected)) << name(isa);
      }
    }
  }
}

TEST(Fp8Tiles, OfColumnsAreTheDefinitionToTheBit) {
  for (const Case& c : kCases) {
    const std::vector<float> x = numbers(c);
    std::vector<TokenBlock> blocks;
    for (Index r = 0; r < c.rows; r += 50) blocks.push_back({r, std::min<Index>(50, c.rows - r)});
    std::vector<float> expected = x;
    for (const TokenBlock& b : blocks) {
      for (Index i = 0; i < c.cols; ++i) {
        const auto at = [&](Index r) { return static_cast<std::size_t>(r * c.cols + i); };
        float largest = 0;
        for (Index r = b.begin; r < b.begin + b.n; ++r)
          largest = std::max(largest, std::fabs(x[at(r)]));
        const float s = scale_of(largest);
        for (Index r = b.begin; r < b.begin + b.n; ++r) {
          expected[at(r)] = e4m3_to_f32(f32_to_e4m3(x[at(r)] / s)) * s;
        }
      }
    }
    for (const Isa isa : available_isas()) {
      for (const int n_threads : {1, 2}) {
        const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
        std::vector<float> y = x;  // in place
        if (blocks.empty()) continue;
        device->fp8({.x = y.data(),
                     .x_stride = c.cols,
                     .rows = c.rows,
                     .cols = c.cols,
                     .blocks = blocks,
                     .y = y.data(),
                     .y_stride = c.cols});
        EXPECT_TRUE(same_bits(y, expected)) << name(isa) << " " << c.rows << " x " << c.cols;
      }
    }
  }
}

// A gradient that is no number must not become one.
TEST(Fp8Tiles, WhatIsNoNumberStaysNone) {
  for (const Isa isa : available_isas()) {
    const auto device = make_cpu_device({.n_threads = 1, .isa = isa});
    std::vector<float> x(40, 1.0F);
    x[5] = std::numeric_limits<float>::quiet_NaN();
    device->fp8({.x = x.data(),
                 .x_stride = 40,
                 .rows = 1,
                 .cols = 40,
                 .blocks = {},
                 .y = x.data(),
                 .y_stride = 40});
    EXPECT_TRUE(std::isnan(x[5])) << name(isa);
  }
}

}  // namespace
}  // namespace kogia::testing
