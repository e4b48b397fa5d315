#pragma once
// The tables there are; kernels() and gradient_kernels() pick one.

#include "device/cpu/gradient_table.h"
#include "device/cpu/kernel_table.h"

namespace kogia {

extern const KernelTable kScalarKernels;
extern const GradientKernels kScalarGradients;
#ifdef KOGIA_X86_KERNELS
namespace avx2 {
extern const KernelTable kKernels;
extern const GradientKernels kGradients;
}  // namespace avx2
namespace avx512 {
extern const KernelTable kKernels;
extern const GradientKernels kGradients;
}  // namespace avx512
#endif
#ifdef KOGIA_ARM_KERNELS
namespace neon {
extern const KernelTable kKernels;
extern const GradientKernels kGradients;
}  // namespace neon
#endif

}  // namespace kogia
