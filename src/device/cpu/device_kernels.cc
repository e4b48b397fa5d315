// Compiled once per instruction set (device/CMakeLists.txt): the kernels beside the matrix
// products.

#include "device/cpu/attention-inl.h"
#include "device/cpu/elementwise-inl.h"
#include "device/cpu/rms_norm-inl.h"
#include "device/cpu/tables.h"

#define KOGIA_STRING_(x) #x
#define KOGIA_STRING(x) KOGIA_STRING_(x)

namespace kogia::KOGIA_ISA {

constinit const KernelTable kKernels = {
    .name = KOGIA_STRING(KOGIA_ISA),
    .rms_norm = rms_norm,
    .rope = rope,
    .silu_mul = silu_mul,
    .combine = combine,
    .log_prob = log_prob,
    .attention_blocks = attention_blocks,
    .attention_merge = attention_merge,
    .attention_finish = attention_finish,
};

}  // namespace kogia::KOGIA_ISA
