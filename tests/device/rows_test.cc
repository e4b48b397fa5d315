// Operations that work on rows: every instruction set against the definition, and the bits of a row
// whatever is beside it and however many threads there are.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "device/device_testing.h"
#include "tensor/view.h"

namespace kogia::testing {
namespace {

// Shorter than any vector register, one off its multiples, and large.
constexpr Index kSizes[] = {1, 7, 63, 64, 65, 1000};
constexpr Index kManyRows = 257;

/// op(device, first_row, n_rows) gives the rows' outputs, n numbers each. Checks that a row alone,
/// in any range and with 1, 2 and 3 threads has the same bits; returns all rows.
using RowOp = std::function<std::vector<float>(Device&, Index first, Index rows)>;
void expect_rows_independent(const RowOp& op, Index rows, Index n) {
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(name(isa));
    std::vector<float> all;
    for (const int n_threads : {1, 2, 3}) {
      const auto device = make_cpu_device({.n_threads = n_threads, .isa = isa});
      const auto out = op(*device, 0, rows);
      ASSERT_EQ(static_cast<Index>(out.size()), rows * n);
      if (all.empty()) all = out;
      EXPECT_TRUE(same_bits(out, all)) << "threads matter";
      EXPECT_TRUE(op(*device, 0, 0).empty()) << "zero rows";
      for (const Index r : {Index{0}, rows / 2, rows - 1}) {
        EXPECT_TRUE(same_bits(op(*device, r, 1), row(all, r, n))) << "the batch matters";
      }
    }
  }
}

std::span<const float> span_of(const std::vector<float>& v) { return v; }
double f64(float x) { return static_cast<double>(x); }

// ---------------------------------------------------------------------------------------------------

std::vector<float> run_rms_norm(Device& device, const float* x, Index rows,
                                const std::vector<float>& w, float eps = 1e-6F) {
  const Index n = static_cast<Index>(w.size());
  std::vector<float> y(static_cast<std::size_t>(rows * n));
  device.rms_norm({.x = x,
                   .x_stride = n,
                   .weight = w.data(),
                   .y = y.data(),
                   .y_stride = n,
                   .rows = rows,
                   .n = n,
                   .eps = eps});
  return y;
}

TEST(RmsNorm, EveryInstructionSetMatchesTheDefinition) {
  for (const Index n : kSizes) {
    SCOPED_TRACE(::testing::Message() << "n=" << n);
    const auto x = random_floats(33 * n, /*seed=*/1), w = random_floats(n, /*seed=*/2);
    std::vector<float> expected;
    for (Index r = 0; r < 33; ++r) {
      double sum = 0;
      for (const float v : row(x, r, n)) sum += f64(v) * f64(v);
      const double rms = std::sqrt(sum / static_cast<double>(n) + 1e-6);
      for (Index i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(i);
        expected.push_back(static_cast<float>(f64(row(x, r, n)[at]) / rms * f64(w[at])));
      }
    }
    for_each_cpu_target([&](Device& device) {
      expect_near(run_rms_norm(device, x.data(), 33, w), expected, {.rel = 2e-6});
    });
  }
}

TEST(RmsNorm, BitsOfARowAreItsOwn) {
  for (const Index n : kSizes) {
    SCOPED_TRACE(::testing::Message() << "n=" << n);
    const auto x = random_floats(kManyRows * n, /*seed=*/3), w = random_floats(n, /*seed=*/4);
    expect_rows_independent(
        [&](Device& device, Index first, Index rows) {
          return run_rms_norm(device, x.data() + first * n, rows, w);
        },
        kManyRows, n);
  }
}

TEST(RmsNorm, WorksInPlaceAndOnStridedRows) {
  for_each_cpu_target([](Device& device) {
    const Index n = 65, stride = 70, rows = 9;
    auto x = random_floats(rows * stride, /*seed=*/5);
    const auto w = random_floats(n, /*seed=*/6), original = x;
    device.rms_norm({.x = x.data(),
                     .x_stride = stride,
                     .weight = w.data(),
                     .y = x.data(),
                     .y_stride = stride,
                     .rows = rows,
                     .n = n});
    for (Index r = 0; r < rows; ++r) {
      const auto alone = run_rms_norm(device, original.data() + r * stride, 1, w);
      EXPECT_TRUE(
          same_bits(span_of(x).subspan(static_cast<std::size_t>(r * stride), 65), span_of(alone)));
      EXPECT_TRUE(same_bits(span_of(x).subspan(static_cast<std::size_t>(r * stride + n), 5),
                            span_of(original).subspan(static_cast<std::size_t>(r * stride + n), 5)))
          << "written beyond the row";
    }
  });
}

// ---------------------------------------------------------------------------------------------------

// cases N05
TEST(Rope, PairsAndHalvesAreTwoLayouts) {
  const float cos[] = {std::cos(1.0F), std::cos(0.01F)}, sin[] = {std::sin(1.0F), std::sin(0.01F)};
  const std::vector<float> pairs = {-1.142640F, 1.922076F, 2.959851F, 4.029800F};
  const std::vector<float> halves = {-1.984111F, 1.959901F, 2.462378F, 4.019800F};
  for_each_cpu_target([&](Device& device) {
    for (const RopeLayout layout : {RopeLayout::kInterleaved, RopeLayout::kHalves}) {
      std::vector<float> x = {1, 2, 3, 4};
      RopeArgs args = {.x = x.data(),
                       .row_stride = 4,
                       .head_stride = 4,
                       .rows = 1,
                       .n_heads = 1,
                       .n_rot = 4,
                       .cos = cos,
                       .sin = sin,
                       .layout = layout};
      device.rope(args);
      expect_near(x, layout == RopeLayout::kInterleaved ? pairs : halves, {.abs = 2e-6});
      args.inverse = true;
      device.rope(args);
      expect_near(x, std::vector<float>{1, 2, 3, 4}, {.abs = 1e-6});
    }
  });
}

struct RopeCase {
  Index n_heads, head_dim, n_rot;
  RopeLayout layout;
  std::vector<float> x, cos, sin;

  RopeCase(Index rows, Index heads, Index dim, Index rot, RopeLayout l)
      : n_heads(heads),
        head_dim(dim),
        n_rot(rot),
        layout(l),
        x(random_floats(rows * heads * dim, 7)) {
    for (Index i = 0; i < rows * rot / 2; ++i) {
      cos.push_back(static_cast<float>(std::cos(0.37 * static_cast<double>(i))));
      sin.push_back(static_cast<float>(std::sin(0.37 * static_cast<double>(i))));
    }
  }
  std::vector<float> run(Device& device, Index first, Index rows) const {
    const Index width = n_heads * head_dim;
    std::vector<float> y(x.begin() + first * width, x.begin() + (first + rows) * width);
    device.rope({.x = y.data(),
                 .row_stride = width,
                 .head_stride = head_dim,
                 .rows = rows,
                 .n_heads = n_heads,
                 .n_rot = n_rot,
                 .cos = cos.data() + first * (n_rot / 2),
                 .sin = sin.data() + first * (n_rot / 2),
                 .layout = layout});
    return y;
  }
  std::vector<float> expected(Index rows) const {
    std::vector<float> y = x;
    for (Index r = 0; r < rows; ++r) {
      for (Index h = 0; h < n_heads; ++h) {
        float* p = y.data() + (r * n_heads + h) * head_dim;
        for (Index i = 0; i < n_rot / 2; ++i) {
          float& a = layout == RopeLayout::kHalves ? p[i] : p[2 * i];
          float& b = layout == RopeLayout::kHalves ? p[i + n_rot / 2] : p[2 * i + 1];
          const auto t = static_cast<std::size_t>(r * (n_rot / 2) + i);
          const double c = f64(cos[t]), s = f64(sin[t]), a0 = f64(a), b0 = f64(b);
          a = static_cast<float>(a0 * c - b0 * s);
          b = static_cast<float>(a0 * s + b0 * c);
        }
      }
    }
    return y;
  }
};

TEST(Rope, EveryInstructionSetMatchesTheDefinitionAndLeavesTheRestAlone) {
  for (const RopeLayout layout : {RopeLayout::kInterleaved, RopeLayout::kHalves}) {
    for (const auto& [dim, rot] :
         {std::pair<Index, Index>{64, 64}, {7, 2}, {130, 126}, {192, 64}, {5, 0}}) {
      SCOPED_TRACE(::testing::Message() << "head_dim " << dim << ", n_rot " << rot);
      const RopeCase c(kManyRows, 3, dim, rot, layout);
      const auto expected = c.expected(kManyRows);
      for_each_cpu_target([&](Device& device) {
        const auto y = c.run(device, 0, kManyRows);
        expect_near(y, expected, {.abs = 1e-6, .rel = 1e-6});
        for (Index i = 0; i < kManyRows * 3; ++i) {
          const auto tail = static_cast<std::size_t>(i * dim + rot);
          const auto left = static_cast<std::size_t>(dim - rot);
          ASSERT_TRUE(same_bits(span_of(y).subspan(tail, left), span_of(c.x).subspan(tail, left)));
        }
      });
      expect_rows_independent(
          [&](Device& d, Index first, Index rows) { return c.run(d, first, rows); }, kManyRows,
          3 * dim);
    }
  }
}

// ---------------------------------------------------------------------------------------------------

std::vector<float> run_silu_mul(Device& device, const float* gate, const float* up, Index rows,
                                Index n) {
  std::vector<float> y(static_cast<std::size_t>(rows * n));
  device.silu_mul({.gate = gate,
                   .up = up,
                   .y = y.data(),
                   .rows = rows,
                   .n = n,
                   .gate_stride = n,
                   .up_stride = n,
                   .y_stride = n});
  return y;
}

TEST(SiluMul, EveryInstructionSetMatchesTheDefinition) {
  for (const Index n : kSizes) {
    const auto gate = random_floats(17 * n, /*seed=*/8, /*scale=*/4),
               up = random_floats(17 * n, /*seed=*/9);
    std::vector<float> expected(gate.size());
    for (std::size_t i = 0; i < gate.size(); ++i) {
      expected[i] = static_cast<float>(f64(gate[i]) / (1 + std::exp(-f64(gate[i]))) * f64(up[i]));
    }
    for_each_cpu_target([&](Device& device) {
      expect_near(run_silu_mul(device, gate.data(), up.data(), 17, n), expected, {.rel = 1e-6});
    });
    expect_rows_independent(
        [&](Device& d, Index first, Index rows) {
          return run_silu_mul(d, gate.data() + first * n, up.data() + first * n, rows, n);
        },
        17, n);
  }
}

TEST(SiluMul, ExtremeGatesSaturate) {
  const std::vector<float> gate = {-1e30F, -200,  -104, -88,   -87,       0,
                                   87,     88.7F, 89,   1e30F, -INFINITY, INFINITY};
  const std::vector<float> up(gate.size(), 1);
  for_each_cpu_target([&](Device& device) {
    const auto y = run_silu_mul(device, gate.data(), up.data(), 1, static_cast<Index>(gate.size()));
    for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(y[i], 0, 1e-34) << gate[i];
    EXPECT_EQ(y[5], 0);
    for (std::size_t i = 6; i < 10; ++i) EXPECT_EQ(y[i], gate[i]);
    EXPECT_EQ(y[11], INFINITY);
  });
  const float nan = std::nanf("");
  for_each_cpu_target([&](Device& device) {
    EXPECT_TRUE(std::isnan(run_silu_mul(device, &nan, up.data(), 1, 1)[0]));
  });
}

// e^x through silu: x e^x-like values over the whole range, to a few units of the last place.
TEST(SiluMul, SigmoidIsAccurateOverItsWholeRange) {
  std::vector<float> gate;
  for (float x = -86; x < 30; x += 0.00917F) gate.push_back(x);
  const std::vector<float> up(gate.size(), 1);
  for_each_cpu_target([&](Device& device) {
    const auto y = run_silu_mul(device, gate.data(), up.data(), 1, static_cast<Index>(gate.size()));
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double expected = f64(gate[i]) / (1 + std::exp(-f64(gate[i])));
      ASSERT_NEAR(f64(y[i]), expected, 5e-7 * std::fabs(expected)) << gate[i];
    }
  });
}

// ---------------------------------------------------------------------------------------------------

TEST(Combine, AddsExpertRowsInSlotOrder) {
  constexpr Index kTopK = 3, kTokens = 40;
  for (const Index n : kSizes) {
    const auto expert_rows = random_floats(kTokens * kTopK * n, /*seed=*/11);
    const auto weights = random_floats(kTokens * kTopK, /*seed=*/12),
               start = random_floats(kTokens * n, 13);
    std::vector<std::int32_t> row_of(kTokens * kTopK);
    for (std::size_t i = 0; i < row_of.size(); ++i)
      row_of[i] = static_cast<std::int32_t>(i * 7 % row_of.size());

    const auto run = [&](Device& device, Index first, Index rows) {
      std::vector<float> y(start.begin() + first * n, start.begin() + (first + rows) * n);
      device.combine({.expert_rows = expert_rows.data(),
                      .expert_stride = n,
                      .row_of = std::span(row_of).subspan(static_cast<std::size_t>(first * kTopK),
                                                          static_cast<std::size_t>(rows * kTopK)),
                      .weights = weights.data() + first * kTopK,
                      .rows = rows,
                      .top_k = kTopK,
                      .n = n,
                      .y = y.data(),
                      .y_stride = n});
      return y;
    };
    std::vector<float> expected(start.size());
    for (Index t = 0; t < kTokens; ++t) {
      for (Index i = 0; i < n; ++i) {
        double sum = f64(start[static_cast<std::size_t>(t * n + i)]);
        for (Index k = 0; k < kTopK; ++k) {
          const auto slot = static_cast<std::size_t>(t * kTopK + k);
          sum +=
              f64(weights[slot]) * f64(expert_rows[static_cast<std::size_t>(row_of[slot] * n + i)]);
        }
        expected[static_cast<std::size_t>(t * n + i)] = static_cast<float>(sum);
      }
    }
    for_each_cpu_target([&](Device& device) {
      expect_near(run(device, 0, kTokens), expected, {.abs = 2e-6, .rel = 1e-6});
    });
    expect_rows_independent(run, kTokens, n);
  }
}

TEST(GatherRows, CopiesRowsBitForBit) {
  for_each_cpu_target([](Device& device) {
    for (const Index n : kSizes) {
      const auto x = random_floats(50 * (n + 3), /*seed=*/14);
      std::vector<std::int32_t> index(200);
      for (std::size_t i = 0; i < index.size(); ++i)
        index[i] = static_cast<std::int32_t>(i * 13 % 50);
      std::vector<float> y(index.size() * static_cast<std::size_t>(n));
      device.gather_rows(
          {.x = x.data(), .x_stride = n + 3, .index = index, .y = y.data(), .y_stride = n, .n = n});
      for (std::size_t i = 0; i < index.size(); ++i) {
        const auto from = span_of(x).subspan(static_cast<std::size_t>(index[i] * (n + 3)),
                                             static_cast<std::size_t>(n));
        ASSERT_TRUE(same_bits(from, span_of(row(y, static_cast<Index>(i), n))));
      }
    }
  });
}

// ---------------------------------------------------------------------------------------------------

std::vector<float> run_log_prob(Device& device, const std::vector<float>& logits, Index n,
                                const std::vector<std::int32_t>& ids) {
  std::vector<float> out(ids.size());
  device.log_prob(
      {.logits = logits.data(), .stride = n, .n = n, .ids = ids, .log_prob = out.data()});
  return out;
}

TEST(LogProb, MatchesTheDefinition) {
  for (const Index n : {Index{1}, Index{7}, Index{63}, Index{65}, Index{1000}, Index{49152}}) {
    const auto logits = random_floats(5 * n, /*seed=*/15, /*scale=*/6);
    std::vector<std::int32_t> ids;
    std::vector<float> expected;
    for (Index r = 0; r < 5; ++r) {
      const auto z = row(logits, r, n);
      const double top = f64(*std::max_element(z.begin(), z.end()));
      double sum = 0;
      for (const float v : z) sum += std::exp(f64(v) - top);
      ids.push_back(static_cast<std::int32_t>(r * 31 % n));
      expected.push_back(
          static_cast<float>(f64(z[static_cast<std::size_t>(ids.back())]) - top - std::log(sum)));
    }
    for_each_cpu_target([&](Device& device) {
      const auto out = run_log_prob(device, logits, n, ids);
      expect_near(out, expected, {.abs = 1e-7, .rel = 1e-6});
      for (Index r = 0; r < 5; ++r) {
        const auto alone =
            run_log_prob(device, row(logits, r, n), n, {ids[static_cast<std::size_t>(r)]});
        EXPECT_TRUE(same_bits(alone, {out[static_cast<std::size_t>(r)]}));
      }
    });
  }
}

TEST(LogProb, MaskedLogitsCountForNothing) {
  const std::vector<float> logits = {-INFINITY, 2, -INFINITY, 2, -INFINITY};
  for_each_cpu_target([&](Device& device) {
    EXPECT_NEAR(run_log_prob(device, logits, 5, {1})[0], -std::log(2.0F), 1e-7F);
    EXPECT_EQ(run_log_prob(device, logits, 5, {0})[0], -INFINITY);
  });
}

}  // namespace
}  // namespace kogia::testing
