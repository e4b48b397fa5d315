#pragma once
// How the tensors of a Hugging Face folder and those of a GGUF correspond: names, shapes, and what
// is done to the rows on the way.

#include <string>
#include <vector>

#include "base/index.h"
#include "model/config.h"

namespace kogia {

/// What lies between the two containers.
enum class TensorRelation {
  kSame,
  kRotaryRows,  // llama's q and k: rows of a head lie as halves in a folder, as pairs in a GGUF
  kExperts,     // a matrix an expert | one stack of them
  kLatentUp,    // kv_b_proj, per head keys over values | attn_k_b, keys transposed, and attn_v_b
};

/// What a tensor is for, as far as its type depends on it.
enum class TensorUse {
  kMatrix,
  kEmbedding,   // token_embd and lm_head
  kVector,      // norms and biases: f32 in a GGUF
  kRouter,      // f32 in a GGUF
  kRouterBias,  // f32 everywhere
};

struct MappedTensor {
  std::vector<std::string> hf, gguf;  // full names
  std::vector<Index> hf_shape;        // of each
  std::vector<std::vector<Index>> gguf_shapes;
  TensorRelation relation = TensorRelation::kSame;
  TensorUse use = TensorUse::kMatrix;
  Index n_heads = 0;  // kRotaryRows, kLatentUp
};

/// All tensors of a model in the order in which files hold them: embedding, layers, norm, head, and
/// the multi-token prediction layers if asked for.
std::vector<MappedTensor> map_tensors(const ModelConfig& config, bool mtp);

}  // namespace kogia
