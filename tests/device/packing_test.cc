// Packing: in parts or as a whole the same bytes, from the checkpoint or from panels the same bits.

#include <algorithm>

#include "base/page_memory.h"
#include "device/cpu/pack_panels.h"
#include "device/device_testing.h"
#include "device/reference/matrix.h"
#include "device/stored_matrix.h"

namespace kogia::testing {
namespace {

/// y = x Wᵀ + bias + residual, everything at random.
std::vector<float> multiply(Device& device, const Matrix& w, Index rows) {
  const auto x = random_floats(rows * w.cols(), /*seed=*/21);
  const auto bias = random_floats(w.rows(), /*seed=*/22);
  std::vector<float> y = random_floats(rows * w.rows(), /*seed=*/23);
  const LinearArgs args = {.x = x.data(),
                           .x_stride = w.cols(),
                           .w = &w,
                           .bias = bias.data(),
                           .residual = y.data(),
                           .y = y.data(),
                           .y_stride = w.rows(),
                           .rows = rows};
  device.linear({&args, 1});
  return y;
}

/// Without the code -128: then Q8_0 has a layout of its own.
void leave_out_minus_128(Stored& m) {
  for (Index i = 0; i < static_cast<Index>(m.bytes.size()); ++i) {
    std::byte& code = m.bytes[static_cast<std::size_t>(i)];
    if (i % 34 >= 2 && code == std::byte{0x80}) code = std::byte{0x81};
  }
}

template <class Body>  // body(source, options)
void for_each_matrix(Index outs, Index blocks, const Body& body) {
  for (const DType dtype : kFormats) {
    for (const bool scaled : {false, true}) {  // or of other values
      if (scaled && dtype != DType::f8_e4m3 && dtype != DType::q8_0) continue;
      const bool plain = !is_block(dtype);
      Stored m = store(dtype, outs, plain ? blocks * 128 + 5 : blocks * 256, /*seed=*/24);
      if (scaled && dtype == DType::q8_0) leave_out_minus_128(m);
      if (scaled && dtype == DType::f8_e4m3) add_scales(m, 128, 128, 3);
      for (const Compute compute : kComputes) {
        if (!reference::supports(dtype, compute)) continue;
        for (const bool transpose : {false, true}) {
          SCOPED_TRACE(::testing::Message() << name(dtype) << (scaled ? " scaled" : "") << " in "
                                            << name(compute) << (transpose ? " transposed" : "")
                                            << " [" << outs << ", " << m.source.cols << "]");
          body(m.source, PackOptions{.compute = compute, .transpose = transpose});
        }
      }
    }
  }
}

TEST(BorrowedMatrices, GiveTheBitsOfPackedOnes) {
  for_each_cpu_target([](Device& device) {
    for (const Index outs : {1, 33, 500}) {  // more than one stretch of panels, for a block of them
      for_each_matrix(outs, outs > 100 ? 1 : 2, [&](const MatrixSource& s, const PackOptions& o) {
        const auto packed = device.pack(s, o), borrowed = device.borrow(s, o);
        ASSERT_EQ(borrowed->rows(), packed->rows());
        ASSERT_EQ(borrowed->cols(), packed->cols());
        EXPECT_EQ(borrowed->n_bytes(), 0);
        for (const Index rows : {1, 3, 70}) {  // 70: more than a tile
          if (rows == 70 && outs > 100) continue;
          EXPECT_TRUE(same_bits(multiply(device, *borrowed, rows), multiply(device, *packed, rows)))
              << rows << " rows";
        }
      });
    }
  });
}

// What is written in parts, wherever they end, is what is written at once.
TEST(Packing, PartsLieOneAfterAnother) {
  for_each_cpu_target([](Device& device) {
    for_each_matrix(50, 1, [&](const MatrixSource& s, const PackOptions& o) {
      const PackedForm form = device.packed_form(s, o);
      const Index rows = o.transpose ? s.cols : s.rows;
      const auto size = static_cast<std::size_t>(form.n_bytes);
      std::vector<std::byte> whole(size), parts(size, std::byte{0xFF});
      device.pack_rows(s, o, form, 0, rows, whole.data());
      for (Index first = 0; first < rows; first += form.row_step) {
        device.pack_rows(s, o, form, first, std::min(form.row_step, rows - first),
                         parts.data() + first / form.row_step * form.step_bytes);
      }
      EXPECT_EQ(parts, whole);
    });
  });
}

TEST(Packing, TheFormOfAMatrixPackedBeforeIsKnownWithoutItsValues) {
  for_each_cpu_target([](Device& device) {
    for_each_matrix(20, 1, [&](const MatrixSource& s, const PackOptions& o) {
      const PackedForm form = device.packed_form(s, o);
      MatrixSource unread = s;
      unread.data = reinterpret_cast<const std::byte*>(std::uintptr_t{64});  // a touch would crash
      const PackedForm again = device.packed_form(unread, o, form.variant);
      EXPECT_EQ(again.name, form.name);
      EXPECT_EQ(again.n_bytes, form.n_bytes);
      EXPECT_EQ(again.step_bytes, form.step_bytes);
    });
  });
}

/// FNV-1a.
std::uint64_t hash_of(const std::vector<std::byte>& bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte b : bytes) hash = (hash ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3;
  return hash;
}

struct LayoutHash {
  DType dtype;
  std::uint64_t hash;
  int variant = 0;
  bool pair_products = true;
};

// Files of packed weights are read by later programs. Where a number here changes, kPanelsVersion
// must be raised with it, or they would read other weights than those that were written.
TEST(Panels, TheirLayoutIsThatOfItsVersion) {
  ASSERT_EQ(kPanelsVersion, 1) << "renew the numbers below";
  constexpr LayoutHash kHashes[] = {
      {DType::f32, 0x5dfd9953f300c9d},
      {DType::f16, 0x9c5c8d2b8884a0b8},
      {DType::bf16, 0xb81de6dd8506bf15},
      {DType::f8_e4m3, 0x7fa1e8c1ee5c0e68},
      {DType::f8_e5m2, 0x23c734baa835a677},
      {DType::q4_0, 0x71878ef93ebdee9a},
      {DType::q4_1, 0x7ac13f9343f2d537},
      {DType::q5_0, 0xe3a2bc70f35a7dd6},
      {DType::q5_1, 0x3075dc1a3d2ce2d2},
      {DType::q8_0, 0xfbf4a3ca3ad48501},
      {DType::q2_k, 0x30d487774a4a59c},
      {DType::q3_k, 0xb68b7b2596da02d7},
      {DType::q4_k, 0x8e93494c7e57b607},
      {DType::q5_k, 0x8e11602406e0e939},
      {DType::q6_k, 0xaddd5c0a8dabd1ae},
      {DType::q8_0, 0xb427fb0d07b05c5b, 1},
      {DType::iq4_nl, 0x71878ef93ebdee9a},
      {DType::iq4_xs, 0xdd9ca2d4982f843f},
      {DType::mxfp4, 0x8db3e5ed79b81075},
      {DType::iq4_nl, 0xc51b5cabbc188351, 0, false},
      {DType::iq4_xs, 0x823467b1bc7bb4be, 0, false},
      {DType::mxfp4, 0xc08078114ab5ea70, 0, false},
  };
  for (const LayoutHash& expected : kHashes) {
    Stored m = store(expected.dtype, 40, 512, /*seed=*/25);
    if (expected.dtype == DType::f8_e4m3) add_scales(m, 128, 128, 0);
    if (expected.variant == 1) leave_out_minus_128(m);
    const PackedView layout =
        panel_layout(m.source, {.compute = expected.variant == 0 ? Compute::f32 : Compute::bf16},
                     expected.pair_products, expected.variant);
    std::vector<std::byte> panels(static_cast<std::size_t>(layout.n_panels() * layout.panel_bytes));
    pack_panels(m.source, false, layout, 0, layout.n_panels(), panels.data());
    EXPECT_EQ(hash_of(panels), expected.hash)
        << name(expected.dtype) << " variant " << expected.variant
        << (expected.pair_products ? "" : ", no bf16 products");
  }
}

}  // namespace
}  // namespace kogia::testing
