#pragma once
// Names of tensors in both worlds: the one table that reading, writing and converting share.

#include <string>
#include <string_view>

#include "model/binder.h"

namespace kogia {

/// A name inside a layer, without ".weight".
struct NamePair {
  std::string_view hf, gguf;
};

namespace names {

inline const TensorName kEmbedTokens{"model.embed_tokens", "token_embd"};
inline const TensorName kFinalNorm{"model.norm", "output_norm"};
inline const TensorName kLmHead{"lm_head", "output"};

inline constexpr NamePair kInputNorm{"input_layernorm", "attn_norm"};
inline constexpr NamePair kPostAttentionNorm{"post_attention_layernorm", "ffn_norm"};

inline constexpr NamePair kQ{"self_attn.q_proj", "attn_q"};
inline constexpr NamePair kK{"self_attn.k_proj", "attn_k"};
inline constexpr NamePair kV{"self_attn.v_proj", "attn_v"};
inline constexpr NamePair kO{"self_attn.o_proj", "attn_output"};
inline constexpr NamePair kQNorm{"self_attn.q_norm", "attn_q_norm"};
inline constexpr NamePair kKNorm{"self_attn.k_norm", "attn_k_norm"};

inline constexpr NamePair kQA{"self_attn.q_a_proj", "attn_q_a"};
inline constexpr NamePair kQANorm{"self_attn.q_a_layernorm", "attn_q_a_norm"};
inline constexpr NamePair kQB{"self_attn.q_b_proj", "attn_q_b"};
inline constexpr NamePair kKvA{"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"};
inline constexpr NamePair kKvANorm{"self_attn.kv_a_layernorm", "attn_kv_a_norm"};
inline constexpr NamePair kKvB{"self_attn.kv_b_proj", "attn_kv_b"};
inline constexpr NamePair kKB{"", "attn_k_b"};  // the two halves of kv_b, in newer GGUFs
inline constexpr NamePair kVB{"", "attn_v_b"};

inline constexpr NamePair kGate{"mlp.gate_proj", "ffn_gate"};
inline constexpr NamePair kUp{"mlp.up_proj", "ffn_up"};
inline constexpr NamePair kDown{"mlp.down_proj", "ffn_down"};

inline constexpr NamePair kRouter{"mlp.gate", "ffn_gate_inp"};
/// A full name: nothing comes behind it.
inline constexpr NamePair kRouterBias{"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"};
inline constexpr NamePair kSharedGate{"mlp.shared_experts.gate_proj", "ffn_gate_shexp"};
inline constexpr NamePair kSharedUp{"mlp.shared_experts.up_proj", "ffn_up_shexp"};
inline constexpr NamePair kSharedDown{"mlp.shared_experts.down_proj", "ffn_down_shexp"};
/// Of an expert in a folder (behind "mlp.experts.N."); the stack of all of them in a GGUF.
inline constexpr NamePair kExpertGate{"gate_proj", "ffn_gate_exps"};
inline constexpr NamePair kExpertUp{"up_proj", "ffn_up_exps"};
inline constexpr NamePair kExpertDown{"down_proj", "ffn_down_exps"};
inline constexpr NamePair kExpertGateUp{"", "ffn_gate_up_exps"};  // some GGUFs: gate over up

inline constexpr NamePair kMtpNormE{"enorm", "nextn.enorm"};
inline constexpr NamePair kMtpNormH{"hnorm", "nextn.hnorm"};
inline constexpr NamePair kMtpProj{"eh_proj", "nextn.eh_proj"};
inline constexpr NamePair kMtpEmbedTokens{"embed_tokens", "nextn.embed_tokens"};
inline constexpr NamePair kMtpHeadNorm{"shared_head.norm", "nextn.shared_head_norm"};
inline constexpr NamePair kMtpHead{"shared_head.head", "nextn.shared_head_head"};

}  // namespace names

/// name(names::kUp) of layer 3 is {"model.layers.3.mlp.up_proj", "blk.3.ffn_up"}.
class LayerNames {
 public:
  explicit LayerNames(Index layer)
      : hf_("model.layers." + std::to_string(layer) + "."),
        gguf_("blk." + std::to_string(layer) + ".") {}
  TensorName operator()(NamePair pair) const {
    return {hf_ + std::string(pair.hf), gguf_ + std::string(pair.gguf)};
  }
  /// The folder's name of an expert's matrix.
  std::string expert(Index e, NamePair pair) const {
    return hf_ + "mlp.experts." + std::to_string(e) + "." + std::string(pair.hf);
  }
  /// What all names of the layer begin with.
  TensorName prefix() const { return {hf_, gguf_}; }

 private:
  std::string hf_, gguf_;
};

}  // namespace kogia
