// Instructions for dot products of bytes where the processor has them, plain multiplications where
// not.

#include "base/page_memory.h"
#include "device/cpu/cpu_features.h"
#include "device/cpu/pack_panels.h"
#include "device/cpu/packed_matrix.h"
#include "device/device_testing.h"

namespace kogia::testing {
namespace {

#if defined(KOGIA_ARM_KERNELS) || defined(KOGIA_X86_KERNELS)

#ifdef KOGIA_ARM_KERNELS
const LinearKernels& kPlain = neon::kLinearKernels;
const LinearKernels& kDots = neon_dot::kLinearKernels;
bool has_dots() { return cpu_features().dotprod; }
#else
const LinearKernels& kPlain = avx2::kLinearKernels;
const LinearKernels& kDots = avx2_vnni::kLinearKernels;
bool has_dots() { return cpu_features().avx_vnni && cpu_features().fma; }
#endif

/// y = x Wᵀ of rows of x, all panels as one tile.
std::vector<float> multiply(const LinearKernels& kernels, const PackedView& w,
                            const std::vector<float>& x, Index rows) {
  const Index n = w.cols, n_padded = round_up(n, 32), stride = n_padded / 4;
  const Index sums_stride = 2 * w.n_groups;
  std::vector<float> quads(static_cast<std::size_t>(rows * stride));
  std::vector<float> sums(static_cast<std::size_t>(rows * sums_stride));
  for (Index r = 0; r < rows; ++r) {
    kernels.round_row({.x = x.data() + r * n,
                       .n = n,
                       .n_padded = n_padded,
                       .group = w.group,
                       .rounding = w.rounding,
                       .form = w.products,
                       .out = quads.data() + r * stride,
                       .sums = sums.data() + r * sums_stride});
  }
  std::vector<float> y(static_cast<std::size_t>(rows * w.rows));
  kernels.tile({.w = &w,
                .panel_begin = 0,
                .panel_end = w.n_panels(),
                .x = quads.data(),
                .x_stride = stride,
                .sums = sums.data(),
                .sums_stride = sums_stride,
                .rows = rows,
                .y = y.data(),
                .y_stride = w.rows});
  return y;
}

TEST(ByteProducts, DotProductsOfBytesGiveTheBitsOfPlainMultiplications) {
  if (!has_dots()) GTEST_SKIP() << "this processor lacks dot products of bytes";
  for (const DType dtype :
       {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::q2_k, DType::q3_k,
        DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_nl, DType::iq4_xs, DType::mxfp4}) {
    for (const Index rows : {1, 2, 3, 4, 7, 9}) {
      SCOPED_TRACE(::testing::Message() << name(dtype) << ", " << rows << " rows");
      const Index outs = 53, cols = 512;
      std::vector<std::byte> bytes(static_cast<std::size_t>(outs * row_bytes(dtype, cols)));
      const Philox random(/*seed=*/3);
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        // Without this bit every f16 is a number, whichever bytes a format has them in.
        const int byte = static_cast<int>(random.normal(i) * 100) & 0xBF;
        bytes[i] = static_cast<std::byte>(byte);
      }
      const MatrixSource source = {
          .dtype = dtype, .rows = outs, .cols = cols, .data = bytes.data()};
      const PackOptions options = {.compute = Compute::int8};
      const PackedView layout = panel_layout(source, options, /*pair_products=*/false, 0);
      const auto memory = allocate_pages(layout.n_panels() * layout.panel_bytes);
      pack_panels(source, /*transpose=*/false, layout, 0, layout.n_panels(), memory.get());
      const PackedMatrix matrix(source, options, layout, memory);
      const auto x = random_floats(rows * cols, /*seed=*/4);
      const auto plain = multiply(kPlain, matrix.view(), x, rows);
      const auto dots = multiply(kDots, matrix.view(), x, rows);
      for (const float y : plain) ASSERT_TRUE(std::isfinite(y));
      EXPECT_TRUE(same_bits(plain, dots));
    }
  }
}

#else

TEST(ByteProducts, DotProductsOfBytesGiveTheBitsOfPlainMultiplications) {
  GTEST_SKIP() << "no vector kernels for this processor";
}

#endif

}  // namespace
}  // namespace kogia::testing
