// `--isa scalar`: the reference itself.

#include "device/cpu/tables.h"
#include "device/reference/combine.h"
#include "device/reference/log_prob.h"
#include "device/reference/rms_norm.h"
#include "device/reference/rope.h"
#include "device/reference/silu_mul.h"

namespace kogia {

constinit const KernelTable kScalarKernels = {
    .name = "scalar",
    .rms_norm = reference::rms_norm,
    .rope = reference::rope,
    .silu_mul = reference::silu_mul,
    .combine = reference::combine,
    .log_prob = reference::log_prob,
    .attention_blocks = nullptr,
    .attention_merge = nullptr,
    .attention_finish = nullptr,
};

}  // namespace kogia
