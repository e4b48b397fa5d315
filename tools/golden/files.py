"""Writes the tiny checkpoints: safetensors (plain, FP8, sharded) and GGUF in its three generations."""

import json
import struct

import ml_dtypes
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, RopeScalingType, quants

from cases import head_dim, is_moe

SAFETENSORS_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0"}


def write_safetensors(path, tensors):
    header, blob = {"__metadata__": {"format": "pt"}}, []
    at = 0
    for name, x in tensors.items():
        data = np.ascontiguousarray(x).tobytes()
        header[name] = dict(dtype=SAFETENSORS_DTYPES[x.dtype.name], shape=list(x.shape),
                            data_offsets=[at, at + len(data)])
        blob.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blob))


def write_shards(folder, tensors):
    """Two shards; the scales lie in the one where their weights do not."""
    names, weight_map = list(tensors), {}
    for i, name in enumerate(names):
        weight_map[name] = "model-0000%d-of-00002.safetensors" % (1 if i < len(names) // 2 else 2)
    for name in names:
        if name.endswith("_scale_inv"):
            home = weight_map[name.removesuffix("_scale_inv")]
            weight_map[name] = home.replace("0000%s-" % home[10], "0000%d-" % (3 - int(home[10])))
    for file in sorted(set(weight_map.values())):
        write_safetensors(folder / file, {n: x for n, x in tensors.items() if weight_map[n] == file})
    index = dict(metadata=dict(total_size=sum(x.nbytes for x in tensors.values())), weight_map=weight_map)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


FP8_NAMES = ("_proj.weight", "kv_a_proj_with_mqa.weight")


def to_fp8(weights, kind):
    """Weights as V3 stores them: e4m3 with a scale for each 128 x 128 block, those that remain in bf16."""
    stored = {}
    for name, w in weights.items():
        if not name.endswith(FP8_NAMES) or name.endswith("eh_proj.weight"):
            stored[name] = w if name.endswith("e_score_correction_bias") else w.astype(ml_dtypes.bfloat16)
            continue
        rows, columns = w.shape
        scale = np.ones((-(-rows // 128), -(-columns // 128)), np.float32)
        for i, j in np.ndindex(scale.shape):
            scale[i, j] = np.abs(w[128 * i:128 * i + 128, 128 * j:128 * j + 128]).max() / 448
        if kind != "f32":
            scale = np.exp2(np.ceil(np.log2(scale))).astype(np.float32)
        spread = np.repeat(np.repeat(scale, 128, 0), 128, 1)[:rows, :columns]
        stored[name] = (w / spread).astype(ml_dtypes.float8_e4m3fn)
        stored[name + "_scale_inv"] = scale.astype(ml_dtypes.float8_e8m0fnu) if kind == "e8m0" else scale
    return stored


# -- GGUF --------------------------------------------------------------------------------------------

TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp",
    "eh_proj": "nextn.eh_proj", "enorm": "nextn.enorm", "hnorm": "nextn.hnorm", "embed_tokens": "nextn.embed_tokens",
    "shared_head.norm": "nextn.shared_head_norm", "shared_head.head": "nextn.shared_head_head"}


def pairs_from_halves(w, heads):
    """Rows of each head from [first halves; second halves] to adjacent pairs (llama's files only)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def halves_from_pairs(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def split_kv_b(c, w):
    heads, nope = c["num_attention_heads"], c["qk_nope_head_dim"]
    per_head = w.reshape(heads, nope + c["v_head_dim"], c["kv_lora_rank"])
    return per_head[:, :nope].swapaxes(1, 2), per_head[:, nope:]


def join_kv_b(k_b, v_b):
    joined = np.concatenate([k_b.swapaxes(1, 2), v_b], 1)
    return joined.reshape(-1, joined.shape[-1])


def gguf_tensors(c, weights, split_kv):
    """Tensors of the GGUF from those of the checkpoint, slowest dimension first."""
    out, llama = {}, c["model_type"] == "llama"
    for name, w in weights.items():
        base, kind = name.rsplit(".", 1)
        if base in TOP:
            out[f"{TOP[base]}.{kind}"] = w
            continue
        _, _, layer, rest = base.split(".", 3)
        blk = f"blk.{layer}."
        if kind == "e_score_correction_bias":
            out[blk + "exp_probs_b.bias"] = w
        elif rest.startswith("mlp.experts."):
            _, _, e, which = rest.split(".")
            out.setdefault(f"{blk}ffn_{which.removesuffix('_proj')}_exps.weight", []).append(w)
        elif rest == "self_attn.kv_b_proj" and split_kv:
            out[blk + "attn_k_b.weight"], out[blk + "attn_v_b.weight"] = split_kv_b(c, w)
        else:
            if llama and rest in ("self_attn.q_proj", "self_attn.k_proj"):
                w = pairs_from_halves(w, c["num_attention_heads" if rest[10] == "q" else "num_key_value_heads"])
            out[f"{blk}{LAYER[rest]}.{kind}"] = w
    return {name: np.stack(w) if isinstance(w, list) else np.ascontiguousarray(w) for name, w in out.items()}


def weights_from_gguf(c, tensors, names):
    """The way back, for files whose rounding to blocks is part of the case."""
    out, llama = {}, c["model_type"] == "llama"
    for name in names:
        base, kind = name.rsplit(".", 1)
        if base in TOP:
            out[name] = tensors[f"{TOP[base]}.{kind}"]
            continue
        _, _, layer, rest = base.split(".", 3)
        blk = f"blk.{layer}."
        if kind == "e_score_correction_bias":
            out[name] = tensors[blk + "exp_probs_b.bias"]
        elif rest.startswith("mlp.experts."):
            _, _, e, which = rest.split(".")
            out[name] = tensors[f"{blk}ffn_{which.removesuffix('_proj')}_exps.weight"][int(e)]
        elif rest == "self_attn.kv_b_proj" and blk + "attn_k_b.weight" in tensors:
            out[name] = join_kv_b(tensors[blk + "attn_k_b.weight"], tensors[blk + "attn_v_b.weight"])
        else:
            w = tensors[f"{blk}{LAYER[rest]}.{kind}"]
            if llama and rest in ("self_attn.q_proj", "self_attn.k_proj"):
                w = halves_from_pairs(w, c["num_attention_heads" if rest[10] == "q" else "num_key_value_heads"])
            out[name] = w
    return out


def random_k_quant(shape, qtype, std, rng):
    """Blocks with random codes and scales: gguf cannot quantise to these, only decode them."""
    n_blocks = int(np.prod(shape)) // 256
    size = {GGMLQuantizationType.Q4_K: 144, GGMLQuantizationType.Q6_K: 210}[qtype]
    raw = rng.integers(0, 256, (n_blocks, size), dtype=np.uint8)
    spread = (0.8 + 0.4 * rng.random(n_blocks)).astype(np.float32)
    if qtype == GGMLQuantizationType.Q4_K:  # d * scale * code - dmin * min, code 0..15, scale and min 0..63
        d = (std / 190 * spread).astype(np.float16)
        raw[:, 0:2] = d[:, None].view(np.uint8)
        raw[:, 2:4] = (d.astype(np.float32) * 7.5).astype(np.float16)[:, None].view(np.uint8)
    else:  # d * scale * (code - 32), scale -128..127
        raw[:, 208:210] = (std / 1300 * spread).astype(np.float16)[:, None].view(np.uint8)
    return raw.reshape(*shape[:-1], -1)


# Where the f16 scale lies in a block, and that of the minima.
SCALES = {"Q2_K": (80, 82), "Q3_K": (108, None), "Q5_K": (0, 2), "IQ4_NL": (0, None), "IQ4_XS": (0, None)}


def random_blocks(shape, qtype, std, rng):
    """As random_k_quant() for the other types that gguf only decodes: mean 0 and the deviation asked for."""
    block_values, block_bytes = GGML_QUANT_SIZES[qtype]
    raw = rng.integers(0, 256, (int(np.prod(shape)) // block_values, block_bytes), dtype=np.uint8)
    d_at, min_at = SCALES[qtype.name]

    def put(at, values):
        raw[:, at:at + 2] = np.broadcast_to(np.float16(values), raw.shape[:1]).copy()[:, None].view(np.uint8)

    def decoded(d, least):
        put(d_at, d)
        if min_at is not None:
            put(min_at, least)
        return quants.dequantize(raw, qtype).astype(np.float64)

    centre = 0 if min_at is None else -decoded(1, 0).mean() / decoded(0, 1).mean()
    d = std / decoded(1, centre).std() * (0.8 + 0.4 * rng.random(len(raw)))
    decoded(d, d * centre)
    return raw.reshape(*shape[:-1], -1)


BLOCKS = [GGMLQuantizationType[n] for n in ("Q8_0", "Q4_0", "Q4_1", "Q5_0")]
K_BLOCKS = [GGMLQuantizationType[n] for n in ("Q4_K", "Q6_K", "Q8_0", "Q4_0", "Q4_K", "Q4_1", "Q5_0", "Q6_K")]


RARE_BLOCKS = [GGMLQuantizationType[n] for n in ("MXFP4", "IQ4_NL", "Q5_1")]
RARE_K_BLOCKS = [GGMLQuantizationType[n] for n in ("Q5_K", "Q3_K", "IQ4_XS", "Q2_K", "Q5_1", "IQ4_NL", "MXFP4")]


def quantise(tensors, rng, rare=False):
    """name: (raw blocks, type, decoded values). Norms, biases and the router's gate stay f32."""
    out, turn, k_turn = {}, 0, 0
    blocks, k_blocks = (RARE_BLOCKS, RARE_K_BLOCKS) if rare else (BLOCKS, K_BLOCKS)
    for name, w in tensors.items():
        if w.ndim == 1 or name.endswith("ffn_gate_inp.weight"):
            out[name] = (w.astype(np.float32), GGMLQuantizationType.F32, w.astype(np.float32))
            continue
        if w.shape[-1] % 256 == 0:
            qtype, k_turn = k_blocks[k_turn % len(k_blocks)], k_turn + 1
        else:
            qtype, turn = blocks[turn % len(blocks)], turn + 1
        if qtype.name in SCALES:
            raw = random_blocks(w.shape, qtype, w.std(), rng)
        elif qtype in (GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K):
            raw = random_k_quant(w.shape, qtype, w.std(), rng)
        else:
            raw = quants.quantize(w.astype(np.float32), qtype)
        out[name] = (raw, qtype, quants.dequantize(raw, qtype).astype(np.float32))
    return out


def rope_frequency_divisors(c):
    """llama3 scaling as llama.cpp stores it: what each frequency is divided by."""
    rope, width = c["rope_scaling"], head_dim(c)
    frequency = c["rope_theta"] ** (-np.arange(0, width, 2) / width)
    turns = rope["original_max_position_embeddings"] * frequency / (2 * np.pi)
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    t = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - t) / factor + t)).astype(np.float32)


def add_deepseek_keys(g, c, generation):
    rank, rope_dims = c["kv_lora_rank"], c["qk_rope_head_dim"]
    qk = c["qk_nope_head_dim"] + rope_dims
    old = generation == "old"
    mla = generation == "new"
    g.add_head_count_kv(1 if mla else c["num_attention_heads"])
    if c["q_lora_rank"] is not None:
        g.add_q_lora_rank(c["q_lora_rank"])
    g.add_kv_lora_rank(rank)
    g.add_key_length(rank + rope_dims if mla else qk)
    g.add_value_length(rank if mla else c["v_head_dim"])
    if mla:
        g.add_key_length_mla(qk)
        g.add_value_length_mla(c["v_head_dim"])
    g.add_rope_dimension_count(rope_dims)
    g.add_leading_dense_block_count(c["first_k_dense_replace"])
    g.add_expert_count(c["n_routed_experts"])
    g.add_expert_used_count(c["num_experts_per_tok"])
    g.add_expert_shared_count(c["n_shared_experts"])
    g.add_expert_feed_forward_length(c["moe_intermediate_size"])
    g.add_expert_weights_scale(c["routed_scaling_factor"])
    if c["norm_topk_prob"]:
        g.add_expert_weights_norm(True)
    if not old:
        g.add_uint32("deepseek2.expert_gating_func", 2 if c["scoring_func"] == "sigmoid" else 1)
        if c["n_group"] > 1:
            g.add_expert_group_count(c["n_group"])
            g.add_expert_group_used_count(c["topk_group"])
    rope = c.get("rope_scaling")
    if rope:
        g.add_rope_scaling_type(RopeScalingType.YARN)
        g.add_rope_scaling_factor(rope["factor"])
        g.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        g.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
        if mla:
            g.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            g.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])


def write_gguf(path, c, tensors, generation, n_nextn=0):
    """tensors: name -> array, or (raw blocks, type, values)."""
    is_deepseek = c["model_type"].startswith("deepseek")
    g = GGUFWriter(path, "deepseek2" if is_deepseek else c["model_type"])
    g.add_name(path.stem)
    g.add_vocab_size(c["vocab_size"])
    g.add_block_count(c["num_hidden_layers"] + n_nextn)
    if n_nextn:
        g.add_nextn_predict_layers(n_nextn)
    g.add_context_length(c["max_position_embeddings"])
    g.add_embedding_length(c["hidden_size"])
    g.add_feed_forward_length(c["intermediate_size"])
    g.add_head_count(c["num_attention_heads"])
    g.add_layer_norm_rms_eps(c["rms_norm_eps"])
    g.add_rope_freq_base(c["rope_theta"])
    if is_deepseek:
        add_deepseek_keys(g, c, generation)
    else:
        g.add_head_count_kv(c["num_key_value_heads"])
        g.add_rope_dimension_count(head_dim(c))
        if c.get("head_dim"):
            g.add_key_length(c["head_dim"])
            g.add_value_length(c["head_dim"])
        if c["model_type"] == "llama":
            g.add_tensor("rope_freqs.weight", rope_frequency_divisors(c))
    for name, w in tensors.items():
        if isinstance(w, tuple):
            g.add_tensor(name, w[0], raw_dtype=w[1])
        elif w.ndim == 1 or name.endswith("ffn_gate_inp.weight") or w.dtype == np.float64:
            g.add_tensor(name, w.astype(np.float32))
        else:
            g.add_tensor(name, quants.quantize(w.astype(np.float32), GGMLQuantizationType.BF16),
                         raw_dtype=GGMLQuantizationType.BF16)
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()
