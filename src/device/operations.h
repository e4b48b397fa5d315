#pragma once
// The operations of a forward pass, as plain data: pointers and sizes. What holds for all of them
// is said in device.h.

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/index.h"
#include "tensor/dtype.h"

namespace kogia {

class Matrix;  // device.h

// ---------------------------------------------------------------------------------------------------
// Cache

/// What one layer keeps for a token. Latent attention (MLA, absorbed) has n_kv_heads 1 and v_dim 0:
/// the values are the first `latent_v_dim` numbers of the key row.
struct CacheSpec {
  Index n_kv_heads = 1;
  Index k_dim = 0;            // per head
  Index v_dim = 0;            // per head; 0: values live inside the keys
  Index latent_v_dim = 0;     // when v_dim is 0
  DType dtype = DType::bf16;  // f32 or bf16

  Index values_per_token() const { return n_kv_heads * (k_dim + v_dim); }
};

/// Tokens of a page, and keys of an attention block: softmax partials are merged block by block in
/// order of position, so this is part of the arithmetic.
inline constexpr Index kPageTokens = 64;

/// One layer of a paged cache: page p of this layer begins at base + p * page_stride.
/// The layout inside the page is the device's: cache_page_bytes(spec) bytes.
struct CacheView {
  CacheSpec spec;
  std::byte* base = nullptr;
  Index page_stride = 0;  // bytes
};

/// Rows of a batch that belong to one sequence: rows [row_begin, row_begin + n_rows) hold the
/// tokens at positions first_pos, first_pos + 1, …; page i of `pages` holds the 64 positions from
/// 64 i on.
struct SequenceRows {
  Index row_begin = 0, n_rows = 0;
  Index first_pos = 0;
  const std::int32_t* pages = nullptr;
};

// ---------------------------------------------------------------------------------------------------
// Operations

/// y[i,:] = table[ids[i],:]   (decoded to f32)
struct EmbedArgs {
  const Matrix* table = nullptr;  // [vocab, hidden]
  std::span<const std::int32_t> ids;
  float* y = nullptr;  // [ids.size(), cols]
};

/// y = x Wᵀ (+ bias) (+ residual). One call takes several independent products (q, k and v; the
/// heads of an absorbed projection; the experts of a layer with rows sorted by expert), so that
/// they share one dispatch. y may equal residual; y must not overlap x.
struct LinearArgs {
  const float* x = nullptr;
  Index x_stride = 0;  // floats from row to row, >= cols
  const Matrix* w = nullptr;
  const float* bias = nullptr;      // [w->rows()]
  const float* residual = nullptr;  // like y, same stride
  float* y = nullptr;
  Index y_stride = 0;  // >= w->rows()
  Index rows = 0;      // 0 is legal
};

/// y = x / rms(x) ⊙ weight, rms(x) = sqrt(mean(x²) + eps)                          arXiv:1910.07467
struct RmsNormArgs {
  const float* x = nullptr;
  Index x_stride = 0;
  const float* weight = nullptr;  // [n]
  float* y = nullptr;             // may be x
  Index y_stride = 0;
  Index rows = 0, n = 0;
  float eps = 1e-6f;
};

enum class RopeLayout {
  kInterleaved,  // pairs (2i, 2i+1): DeepSeek, GGUF llama
  kHalves,       // pairs (i, i + n/2): Hugging Face llama and qwen
};

/// Rotates the first n_rot values of each head of each row in place:
/// (a, b) -> (a cos − b sin, a sin + b cos).
struct RopeArgs {
  float* x = nullptr;  // row r, head h at x + r * row_stride + h * head_stride
  Index row_stride = 0, head_stride = 0;
  Index rows = 0, n_heads = 0, n_rot = 0;
  const float* cos = nullptr;  // [rows, n_rot / 2]
  const float* sin = nullptr;
  RopeLayout layout = RopeLayout::kInterleaved;
  bool inverse = false;
};

/// Writes keys and values of a batch into the cache, rounded to its dtype.
struct CacheAppendArgs {
  CacheView cache;
  const float* k = nullptr;  // [rows, n_kv_heads, k_dim], rows k_stride apart
  Index k_stride = 0;
  const float* v = nullptr;  // [rows, n_kv_heads, v_dim]; null when v_dim is 0
  Index v_stride = 0;
  std::span<const SequenceRows> sequences;
};

/// Reads key rows back as f32: positions [0, n_positions) of one sequence (expanded MLA, sessions).
struct CacheReadArgs {
  CacheView cache;
  const std::int32_t* pages = nullptr;
  Index n_positions = 0;
  float* k = nullptr;  // [n_positions, n_kv_heads * k_dim]
  float* v = nullptr;  // [n_positions, n_kv_heads * v_dim], or null
};

/// Causal softmax attention over a paged cache that already holds this batch's own rows.
///   out[r,h] = Σ_t softmax_t(scale · q[r,h]·k[t,h']) v[t,h']
///   where t <= position of r and h' = h / (n_heads / n_kv_heads)
/// Keys are walked in blocks of kPageTokens by position and merged in that order. Where the cache
/// is bf16 and the device has bf16 dot products, q and the weights exp(s − max of the block) are
/// rounded to bf16 (an even k_dim given); sums are f32.
struct AttentionArgs {
  CacheView cache;
  const float* q = nullptr;  // [rows, n_heads, k_dim], rows q_stride apart
  Index q_stride = 0;
  float* out = nullptr;  // [rows, n_heads, v_dim or latent_v_dim], rows out_stride apart
  Index out_stride = 0;
  Index n_heads = 0;
  float scale = 1;
  std::span<const SequenceRows> sequences;
};

/// y = silu(gate) ⊙ up,  silu(g) = g σ(g)                                          arXiv:2002.05202
struct SiluMulArgs {
  const float* gate = nullptr;
  const float* up = nullptr;
  float* y = nullptr;  // may be gate or up
  Index rows = 0, n = 0;
  Index gate_stride = 0, up_stride = 0, y_stride = 0;
};

enum class RouterScore { kSoftmax, kSigmoid };
enum class GroupScore { kMax, kTop2Sum };  // V2; V3

/// Chooses the experts of each token.
///   s = score(logits)
///   choice = s + bias, of which the topk_group best groups are kept
///   experts = top-k of choice
///   weights = s[experts], normalised (÷ (Σ + 1e-20)) or not, times scale
/// The bias picks, it never weighs. Equal scores: lower id first. Best choice first.
struct RouteArgs {
  const float* logits = nullptr;  // [rows, n_experts]
  const float* bias = nullptr;    // [n_experts] or null
  Index rows = 0, n_experts = 0, top_k = 0;
  Index n_group = 1, topk_group = 1;
  RouterScore score = RouterScore::kSoftmax;
  GroupScore group_score = GroupScore::kMax;
  bool normalise = false;
  float scale = 1;
  std::int32_t* experts = nullptr;  // [rows, top_k]
  float* weights = nullptr;         // [rows, top_k]
};

/// y[i,:] = x[index[i],:]
struct GatherRowsArgs {
  const float* x = nullptr;
  Index x_stride = 0;
  std::span<const std::int32_t> index;
  float* y = nullptr;
  Index y_stride = 0, n = 0;
};

/// y[t,:] += Σ_k weights[t,k] · expert_rows[row_of[t * top_k + k],:], added in slot order of k.
struct CombineArgs {
  const float* expert_rows = nullptr;
  Index expert_stride = 0;
  std::span<const std::int32_t> row_of;  // [rows * top_k]
  const float* weights = nullptr;        // [rows, top_k]
  Index rows = 0, top_k = 0, n = 0;
  float* y = nullptr;
  Index y_stride = 0;
};

/// log softmax(logits[r,:])[ids[r]]; the sum in f64.
struct LogProbArgs {
  const float* logits = nullptr;
  Index stride = 0, n = 0;  // n: vocabulary
  std::span<const std::int32_t> ids;
  float* log_prob = nullptr;  // [ids.size()]
};

}  // namespace kogia
