// Compiled once per instruction set (device/CMakeLists.txt): the kernels of a backward pass.

#include "device/cpu/attention_vjp-inl.h"
#include "device/cpu/fp8-inl.h"
#include "device/cpu/optimizer-inl.h"
#include "device/cpu/rows_vjp-inl.h"
#include "device/cpu/tables.h"
#include "device/cpu/wgrad-inl.h"

namespace kogia::KOGIA_ISA {

constinit const GradientKernels kGradients = {
    .linear_wgrad = linear_wgrad,
    .rms_norm_vjp = rms_norm_vjp,
    .silu_mul_vjp = silu_mul_vjp,
    .attention_vjp_floats = attention_vjp_floats,
    .attention_vjp = attention_vjp,
    .combine_vjp = combine_vjp,
    .cross_entropy = cross_entropy,
    .adamw = adamw,
    .sum_squares = sum_squares,
    .add = add,
    .fp8_rows = fp8_rows,
    .fp8_columns = fp8_columns,
    .fp8_decode = fp8_decode,
};

}  // namespace kogia::KOGIA_ISA
