#pragma once
// The tables there are; kernels() picks one.

#include "device/cpu/kernel_table.h"

namespace kogia {

extern const KernelTable kScalarKernels;
#ifdef KOGIA_X86_KERNELS
namespace avx2 {
extern const KernelTable kKernels;
}
namespace avx512 {
extern const KernelTable kKernels;
}
#endif
#ifdef KOGIA_ARM_KERNELS
namespace neon {
extern const KernelTable kKernels;
}
#endif

}  // namespace kogia
