#pragma once
// Matrix products as they are defined: weights decoded from the source's own bytes, activations
// rounded as the Compute says, sums in f64. Serves `--isa scalar`, and tests hold every other
// instruction set to it.

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "device/device.h"

namespace kogia::reference {

/// f32 and f16 files in f32, bf16 files and FP8 in bf16, GGUF blocks in int8 (a processor without
/// bf16 dot products).
Compute default_compute(DType weights);

/// Whether weights of this format can be multiplied so.
bool supports(DType weights, Compute compute);

/// CHECKs a source's shape; throws Error(kUnsupported) where supports() is false.
void check_packable(const MatrixSource& source, const PackOptions& options);

// As in device.h. The form is the source's own: its rows, then its scales; transposed, f32 values.
PackedForm packed_form(const MatrixSource& source, const PackOptions& options,
                       std::optional<int> variant = {});
void pack_rows(const MatrixSource& source, const PackOptions& options, const PackedForm& form,
               Index first, Index n, std::byte* to);
std::unique_ptr<Matrix> adopt(const MatrixSource& source, const PackOptions& options,
                              const PackedForm& form, std::shared_ptr<const std::byte> packed);
std::unique_ptr<Matrix> borrow(const MatrixSource& source, const PackOptions& options);
std::unique_ptr<Matrix> pack(const MatrixSource& source, const PackOptions& options);
void embed(const EmbedArgs& args, ThreadPool& pool);
void linear(std::span<const LinearArgs> products, ThreadPool& pool);

/// Row r of a source as values (scales applied); dst has source.cols numbers.
void decode_row(const MatrixSource& source, Index r, float* dst);

/// The x that the products really see, as values: rounded to bf16; or quantised to int8 or int16
/// per 32 columns (d = max|x| / 127 or 32767, q = x / d to nearest even) or to e4m3 per 128 columns
/// (s = max(max|x|, 1e-4) / 448), and multiplied back.
void round_activations(Compute compute, DType weights, const float* x, double* rounded, Index n);

}  // namespace kogia::reference
