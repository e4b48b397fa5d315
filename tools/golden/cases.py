"""The tiny models of tests/data/golden: what their config.json says and which tensors they have."""

YARN = dict(type="yarn", factor=40, original_max_position_embeddings=64, beta_fast=32, beta_slow=1)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=128)

# With 16 rotary dimensions and an original length of 64 the ramp of YaRN is 0, 1/3, 2/3, 1, 1, ...: a
# real ramp, not a step. Sequences of 150 tokens go beyond the original length.
N_IDS = 150


def deepseek(family, **changes):
    config = dict(
        architectures=["DeepseekV2ForCausalLM" if family == "deepseek_v2" else "DeepseekV3ForCausalLM"],
        model_type=family, vocab_size=101, hidden_size=48, intermediate_size=80, moe_intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, n_shared_experts=1, n_routed_experts=8,
        routed_scaling_factor=1.0, kv_lora_rank=32, q_lora_rank=None, qk_rope_head_dim=16, v_head_dim=24,
        qk_nope_head_dim=16, n_group=1, topk_group=1, num_experts_per_tok=3, moe_layer_freq=1,
        first_k_dense_replace=1, norm_topk_prob=False, scoring_func="softmax", topk_method="greedy",
        hidden_act="silu", max_position_embeddings=2560, initializer_range=0.02, rms_norm_eps=1e-6, use_cache=True,
        bos_token_id=0, eos_token_id=1, tie_word_embeddings=False, rope_theta=10000, attention_bias=False,
        attention_dropout=0.0, torch_dtype="bfloat16")
    if family == "deepseek_v3":
        config.update(scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True, routed_scaling_factor=2.5,
                      q_lora_rank=24)
    config.update(changes)
    return config


def dense(family, **changes):
    architecture = dict(qwen2="Qwen2ForCausalLM", qwen3="Qwen3ForCausalLM", llama="LlamaForCausalLM")[family]
    config = dict(
        architectures=[architecture], model_type=family, vocab_size=101, hidden_size=48, intermediate_size=80,
        num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, hidden_act="silu",
        max_position_embeddings=2048, initializer_range=0.02, rms_norm_eps=1e-5, use_cache=True, bos_token_id=0,
        eos_token_id=1, tie_word_embeddings=False, rope_theta=10000.0, attention_dropout=0.0, torch_dtype="bfloat16")
    if family == "qwen3":  # heads wider than hidden_size / num_attention_heads
        config.update(head_dim=16, attention_bias=False)
    if family == "llama":
        config.update(head_dim=16, num_attention_heads=3, num_key_value_heads=1, attention_bias=False, mlp_bias=False)
    config.update(changes)
    return config


def yarn(mscale):
    return dict(YARN, mscale=mscale, mscale_all_dim=mscale)


def quantisable(family):
    """Dimensions of which GGUF blocks of 32 hold every row and K-quants those of 256."""
    if family.startswith("deepseek"):
        return dict(vocab_size=67, hidden_size=256, intermediate_size=32, moe_intermediate_size=32, kv_lora_rank=32,
                    qk_nope_head_dim=32, v_head_dim=32, num_attention_heads=2, num_key_value_heads=2,
                    n_routed_experts=4, num_experts_per_tok=2)
    return dict(vocab_size=67, hidden_size=256, intermediate_size=32, head_dim=32, num_attention_heads=4,
                num_key_value_heads=1)


# name: config, and what makes the case special.
#   storage  bf16 or f32, of the safetensors
#   style    official, or tf5: the checkpoint is loaded and saved again by transformers 5
#   gguf     generations of GGUF to write beside it (names of files)
#   oracle   transformers, or deepseek.py where transformers is known to differ from DeepSeek's own code
CASES = {
    # V2-Lite: no q_lora, greedy softmax, two shared experts.
    "v2_lite": dict(
        config=deepseek("deepseek_v2", n_shared_experts=2, moe_intermediate_size=8, rope_scaling=yarn(0.707)),
        gguf=["new", "kv_b", "old"]),
    # V2: more experts a token than groups kept, or the group limit changes nothing.
    "v2_group": dict(
        config=deepseek("deepseek_v2", q_lora_rank=24, topk_method="group_limited_greedy", n_routed_experts=12,
                        moe_intermediate_size=8, n_group=4, topk_group=2, num_experts_per_tok=3, routed_scaling_factor=16.0,
                        rope_scaling=yarn(0.707), torch_dtype="float32"), storage="f32"),
    # norm_topk_prob with V2: normalised weights are not scaled. transformers ignores the flag.
    "v2_norm": dict(
        config=deepseek("deepseek_v2", hidden_size=36, moe_intermediate_size=8, n_routed_experts=6, norm_topk_prob=True,
                        routed_scaling_factor=16.0), oracle="deepseek.py"),
    # V3 with everything: groups, clearly negative biases, YaRN, a multi-token prediction layer.
    "v3": dict(
        config=deepseek("deepseek_v3", moe_intermediate_size=8, n_routed_experts=16, n_group=4, topk_group=2,
                        num_experts_per_tok=4, rope_scaling=yarn(1.0), num_nextn_predict_layers=1),
        bias="negative", gguf=["new", "kv_b"]),
    # The config.json of transformers 5, without scoring_func, topk_method and moe_layer_freq. It claims a
    # multi-token prediction layer (a default of the class) that transformers never writes.
    "v3_tf5": dict(
        config=deepseek("deepseek_v3", n_group=2, topk_group=1, num_experts_per_tok=2, moe_intermediate_size=8,
                        rope_scaling=yarn(1.0)),
        bias="small", style="tf5"),
    # Experts 0 and 5, 1 and 6, 2 and 7 are equal to the router: of equals the lower id is chosen.
    "v3_ties": dict(
        config=deepseek("deepseek_v3", hidden_size=36, moe_intermediate_size=8, n_group=1, topk_group=1,
                        num_experts_per_tok=3),
        bias="small", ties=[(0, 5), (1, 6), (2, 7)], oracle="deepseek.py"),
    # FP8 blocks of 128 x 128 over shapes that they do not divide: 160 rows of kv_a, 144 columns.
    "v3_fp8": dict(
        config=deepseek("deepseek_v3", vocab_size=67, hidden_size=144, kv_lora_rank=136, qk_rope_head_dim=24, intermediate_size=130,
                        n_routed_experts=4, num_experts_per_tok=2, num_hidden_layers=1,
                        first_k_dense_replace=0, num_nextn_predict_layers=1, rope_scaling=yarn(1.0)), bias="small", fp8="f32"),
    # Scales that are powers of two, as V3.1 has them: stored as ordinary floats ...
    "v3_fp8_ue8m0": dict(
        config=deepseek("deepseek_v3", vocab_size=67, hidden_size=144, n_routed_experts=4, num_experts_per_tok=2), bias="small",
        fp8="ue8m0"),
    # ... or as bytes of exponents, here in another shard than the weights.
    "v3_fp8_e8m0": dict(
        config=deepseek("deepseek_v3", vocab_size=67, hidden_size=144, n_routed_experts=4, num_experts_per_tok=2), bias="small",
        fp8="e8m0", shards=True),
    "qwen2": dict(config=dense("qwen2"), gguf=["new"]),
    "qwen2_tied": dict(config=dense("qwen2", tie_word_embeddings=True), style="tf5"),
    "qwen3": dict(config=dense("qwen3"), style="tf5", gguf=["new"]),
    "llama": dict(config=dense("llama", rope_scaling=LLAMA3), gguf=["new"]),
    "llama_tied": dict(config=dense("llama", rope_scaling=LLAMA3, tie_word_embeddings=True), style="tf5"),
    # Only as GGUF: formats mixed over the tensors of one file.
    "v2_quantised": dict(config=deepseek("deepseek_v2", rope_scaling=yarn(0.707), **quantisable("deepseek_v2")),
                         gguf=["kv_b"], quantised=True),
    "v3_quantised": dict(config=deepseek("deepseek_v3", **dict(quantisable("deepseek_v3"), q_lora_rank=32)),
                         bias="small", gguf=["new"], quantised=True),
    "qwen2_quantised": dict(config=dense("qwen2", **quantisable("qwen2")), gguf=["new"], quantised=True),
    "qwen3_quantised": dict(config=dense("qwen3", **quantisable("qwen3")), gguf=["new"], quantised=True),
    "llama_quantised": dict(config=dense("llama", rope_scaling=LLAMA3, **quantisable("llama")), gguf=["new"],
                            quantised=True),
    # The less usual ones.
    "v3_rare": dict(config=deepseek("deepseek_v3", **dict(quantisable("deepseek_v3"), q_lora_rank=32)),
                    bias="small", gguf=["new"], quantised="rare"),
    "qwen3_rare": dict(config=dense("qwen3", **quantisable("qwen3")), gguf=["new"], quantised="rare"),
}


def is_moe(c, layer):
    return bool(c.get("n_routed_experts")) and layer >= c["first_k_dense_replace"] and layer % c["moe_layer_freq"] == 0


def mlp_shapes(c, prefix, width):
    hidden = c["hidden_size"]
    return {prefix + "gate_proj.weight": [width, hidden], prefix + "up_proj.weight": [width, hidden],
            prefix + "down_proj.weight": [hidden, width]}


def mla_shapes(c, p):
    hidden, heads, rank = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    qk = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]
    if c["q_lora_rank"] is None:
        shapes = {p + "q_proj.weight": [heads * qk, hidden]}
    else:
        shapes = {p + "q_a_proj.weight": [c["q_lora_rank"], hidden], p + "q_a_layernorm.weight": [c["q_lora_rank"]],
                  p + "q_b_proj.weight": [heads * qk, c["q_lora_rank"]]}
    return shapes | {
        p + "kv_a_proj_with_mqa.weight": [rank + c["qk_rope_head_dim"], hidden], p + "kv_a_layernorm.weight": [rank],
        p + "kv_b_proj.weight": [heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), rank],
        p + "o_proj.weight": [hidden, heads * c["v_head_dim"]]}


def head_dim(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def gqa_shapes(c, p):
    hidden, width = c["hidden_size"], head_dim(c)
    rows = dict(q=c["num_attention_heads"] * width, k=c["num_key_value_heads"] * width,
                v=c["num_key_value_heads"] * width)
    shapes = {f"{p}{name}_proj.weight": [n, hidden] for name, n in rows.items()}
    shapes[p + "o_proj.weight"] = [hidden, rows["q"]]
    if c["model_type"] == "qwen2":
        shapes |= {f"{p}{name}_proj.bias": [n] for name, n in rows.items()}
    if c["model_type"] == "qwen3":
        shapes |= {p + "q_norm.weight": [width], p + "k_norm.weight": [width]}
    return shapes


def layer_shapes(c, layer):
    p, hidden = f"model.layers.{layer}.", c["hidden_size"]
    shapes = {p + "input_layernorm.weight": [hidden], p + "post_attention_layernorm.weight": [hidden]}
    shapes |= (mla_shapes if "kv_lora_rank" in c else gqa_shapes)(c, p + "self_attn.")
    if not is_moe(c, layer):
        return shapes | mlp_shapes(c, p + "mlp.", c["intermediate_size"])
    shapes[p + "mlp.gate.weight"] = [c["n_routed_experts"], hidden]
    if c["topk_method"] == "noaux_tc":
        shapes[p + "mlp.gate.e_score_correction_bias"] = [c["n_routed_experts"]]
    for e in range(c["n_routed_experts"]):
        shapes |= mlp_shapes(c, f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])
    return shapes | mlp_shapes(c, p + "mlp.shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"])


def tensor_shapes(c):
    """Official names and shapes, multi-token prediction layers behind the main ones."""
    hidden, vocab, n_layers = c["hidden_size"], c["vocab_size"], c["num_hidden_layers"]
    shapes = {"model.embed_tokens.weight": [vocab, hidden]}
    for layer in range(n_layers + c.get("num_nextn_predict_layers", 0)):
        shapes |= layer_shapes(c, layer)
        if layer >= n_layers:
            p = f"model.layers.{layer}."
            shapes |= {p + "embed_tokens.weight": [vocab, hidden], p + "enorm.weight": [hidden],
                       p + "hnorm.weight": [hidden], p + "eh_proj.weight": [hidden, 2 * hidden],
                       p + "shared_head.norm.weight": [hidden], p + "shared_head.head.weight": [vocab, hidden]}
    shapes["model.norm.weight"] = [hidden]
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [vocab, hidden]
    return shapes
