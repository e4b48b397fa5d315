#include "device/cpu/cpu_features.h"

#include <cstdint>

#ifdef KOGIA_X86_KERNELS
#include <cpuid.h>
#endif
#ifdef KOGIA_ARM_KERNELS
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace kogia {
namespace {

#ifdef KOGIA_X86_KERNELS
struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool bit(std::uint32_t word, int i) { return (word >> i & 1) != 0; }

bool is_intel() {
  const Registers vendor = cpuid(0, 0);
  return vendor.ebx == signature_INTEL_ebx && vendor.ecx == signature_INTEL_ecx &&
         vendor.edx == signature_INTEL_edx;
}

// Which registers the operating system saves on a switch (XCR0).
std::uint64_t enabled_state() {
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}
#endif

}  // namespace

CpuFeatures cpu_features() {
  CpuFeatures f;
#ifdef KOGIA_X86_KERNELS
  const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven_one = cpuid(7, 1);
  const Registers extended = cpuid(0x80000001, 0);
  const bool has_xgetbv = bit(one.ecx, 27);
  const std::uint64_t state = has_xgetbv ? enabled_state() : 0;
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xE6) == 0xE6;

  f.popcnt = bit(one.ecx, 23);
  f.bmi = bit(seven.ebx, 3);
  f.bmi2 = bit(seven.ebx, 8);
  f.lzcnt = bit(extended.ecx, 5);
  f.avx2 = ymm && bit(one.ecx, 28) && bit(seven.ebx, 5);
  f.fma = ymm && bit(one.ecx, 12);
  f.f16c = ymm && bit(one.ecx, 29);
  f.avx_vnni = f.avx2 && bit(seven_one.eax, 4);
  f.gfni = bit(seven.ecx, 8);
  f.vaes = ymm && bit(seven.ecx, 9);
  f.vpclmulqdq = ymm && bit(seven.ecx, 10);

  f.avx512f = zmm && bit(seven.ebx, 16);
  f.avx512dq = zmm && bit(seven.ebx, 17);
  f.avx512ifma = zmm && bit(seven.ebx, 21);
  f.avx512cd = zmm && bit(seven.ebx, 28);
  f.avx512bw = zmm && bit(seven.ebx, 30);
  f.avx512vl = zmm && bit(seven.ebx, 31);
  f.avx512vbmi = zmm && bit(seven.ecx, 1);
  f.avx512vbmi2 = zmm && bit(seven.ecx, 6);
  f.avx512vnni = zmm && bit(seven.ecx, 11);
  f.avx512bitalg = zmm && bit(seven.ecx, 12);
  f.avx512vpopcntdq = zmm && bit(seven.ecx, 14);
  f.avx512bf16 = zmm && bit(seven_one.eax, 5);
  f.slow_bf16 = f.avx512bf16 && is_intel();
#endif
#ifdef KOGIA_ARM_KERNELS
  const unsigned long capabilities = getauxval(AT_HWCAP);
  f.neon = (capabilities & HWCAP_ASIMD) != 0;
  f.dotprod = f.neon && (capabilities & HWCAP_ASIMDDP) != 0;
#endif
  return f;
}

std::vector<Isa> isas_for(const CpuFeatures& c) {
  std::vector<Isa> isas = {Isa::scalar};
  if (c.neon) isas.push_back(Isa::neon);
  if (!(c.avx2 && c.fma && c.f16c && c.bmi && c.bmi2 && c.lzcnt && c.popcnt)) return isas;
  isas.push_back(Isa::avx2);
  const bool avx512 = c.avx512f && c.avx512bw && c.avx512vl && c.avx512dq && c.avx512cd &&
                      c.avx512ifma && c.avx512vbmi && c.avx512vbmi2 && c.avx512vnni &&
                      c.avx512bitalg && c.avx512vpopcntdq && c.gfni && c.vaes && c.vpclmulqdq &&
                      c.avx512bf16;
  if (avx512) isas.push_back(Isa::avx512);
  return isas;
}

}  // namespace kogia
