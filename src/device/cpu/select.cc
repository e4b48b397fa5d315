// Which instruction set to use, and its kernels.

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "device/cpu/cpu_features.h"
#include "device/cpu/tables.h"
#include "device/cpu_device.h"

namespace kogia {

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::neon:
      return "neon";
  }
  return "?";
}

std::optional<Isa> parse_isa(std::string_view text) {
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon}) {
    if (text == name(isa)) return isa;
  }
  return std::nullopt;
}

std::vector<Isa> available_isas() { return isas_for(cpu_features()); }

const KernelTable& kernels(Isa isa) {
  switch (isa) {
#ifdef KOGIA_X86_KERNELS
    case Isa::avx2:
      return avx2::kKernels;
    case Isa::avx512:
      return avx512::kKernels;
#endif
#ifdef KOGIA_ARM_KERNELS
    case Isa::neon:
      return neon::kKernels;
#endif
    default:
      KOGIA_CHECK(isa == Isa::scalar);  // the others are of another kind of processor
  }
  return kScalarKernels;
}

const GradientKernels& gradient_kernels(Isa isa) {
  switch (isa) {
#ifdef KOGIA_X86_KERNELS
    case Isa::avx2:
      return avx2::kGradients;
    case Isa::avx512:
      return avx512::kGradients;
#endif
#ifdef KOGIA_ARM_KERNELS
    case Isa::neon:
      return neon::kGradients;
#endif
    default:
      KOGIA_CHECK(isa == Isa::scalar);
  }
  return kScalarGradients;
}

}  // namespace kogia
