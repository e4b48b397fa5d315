#pragma once
// What a processor offers, as far as our kernels care.

#include <vector>

#include "device/cpu_device.h"

namespace kogia {

/// Plain flags, so that a test can ask for any processor. A flag is set only where the operating
/// system saves the registers too.
struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false, bmi = false, bmi2 = false, lzcnt = false,
       popcnt = false;
  bool avx_vnni = false;  // byte dot products (VPDPBUSD) on the registers of AVX2
  // The rest of what -march=icelake-server may emit, and bf16 dot products: Zen 4, Zen 5, Sapphire
  // Rapids and later have all of them.
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false, avx512cd = false,
       avx512ifma = false, avx512vbmi = false, avx512vbmi2 = false, avx512vnni = false,
       avx512bitalg = false, avx512vpopcntdq = false, gfni = false, vaes = false,
       vpclmulqdq = false, avx512bf16 = false;
  // bf16 dot products take four times as long as those of 16-bit whole numbers: Intel's do.
  bool slow_bf16 = false;
  // 64-bit ARM: always; byte dot products (SDOT).
  bool neon = false, dotprod = false;
};

/// The running processor's.
CpuFeatures cpu_features();

/// The instruction sets we can use on it, best last; begins with scalar.
std::vector<Isa> isas_for(const CpuFeatures& cpu);

}  // namespace kogia
