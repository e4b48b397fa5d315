#pragma once
// Which tensor gets which type: llama.cpp's mixtures of GGUF types, and what DeepSeek's FP8 files
// leave in bf16.

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

enum class Quantization { kFp8, kQ8_0, kQ4_0, kQ4_K_M, kQ4_K_S, kQ6_K };

/// llama.cpp's names in any case; Q4_K is Q4_K_M.
std::optional<Quantization> parse_quantization(std::string_view name);
/// FP8, Q8_0, ...: what parse_quantization() takes.
const std::vector<std::string>& quantization_names();
/// general.file_type of a GGUF in such a mixture, or most of whose weights are of a type. It is for
/// show: a type that llama.cpp has no number for counts as f16.
std::uint32_t gguf_file_type(Quantization mixture);
std::uint32_t gguf_file_type(DType dtype);

/// `type`, or what takes its place where its blocks do not fill rows of `cols`: Q5_0 of Q4_K, Q5_1
/// of Q5_K, Q8_0 of the other blocks of 256, and F16 where 32 does not divide the rows.
DType type_that_fits(DType type, Index cols);

struct TensorToQuantize {
  std::string name;  // as a GGUF has it
  std::vector<Index> shape;
  DType dtype;  // what it keeps where it is not quantised
};

/// What the mixtures want to know of a model, as its GGUF metadata say.
struct MixtureFacts {
  std::string architecture;
  Index n_layers = 0, n_experts = 0, n_heads = 0, n_heads_kv = 0;
  bool has_importance = false;
};

/// llama.cpp's choice for each tensor (llama-quant.cpp): norms, routers, biases and vectors keep
/// their type; the head, and the embedding that stands in for it, get Q6_K; the M mixture gives
/// more bits to attn_v and ffn_down in some layers; rows that a type's blocks do not fill fall
/// back: Q4_K to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0, and all to F16 where 32 does not divide them.
std::vector<DType> choose_types(Quantization mixture, std::span<const TensorToQuantize> tensors,
                                const MixtureFacts& facts);

/// Whether DeepSeek's FP8 files hold this tensor (of a Hugging Face checkpoint) in FP8: the
/// projections of attention, of MLPs and of experts; not embedding, head, norms, router or eh_proj.
bool is_fp8_weight(std::string_view name, std::span<const Index> shape);

}  // namespace kogia
