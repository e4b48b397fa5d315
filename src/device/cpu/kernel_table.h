#pragma once
// The kernels of one instruction set. cpu/*_kernels.cc is compiled once per set and fills a table;
// select.cc picks one; cpu_device.cc slices the work over threads and calls it.
//
// Kernels see plain data only and never threads: each call is one slice (rows of the argument
// struct), and a row's arithmetic does not know the slice it came in.

#include <cstddef>
#include <cstdint>

#include "base/index.h"
#include "device/cpu_device.h"
#include "device/device.h"

namespace kogia {

/// CombineArgs without its span.
struct CombineSlice {
  const float* expert_rows = nullptr;
  Index expert_stride = 0;
  const std::int32_t* row_of = nullptr;  // [rows * top_k]
  const float* weights = nullptr;        // [rows, top_k]
  Index rows = 0, top_k = 0, n = 0;
  float* y = nullptr;
  Index y_stride = 0;
};

struct KernelTable {
  const char* name;
  void (*rms_norm)(const RmsNormArgs& args);
  void (*rope)(const RopeArgs& args);
  void (*silu_mul)(const SiluMulArgs& args);
  void (*combine)(const CombineSlice& args);
  /// log softmax(logits)[id] over n logits.
  float (*log_prob)(const float* logits, Index n, Index id);
};

const KernelTable& kernels(Isa isa);

}  // namespace kogia
