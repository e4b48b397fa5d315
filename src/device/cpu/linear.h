#pragma once
// Matrix products of the CPU device: packing, y = x Wᵀ, and the rows of an embedding table.

#include <memory>
#include <span>

#include "base/thread_pool.h"
#include "device/cpu_device.h"
#include "device/device.h"

namespace kogia {

/// How one instruction set multiplies. Contracts as in device.h; matrices come from the same
/// instruction set's adopt() or borrow().
struct MatrixOps {
  Compute (*default_compute)(DType weights);
  PackedForm (*packed_form)(const MatrixSource& source, const PackOptions& options,
                            std::optional<int> variant);
  void (*pack_rows)(const MatrixSource& source, const PackOptions& options, const PackedForm& form,
                    Index first, Index n, std::byte* to);
  std::unique_ptr<Matrix> (*adopt)(const MatrixSource& source, const PackOptions& options,
                                   const PackedForm& form, std::shared_ptr<const std::byte> packed);
  std::unique_ptr<Matrix> (*borrow)(const MatrixSource& source, const PackOptions& options);
  void (*embed)(const EmbedArgs& args, ThreadPool& pool);
  void (*linear)(std::span<const LinearArgs> products, ThreadPool& pool);
};

/// slow_bf16: of the processor (cpu_features.h); it has a say in what is default.
const MatrixOps& matrix_ops(Isa isa, bool slow_bf16);

}  // namespace kogia
