#include "device/cpu/linear.h"
#include "device/reference/matrix.h"

namespace kogia {
namespace {

// With bf16 dot products GGUF blocks are multiplied in bf16: whole numbers exact, no rounding of
// the activations to 8 bits.
Compute default_with_bf16(DType weights) {
  return is_block(weights) ? Compute::bf16 : reference::default_compute(weights);
}

constexpr MatrixOps reference_ops(Compute (*default_compute)(DType)) {
  return {.default_compute = default_compute,
          .pack = reference::pack,
          .borrow = reference::borrow,
          .embed = reference::embed,
          .linear = reference::linear};
}

}  // namespace

const MatrixOps& matrix_ops(Isa isa) {
  static constexpr MatrixOps kPlain = reference_ops(reference::default_compute);
  static constexpr MatrixOps kWithBf16 = reference_ops(default_with_bf16);
  return isa == Isa::avx512 ? kWithBf16 : kPlain;
}

}  // namespace kogia
