// Every instruction set's matrix products against the reference: all formats, all arithmetics, odd
// sizes; and what determinism promises.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "device/device_testing.h"
#include "device/reference/matrix.h"
#include "device/stored_matrix.h"
#include "tensor/convert.h"

namespace kogia::testing {
namespace {

std::vector<float> multiply(Device& device, const Matrix& w, const std::vector<float>& x,
                            Index rows) {
  std::vector<float> y(static_cast<std::size_t>(rows * w.rows()), -1);
  const LinearArgs args = {.x = x.data(),
                           .x_stride = w.cols(),
                           .w = &w,
                           .y = y.data(),
                           .y_stride = w.rows(),
                           .rows = rows};
  device.linear({&args, 1});
  return y;
}

/// y of the reference and how far a sum in f32 may be from it: at most `n + 8` roundings of partial
/// sums that are no larger than Σ|x| times the largest code or minimum that makes up a weight,
/// which is at most three times the largest weight (a minimum and a scaled code may cancel).
void expect_like_reference(Device& device, const MatrixSource& source, const PackOptions& options,
                           Index rows, std::span<const float> values) {
  const auto theirs = reference::pack(source, options);
  const auto ours = device.pack(source, options);
  ASSERT_EQ(ours->rows(), theirs->rows());
  ASSERT_EQ(ours->cols(), theirs->cols());
  const Index n = ours->cols();
  const auto x = random_floats(rows * n, /*seed=*/7);
  ThreadPool pool(1);
  std::vector<float> expected(static_cast<std::size_t>(rows * ours->rows()));
  const LinearArgs args = {.x = x.data(),
                           .x_stride = n,
                           .w = theirs.get(),
                           .y = expected.data(),
                           .y_stride = ours->rows(),
                           .rows = rows};
  reference::linear({&args, 1}, pool);
  double largest = 0, sum = 0;
  for (const float w : values) largest = std::max(largest, std::fabs(static_cast<double>(w)));
  for (Index r = 0; r < rows; ++r) {
    double row_sum = 0;
    for (Index i = 0; i < n; ++i) {
      row_sum += std::fabs(static_cast<double>(x[static_cast<std::size_t>(r * n + i)]));
    }
    sum = std::max(sum, row_sum);
  }
  const double roundings = std::sqrt(static_cast<double>(n)) + 8;  // of random signs; 4 deviations
  expect_near(multiply(device, *ours, x, rows), expected,
              {.abs = 4 * roundings * 0x1p-24 * 3 * largest * sum, .rel = 0x1p-22});
}

TEST(Linear, AgreesWithTheReferenceInEveryFormatAndArithmetic) {
  for_each_cpu_target([](Device& device) {
    for (const DType dtype : kFormats) {
      for (const Compute compute : kComputes) {
        if (!reference::supports(dtype, compute)) continue;
        for (const Index rows : {1, 2, 7, 11, 65}) {
          const Index outs = rows == 1 ? 131 : 53;
          const Index cols = info(dtype).block_values == 1    ? 77 + rows
                             : info(dtype).block_values == 32 ? 96
                                                              : 512;
          SCOPED_TRACE(::testing::Message()
                       << name(dtype) << " in " << name(compute) << ", " << rows << " rows");
          const Stored m = store(dtype, outs, cols, /*seed=*/1);
          expect_like_reference(device, m.source, {.compute = compute}, rows, m.values);
        }
      }
    }
  });
}

// Kernels may keep such weights in another way than those with a -128: random bytes have one.
TEST(Linear, EightBitWeightsWithoutMinus128AreTheSame) {
  for_each_cpu_target([](Device& device) {
    Stored m = store(DType::q8_0, 53, 160, /*seed=*/30);
    for (std::size_t i = 0; i < m.bytes.size(); ++i) {
      if (i % 34 >= 2 && m.bytes[i] == std::byte{0x80}) m.bytes[i] = std::byte{0x81};
    }
    dequantize_row(DType::q8_0, m.bytes.data(), m.values.data(), 53 * 160);
    for (const Compute compute : {Compute::f32, Compute::bf16, Compute::int16, Compute::int8}) {
      SCOPED_TRACE(name(compute));
      for (const Index rows : {1, 3, 66}) {
        expect_like_reference(device, m.source, {.compute = compute}, rows, m.values);
      }
      const auto w = device.pack(m.source, {.compute = compute});
      const auto x = random_floats(13 * 160, /*seed=*/31);
      const auto all = multiply(device, *w, x, 13);
      for (const Index r : {0, 7, 12}) {
        EXPECT_TRUE(same_bits(multiply(device, *w, row(x, r, 160), 1), row(all, r, 53))) << r;
      }
      // One -128 more, and nothing else may change.
      Stored lowest = m;
      lowest.bytes[5] = std::byte{0x80};
      lowest.source.data = lowest.bytes.data();
      const auto with = multiply(device, *device.pack(lowest.source, {.compute = compute}), x, 13);
      for (Index r = 0; r < 13; ++r) {
        for (Index o = 1; o < 53; ++o) {
          const auto at = static_cast<std::size_t>(r * 53 + o);
          ASSERT_EQ(with[at], all[at]) << r << ", " << o;
        }
      }
    }
  });
}

TEST(Linear, AppliesFp8ScalesOfSlicesAndRaggedBlocks) {
  for_each_cpu_target([](Device& device) {
    for (const Compute compute : {Compute::f32, Compute::bf16, Compute::fp8}) {
      for (const Index block_cols : {128, 100, 32}) {
        for (const Index first_row : {0, 100, 128}) {
          SCOPED_TRACE(::testing::Message() << name(compute) << ", blocks of " << block_cols
                                            << " columns, from row " << first_row);
          Stored m = store(DType::f8_e4m3, 150, 300, /*seed=*/2);
          add_scales(m, 128, block_cols, first_row);
          expect_like_reference(device, m.source, {.compute = compute}, 9, m.values);
        }
      }
    }
  });
}

TEST(Linear, TransposedPackingMultipliesByTheTranspose) {
  for_each_cpu_target([](Device& device) {
    for (const DType dtype : kFormats) {
      for (const Compute compute : kComputes) {
        if (!reference::supports(dtype, compute)) continue;
        SCOPED_TRACE(::testing::Message() << name(dtype) << " in " << name(compute));
        Stored m = store(dtype, 70, 256, /*seed=*/3);
        if (dtype == DType::f8_e4m3) add_scales(m, 128, 128, 64);
        expect_like_reference(device, m.source, {.compute = compute, .transpose = true}, 5,
                              m.values);
      }
    }
  });
}

TEST(Linear, ARowsBitsDependOnNothingButItself) {
  for (const int n_threads : {1, 3}) {
    for_each_cpu_target(
        [](Device& device) {
          for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3,
                                    DType::q4_1, DType::q5_0, DType::q8_0, DType::q3_k, DType::q4_k,
                                    DType::q6_k, DType::iq4_nl, DType::iq4_xs, DType::mxfp4}) {
            for (const Compute compute : kComputes) {
              if (!reference::supports(dtype, compute)) continue;
              SCOPED_TRACE(::testing::Message() << name(dtype) << " in " << name(compute));
              const Index n = 512, outs = 150, rows = 77;
              const Stored m = store(dtype, outs, n, /*seed=*/4);
              const auto w = device.pack(m.source, {.compute = compute});
              const auto x = random_floats(rows * n, /*seed=*/5);
              const auto all = multiply(device, *w, x, rows);
              for (const Index r : {0, 5, 63, 64, 75, 76}) {
                EXPECT_TRUE(same_bits(multiply(device, *w, row(x, r, n), 1), row(all, r, outs)))
                    << "row " << r << " by itself";
              }
              const std::vector<float> some(x.begin() + 3 * n, x.begin() + 14 * n);
              const auto y = multiply(device, *w, some, 11);
              for (Index r = 0; r < 11; ++r) {
                EXPECT_TRUE(same_bits(row(y, r, outs), row(all, r + 3, outs))) << "row " << r + 3;
              }
            }
          }
        },
        n_threads);
  }
}

TEST(Linear, OneCallTakesManyProducts) {
  for_each_cpu_target([](Device& device) {
    // Two share x, others have few rows, none, another format, more columns than they need.
    const Stored a = store(DType::q4_1, 80, 256, 6), b = store(DType::q6_k, 33, 256, 7),
                 c = store(DType::f32, 20, 100, 8);
    const auto wa = device.pack(a.source, {.compute = device.default_compute(DType::q4_1)});
    const auto wb = device.pack(b.source, {.compute = device.default_compute(DType::q6_k)});
    const auto wc = device.pack(c.source, {.compute = Compute::f32});
    const Index rows = 70;
    const auto x = random_floats(rows * 256, /*seed=*/9);
    const std::vector<const Matrix*> w = {wa.get(), wb.get(), wc.get(), wa.get(), wb.get()};
    const std::vector<Index> n_rows = {rows, rows, rows, 0, 3};
    std::vector<std::vector<float>> y;
    std::vector<LinearArgs> products;
    for (std::size_t i = 0; i < w.size(); ++i) {
      y.emplace_back(static_cast<std::size_t>(rows * w[i]->rows()), -1.0F);
      products.push_back({.x = x.data(),
                          .x_stride = 256,
                          .w = w[i],
                          .y = y.back().data(),
                          .y_stride = w[i]->rows(),
                          .rows = n_rows[i]});
    }
    device.linear(products);
    for (std::size_t i = 0; i < w.size(); ++i) {
      for (Index r = 0; r < n_rows[i]; ++r) {
        const auto xr = row(x, r, 256);
        EXPECT_TRUE(same_bits(multiply(device, *w[i], xr, 1), row(y[i], r, w[i]->rows())))
            << "product " << i << " row " << r;
      }
    }
    EXPECT_TRUE(std::all_of(y[3].begin(), y[3].end(), [](float v) { return v == -1; }));
    device.linear({});
  });
}

TEST(Linear, AddsBiasAndResidualInPlaceAndKeepsToItsColumns) {
  for_each_cpu_target([](Device& device) {
    for (const Index rows : {1, 13}) {
      const Stored m = store(DType::q8_0, 37, 64, /*seed=*/10);
      const auto w = device.pack(m.source, {.compute = Compute::f32});
      const auto x = random_floats(rows * 64, /*seed=*/11), bias = random_floats(37, /*seed=*/12);
      const auto before = random_floats(rows * 50, /*seed=*/13);
      const auto plain = multiply(device, *w, x, rows);
      auto y = before;
      const LinearArgs args = {.x = x.data(),
                               .x_stride = 64,
                               .w = w.get(),
                               .bias = bias.data(),
                               .residual = y.data(),
                               .y = y.data(),
                               .y_stride = 50,
                               .rows = rows};
      device.linear({&args, 1});
      for (Index r = 0; r < rows; ++r) {
        for (Index o = 0; o < 50; ++o) {
          const auto at = static_cast<std::size_t>(r * 50 + o);
          const auto out = static_cast<std::size_t>(o);
          const float expected =
              o < 37 ? plain[static_cast<std::size_t>(r * 37 + o)] + bias[out] + before[at]
                     : before[at];
          EXPECT_NEAR(y[at], expected, o < 37 ? 1e-5F : 0.0F);
        }
      }
    }
  });
}

TEST(Linear, NotANumberStaysInItsRow) {
  for_each_cpu_target([](Device& device) {
    const Stored m = store(DType::q4_1, 40, 64, /*seed=*/14);
    for (const Compute compute : {Compute::f32, Compute::bf16, Compute::int16, Compute::int8}) {
      const auto w = device.pack(m.source, {.compute = compute});
      auto x = random_floats(9 * 64, /*seed=*/15);
      x[4 * 64 + 3] = std::nanf("");
      const auto y = multiply(device, *w, x, 9);
      for (std::size_t i = 0; i < y.size(); ++i) {
        EXPECT_EQ(std::isnan(y[i]), i / 40 == 4) << "row " << i / 40;
      }
    }
  });
}

bool block_has_min(DType dtype) {
  return dtype == DType::q4_1 || dtype == DType::q5_1 || dtype == DType::q4_k ||
         dtype == DType::q5_k;
}

/// Every code of a block the same; sub-scales too, where the format has such.
Stored extreme(DType dtype, std::byte code) {
  Stored m = store(dtype, 33, 512, /*seed=*/20);
  const Index size = info(dtype).block_bytes;
  const auto kept = m.bytes;
  std::fill(m.bytes.begin(), m.bytes.end(), code);
  const auto keep = [&](Index offset, Index n = 2) {  // scales that are finite
    for (Index b = 0; b < static_cast<Index>(m.bytes.size()) / size; ++b) {
      const auto from = kept.begin() + b * size + offset;
      std::copy(from, from + n, m.bytes.begin() + b * size + offset);
    }
  };
  if (dtype == DType::q2_k) {
    keep(80), keep(82);
  } else if (dtype == DType::q3_k) {
    keep(108);
  } else if (dtype == DType::q6_k) {
    keep(208);
  } else if (dtype == DType::mxfp4) {
    keep(0, 1);
  } else {
    keep(0);
    if (block_has_min(dtype)) keep(2);
  }
  dequantize_row(dtype, m.bytes.data(), m.values.data(), 33 * 512);
  return m;
}

TEST(Linear, TheLargestWholeNumbersDoNotOverflow) {
  for_each_cpu_target([](Device& device) {
    for (const DType dtype : kFormats) {
      if (!is_block(dtype)) continue;
      for (const int code : {0x00, 0x7F, 0x80, 0xFF}) {
        for (const Compute compute : {Compute::int8, Compute::int16}) {
          SCOPED_TRACE(::testing::Message()
                       << name(dtype) << " of bytes " << code << " in " << name(compute));
          const Stored m = extreme(dtype, static_cast<std::byte>(code));
          const auto theirs = reference::pack(m.source, {.compute = compute});
          const auto ours = device.pack(m.source, {.compute = compute});
          for (const float sign : {1.0F, -1.0F}) {
            const std::vector<float> x(5 * 512, sign * 1.5F);  // all become the largest or -largest
            std::vector<float> expected(5 * 33);
            ThreadPool pool(1);
            const LinearArgs args = {.x = x.data(),
                                     .x_stride = 512,
                                     .w = theirs.get(),
                                     .y = expected.data(),
                                     .y_stride = 33,
                                     .rows = 5};
            reference::linear({&args, 1}, pool);
            float largest = 0;
            for (const float w : m.values) largest = std::max(largest, std::fabs(w));
            expect_near(multiply(device, *ours, x, 5), expected,
                        {.abs = 1e-5 * 512 * 1.5 * static_cast<double>(largest), .rel = 1e-5});
          }
        }
      }
    }
  });
}

TEST(Packing, FormatsKeepTheirSize) {
  const auto bound = [](const MatrixSource& s, Index file_bytes, const PackOptions& options,
                        Device& device) {
    const auto w = device.pack(s, options);
    // The byte of a mxfp4 block's scale becomes four.
    const double room = s.dtype == DType::mxfp4 ? 1.18 : 1.15;
    const PackedForm form = device.packed_form(s, options);
    if (form.repacked.empty()) {
      EXPECT_LE(static_cast<double>(w->n_bytes()), room * static_cast<double>(file_bytes));
    } else {
      EXPECT_GT(w->n_bytes(), file_bytes) << form.repacked;
    }
  };
  for_each_cpu_target([&](Device& device) {
    for (const DType dtype : kFormats) {
      for (const Compute compute : kComputes) {
        if (!reference::supports(dtype, compute)) continue;
        const Index block = std::max<Index>(32, info(dtype).block_values);
        for (const Index blocks : {1, 2, 3, 10}) {
          for (const Index rows : {16, 48}) {
            const Index cols = blocks * block;
            SCOPED_TRACE(::testing::Message() << name(dtype) << " in " << name(compute) << ", ["
                                              << rows << ", " << cols << "]");
            Stored m = store(dtype, rows, cols, /*seed=*/19);
            bound(m.source, rows * row_bytes(dtype, cols), {.compute = compute}, device);
            if (dtype != DType::f8_e4m3) continue;
            add_scales(m, 128, 128, 0);
            bound(m.source, rows * row_bytes(dtype, cols), {.compute = compute}, device);
          }
        }
      }
    }
  });
}

TEST(Packing, WhatIsKeptInAWiderFormSaysSo) {
  for_each_cpu_target([](Device& device) {
    const bool looks_up = device.name() == "cpu/avx512", scalar = device.name() == "cpu/scalar";
    for (const DType dtype : kFormats) {
      for (const Compute compute : kComputes) {
        if (!reference::supports(dtype, compute)) continue;
        const Stored m = store(dtype, 2, 256, /*seed=*/26);
        std::string expected;
        const bool whole = compute == Compute::int8 || compute == Compute::int16;
        if (!scalar && !(looks_up && !whole)) {
          if (dtype == DType::iq4_nl || dtype == DType::iq4_xs) expected = "8-bit codes";
          if (dtype == DType::mxfp4) expected = "5-bit codes";
        }
        EXPECT_EQ(device.packed_form(m.source, {.compute = compute}).repacked, expected)
            << name(dtype) << " in " << name(compute);
      }
    }
    Stored odd = store(DType::f8_e4m3, 2, 256, /*seed=*/27);
    add_scales(odd, 100, 100, 0);
    EXPECT_EQ(device.packed_form(odd.source, {.compute = Compute::bf16}).repacked,
              scalar ? "" : "f32");
  });
}

TEST(Linear, WhatCannotBeMultipliedIsRefused) {
  for_each_cpu_target([](Device& device) {
    const Stored plain = store(DType::bf16, 2, 32, 16), blocks = store(DType::q8_0, 2, 32, 17);
    EXPECT_THROW(device.pack(plain.source, {.compute = Compute::int8}), Error);
    EXPECT_THROW(device.pack(plain.source, {.compute = Compute::fp8}), Error);
    EXPECT_THROW(device.pack(blocks.source, {.compute = Compute::fp8}), Error);
  });
}

TEST(Embed, GivesTheStoredRowsBitForBit) {
  for_each_cpu_target([](Device& device) {
    for (const DType dtype : kFormats) {
      Stored m = store(dtype, 50, is_block(dtype) ? 512 : 75, /*seed=*/18);
      if (dtype == DType::f8_e4m3) add_scales(m, 16, 32, 5);
      const Index n = m.source.cols;
      std::vector<std::int32_t> ids;
      for (std::int32_t i = 0; i < 40; ++i) ids.push_back(i * 7 % 50);
      std::vector<std::unique_ptr<Matrix>> tables;
      tables.push_back(device.borrow(m.source, {}));
      for (const Compute compute : kComputes) {
        if (reference::supports(dtype, compute)) {
          tables.push_back(device.pack(m.source, {.compute = compute}));
        }
      }
      for (const auto& table : tables) {
        SCOPED_TRACE(::testing::Message() << name(dtype) << " in " << name(table->compute()));
        std::vector<float> y(static_cast<std::size_t>(40 * n));
        device.embed({.table = table.get(), .ids = ids, .y = y.data()});
        for (Index i = 0; i < 40; ++i) {
          const Index id = ids[static_cast<std::size_t>(i)];
          EXPECT_TRUE(same_bits(row(y, i, n), row(m.values, id, n))) << "row " << id;
        }
      }
    }
  });
}

}  // namespace
}  // namespace kogia::testing
