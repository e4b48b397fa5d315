// The quantisers that search: against llama.cpp's errors, against brute force, and on rows that no
// scale holds.

#include "tensor/quantize.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "tensor/convert.h"
#include "tensor/quantize_search.h"

namespace kogia {
namespace {

using namespace quantize;

constexpr DType kBlocks[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                             DType::q8_0, DType::q4_k, DType::q5_k, DType::q6_k};
constexpr Index kRows = 32, kCols = 1024;

std::vector<float> normals(std::uint64_t seed, Index n) {
  const Philox random(seed);
  std::vector<float> out;
  for (Index i = 0; i < n; ++i) out.push_back(random.normal(static_cast<std::uint64_t>(i)));
  return out;
}

std::vector<float> heavy_tails(std::vector<float> x) {
  for (float& v : x) v = v * v * v * 0.2F;
  return x;
}

std::vector<float> importance_of_columns() {
  std::vector<float> out = normals(2, kCols);
  for (float& v : out) v = v * v + 0.01F;
  return out;
}

using Encode = void (*)(DType, const float*, const float*, void*, Index);
void plain(DType dtype, const float* x, const float*, void* dst, Index n) {
  quantize_row(dtype, x, dst, n);
}

std::vector<float> there_and_back(DType dtype, const std::vector<float>& x, const float* importance,
                                  Index cols, Encode encode = encode_row) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(row_bytes(dtype, cols)));
  std::vector<float> out(x.size());
  for (Index at = 0; at < static_cast<Index>(x.size()); at += cols) {
    encode(dtype, x.data() + at, importance, bytes.data(), cols);
    dequantize_row(dtype, bytes.data(), out.data() + at, cols);
  }
  return out;
}

/// Σ importance · error² as a share of Σ importance · x².
double error_share(const std::vector<float>& x, const std::vector<float>& y,
                   const std::vector<float>& importance) {
  double error = 0, all = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double w = importance.empty() ? 1.0 : static_cast<double>(importance[i % kCols]);
    const double d = static_cast<double>(y[i]) - static_cast<double>(x[i]);
    error += w * d * d;
    all += w * static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
  return error / all;
}

// What ggml_quantize_chunk of llama.cpp (libggml-base 0.25.3) leaves of the same numbers: normal
// ones and heavy-tailed ones, each without an importance and with it.
struct Peer {
  DType dtype;
  double normal, normal_weighed, tails, tails_weighed;
};
constexpr Peer kPeers[] = {
    {DType::q4_0, 6.9899e-03, 5.3915e-03, 1.2302e-02, 1.0485e-02},
    {DType::q4_1, 5.8262e-03, 3.5908e-03, 1.2814e-02, 6.0790e-03},
    {DType::q5_0, 1.7244e-03, 1.3303e-03, 3.5518e-03, 3.0777e-03},
    {DType::q5_1, 1.3723e-03, 8.4084e-04, 2.8615e-03, 1.5551e-03},
    {DType::q8_0, 2.6590e-05, 2.6967e-05, 7.0887e-05, 7.2136e-05},
    {DType::q4_k, 4.8817e-03, 3.7178e-03, 8.2300e-03, 6.7378e-03},
    {DType::q5_k, 1.2455e-03, 9.7447e-04, 2.4113e-03, 2.0845e-03},
    {DType::q6_k, 2.9895e-04, 2.3183e-04, 5.9549e-04, 5.2157e-04},
};

TEST(Quantize, TheErrorIsNoLargerThanLlamaCpps) {
  const auto normal = normals(1, kRows * kCols), tails = heavy_tails(normal);
  const auto importance = importance_of_columns();
  for (const Peer& peer : kPeers) {
    SCOPED_TRACE(name(peer.dtype));
    const auto check = [&](const std::vector<float>& x, bool weighed, double theirs) {
      const auto y = there_and_back(peer.dtype, x, weighed ? importance.data() : nullptr, kCols);
      const double ours = error_share(x, y, weighed ? importance : std::vector<float>());
      EXPECT_LE(ours, theirs * 1.001) << (weighed ? "weighed" : "not weighed");
      EXPECT_GT(ours, theirs * 0.5) << "too good to be the same measure";
    };
    check(normal, false, peer.normal);
    check(normal, true, peer.normal_weighed);
    check(tails, false, peer.tails);
    check(tails, true, peer.tails_weighed);
  }
}

TEST(Quantize, TheErrorIsNoLargerThanThatOfThePlainRule) {
  const auto importance = importance_of_columns();
  for (const auto& x : {normals(3, kRows * kCols), heavy_tails(normals(4, kRows * kCols))}) {
    for (const DType dtype : kBlocks) {
      if (dtype == DType::q5_k) continue;  // has no plain rule
      SCOPED_TRACE(name(dtype));
      const double searched = error_share(x, there_and_back(dtype, x, importance.data(), kCols),
                                          importance),
                   rounded =
                       error_share(x, there_and_back(dtype, x, nullptr, kCols, plain), importance);
      EXPECT_LE(searched, rounded * (1 + 1e-6));
    }
  }
}

// The grid of every pitch and origin: 200 x 200 for the affine search, 4,000 for the symmetric one.
TEST(QuantizeSearch, IsCloseToBruteForce) {
  constexpr int kN = 16, kTrials = 12;
  double found = 0, best = 0, found_symmetric = 0, best_symmetric = 0;
  for (std::uint64_t trial = 0; trial < kTrials; ++trial) {
    const auto x = normals(100 + trial, kN);
    std::vector<float> w = normals(200 + trial, kN);
    for (float& v : w) v = v * v + 0.1F;
    const Affine fit =
        fit_affine<kN>(x.data(), w.data(), 15, true, {.first = -1, .step = 0.1F, .n = 21});
    found += static_cast<double>(affine_error<kN>(x.data(), w.data(), fit, 15));
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    float least_error = HUGE_VALF;
    for (int i = 0; i < 200; ++i) {
      for (int j = 0; j < 200; ++j) {
        const Affine grid = {
            .scale = (*high - *low) / 15 * (0.8F + 0.0015F * static_cast<float>(i)),
            .least = *low + (*high - *low) * (-0.05F + 0.0008F * static_cast<float>(j))};
        least_error = std::min(least_error, affine_error<kN>(x.data(), w.data(), grid, 15));
      }
    }
    best += static_cast<double>(least_error);

    const float scale = fit_symmetric<kN>(x.data(), w.data(), -8, 7);
    found_symmetric += static_cast<double>(symmetric_error<kN>(x.data(), w.data(), scale, -8, 7));
    const float extreme = largest_by_magnitude(x.data(), kN) / -8;
    least_error = HUGE_VALF;
    for (int i = 0; i < 4000; ++i) {
      const float s = extreme * (0.8F + 0.0001F * static_cast<float>(i));
      least_error = std::min(least_error, symmetric_error<kN>(x.data(), w.data(), s, -8, 7));
    }
    best_symmetric += static_cast<double>(least_error);
  }
  EXPECT_LE(found, best * 1.06);
  EXPECT_LE(found_symmetric, best_symmetric * 1.01);
  RecordProperty("affine", std::to_string(found / best));
  RecordProperty("symmetric", std::to_string(found_symmetric / best_symmetric));
}

TEST(Quantize, WeightsThatLieOnAGridComeBack) {
  for (const DType dtype : kBlocks) {
    SCOPED_TRACE(name(dtype));
    const auto x = there_and_back(dtype, normals(6, 4 * kCols), nullptr, kCols);
    // Twice encoded is not always once encoded (the search may find another grid), but near it.
    const auto y = there_and_back(dtype, x, nullptr, kCols);
    EXPECT_LE(error_share(x, y, {}), dtype == DType::q4_k ? 2e-3 : 3e-4);
  }
}

TEST(Quantize, WhatNoScaleHoldsStaysHarmless) {
  const float inf = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> bad = {nan,     -nan,   inf,   -inf,  3e38F,  -3e38F, 1e-45F,
                                  -1e-40F, 1e-20F, 1e-9F, 65504, -70000, 0,      -0.0F};
  const auto ordinary = normals(7, 512);
  for (const DType dtype : kBlocks) {
    SCOPED_TRACE(name(dtype));
    for (std::size_t kind = 0; kind <= bad.size(); ++kind) {
      std::vector<float> x = ordinary, all(512, kind < bad.size() ? bad[kind] : 0.0F);
      for (std::size_t i = 0; i < x.size(); i += 37) {
        x[i] = kind < bad.size() ? bad[kind] : bad[i % bad.size()];
      }
      for (const auto& row : {x, all}) {
        for (const float v : there_and_back(dtype, row, nullptr, 512)) {
          ASSERT_TRUE(std::isfinite(v)) << kind;
          ASSERT_LE(std::fabs(v), 65504 * 1.2F) << kind;
        }
      }
    }
    for (const float v : there_and_back(dtype, std::vector<float>(512, 0.0F), nullptr, 512)) {
      ASSERT_EQ(v, 0);
    }
  }
}

TEST(Quantize, AnyImportanceIsSafeAndOnlyRatiosCount) {
  const auto x = normals(8, 512);
  std::vector<float> ones(512, 1.0F), huge(512, 3e38F), zeros(512, 0.0F), mixed(512, 0.0F);
  for (std::size_t i = 0; i < 512; i += 3) mixed[i] = i % 2 == 0 ? 1e-38F : 1e38F;
  for (const DType dtype : kBlocks) {
    SCOPED_TRACE(name(dtype));
    EXPECT_EQ(there_and_back(dtype, x, ones.data(), 512),
              there_and_back(dtype, x, huge.data(), 512));
    EXPECT_EQ(there_and_back(dtype, x, zeros.data(), 512), there_and_back(dtype, x, nullptr, 512));
    for (const float v : there_and_back(dtype, x, mixed.data(), 512)) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST(Quantize, AColumnThatCountsMoreIsHeldMoreExactly) {
  const auto x = normals(9, kRows * kCols);
  std::vector<float> importance(kCols, 1.0F);
  for (std::size_t i = 0; i < importance.size(); i += 4) importance[i] = 100;
  std::vector<float> chosen(kCols, 0.0F);
  for (std::size_t i = 0; i < chosen.size(); i += 4) chosen[i] = 1;
  for (const DType dtype : {DType::q4_0, DType::q4_1, DType::q4_k, DType::q6_k}) {
    const auto with = there_and_back(dtype, x, importance.data(), kCols),
               without = there_and_back(dtype, x, nullptr, kCols);
    EXPECT_LT(error_share(x, with, chosen), 0.9 * error_share(x, without, chosen)) << name(dtype);
  }
}

TEST(Quantize, Fp8BlocksHoldEachWeightToHalfACode) {
  constexpr Index kR = 100, kC = 128, kStride = 130;
  auto x = normals(10, kR * kStride);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(kR * kStride), 0xEE);
  const float scale = encode_fp8_block(x.data(), kStride, kR, kC, codes.data(), kStride);
  float most = 0;
  for (Index r = 0; r < kR; ++r) {
    for (Index c = 0; c < kStride; ++c) {
      const auto i = static_cast<std::size_t>(r * kStride + c);
      if (c >= kC) {
        ASSERT_EQ(codes[i], 0xEE) << "written outside the block";
        continue;
      }
      most = std::max(most, std::fabs(x[i]));
      const float half_code = std::max(std::fabs(x[i]) / 16, scale * 0x1p-10F);
      ASSERT_LE(std::fabs(scale * e4m3_to_f32(codes[i]) - x[i]), half_code * 1.0001F);
    }
  }
  EXPECT_FLOAT_EQ(scale, most / 448);

  std::vector<float> odd(16, 0.0F);
  EXPECT_EQ(encode_fp8_block(odd.data(), 4, 4, 4, codes.data(), 4), 1);
  odd[3] = std::numeric_limits<float>::quiet_NaN();
  odd[5] = std::numeric_limits<float>::infinity();
  odd[7] = 2;
  EXPECT_FLOAT_EQ(encode_fp8_block(odd.data(), 4, 4, 4, codes.data(), 4), 2.0F / 448);
  EXPECT_EQ(e4m3_to_f32(codes[3]), 0);
  EXPECT_EQ(e4m3_to_f32(codes[5]), 448);
}

}  // namespace
}  // namespace kogia
