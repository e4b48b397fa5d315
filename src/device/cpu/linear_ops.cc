#include "device/cpu/linear.h"
#include "device/reference/matrix.h"

namespace kogia {

const MatrixOps& matrix_ops(Isa isa) {
  static constexpr MatrixOps kReference = {
      .default_compute = reference::default_compute,
      .pack = reference::pack,
      .borrow = reference::borrow,
      .embed = reference::embed,
      .linear = reference::linear,
  };
  switch (isa) {
    case Isa::scalar:
    case Isa::avx2:
    case Isa::avx512:
      break;
  }
  return kReference;
}

}  // namespace kogia
