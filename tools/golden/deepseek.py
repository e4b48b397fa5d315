#!/usr/bin/env python3
"""DeepSeek V2/V3 forward pass in plain numpy, written from the published descriptions: the oracle of golden tests.

It agrees with Hugging Face transformers 5.24, with DeepSeek's own inference code and with llama.cpp to 1e-5 in
log-probability (tiny random checkpoints; YaRN below and above the original length; both MLA forms; FP8 block scales;
multi-token prediction). It needs only numpy, so it can make expectations for any odd shape where PyTorch is too heavy.

Usage: python3 deepseek.py CHECKPOINT_DIR IDS_FILE [--mla expanded|absorbed] [--mtp] [--dtype f32|f64]
prints one line of JSON a token: {"pos", "id", "logprob"}; with --mtp those of the first extra head.
Shapes: S tokens, H heads, E routed experts, K experts a token, weights [out, in].
"""
import argparse
import json
import os
import struct

import numpy as np


def e4m3_values():
    code = np.arange(256)
    sign, exponent, mantissa = np.where(code & 128, -1.0, 1.0), (code >> 3) & 15, code & 7
    value = np.where(exponent == 0, 2.0**-6 * mantissa / 8, 2.0 ** (exponent - 7.0) * (1 + mantissa / 8))
    return np.where((code & 127) == 127, np.nan, sign * value)


def read_safetensors(path):
    blob = open(path, "rb").read()
    (header_bytes,) = struct.unpack("<Q", blob[:8])
    tensors = {}
    for name, t in json.loads(blob[8:8 + header_bytes]).items():
        if name == "__metadata__":
            continue
        begin, end = t["data_offsets"]
        raw = blob[8 + header_bytes + begin:8 + header_bytes + end]
        if t["dtype"] == "F32":
            x = np.frombuffer(raw, "<f4")
        elif t["dtype"] == "BF16":
            x = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif t["dtype"] == "F8_E4M3":
            x = np.frombuffer(raw, np.uint8)
        elif t["dtype"] == "F8_E8M0":  # a power of two, no zero
            x = np.exp2(np.frombuffer(raw, np.uint8).astype(np.float64) - 127).astype(np.float32)
        else:
            raise ValueError(f"{name}: dtype {t['dtype']}")
        tensors[name] = x.reshape(t["shape"])
    return tensors


def read_checkpoint(directory):
    """All tensors of a directory: one file, or the shards that its index names."""
    index = os.path.join(directory, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(directory, "model.safetensors"))
    tensors = {}
    for file in sorted(set(json.load(open(index))["weight_map"].values())):
        tensors.update(read_safetensors(os.path.join(directory, file)))
    return tensors


def dequantised(tensors, dtype):
    """FP8 weights times the scale of their 128 x 128 block; everything in `dtype`."""
    table, out = e4m3_values(), {}
    for name, x in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        if x.dtype == np.uint8:
            rows, columns = x.shape
            scale = tensors[name + "_scale_inv"].astype(np.float64)
            assert scale.shape == (-(-rows // 128), -(-columns // 128)), name
            x = table[x] * scale[np.arange(rows)[:, None] // 128, np.arange(columns)[None, :] // 128]
        out[name] = x.astype(dtype)
    return out


class DeepSeek:
    def __init__(self, directory, dtype=np.float32):
        self.config = c = json.load(open(directory + "/config.json"))
        self.weights, self.dtype = dequantised(read_checkpoint(directory), dtype), dtype
        self.is_v3 = c["model_type"] == "deepseek_v3"
        self.heads, self.rank = c["num_attention_heads"], c["kv_lora_rank"]
        self.nope, self.rotary, self.value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        self._prepare_rope()

    def _prepare_rope(self):
        """Frequencies, table factor and softmax scale YaRN is on at every length."""
        rope = self.config.get("rope_scaling") or self.config.get("rope_parameters") or {}
        theta = self.config.get("rope_theta", rope.get("rope_theta", 10000.0))
        pair = np.arange(self.rotary // 2)
        self.frequency = theta ** (-2.0 * pair / self.rotary)
        self.table_factor, self.softmax_scale = 1.0, (self.nope + self.rotary) ** -0.5
        if rope.get("type", rope.get("rope_type")) != "yarn":
            return
        factor, original = rope["factor"], rope["original_max_position_embeddings"]
        turn = lambda r: self.rotary * np.log(original / (2 * np.pi * r)) / (2 * np.log(theta))
        low, high = max(np.floor(turn(rope["beta_fast"])), 0), min(np.ceil(turn(rope["beta_slow"])), self.rotary - 1)
        ramp = np.clip((pair - low) / (high - low if high != low else 0.001), 0, 1)
        self.frequency = self.frequency / factor * ramp + self.frequency * (1 - ramp)
        mscale = lambda m: 0.1 * m * np.log(factor) + 1 if factor > 1 else 1.0
        self.table_factor = mscale(rope["mscale"]) / mscale(rope["mscale_all_dim"])
        self.softmax_scale *= mscale(rope["mscale_all_dim"]) ** 2

    def norm(self, x, name, eps=None):
        scale = 1 / np.sqrt(np.mean(x * x, -1, keepdims=True) + self.dtype(eps or self.config["rms_norm_eps"]))
        return (x * scale * self.weights[name]).astype(self.dtype)

    def linear(self, x, name):
        return x @ self.weights[name].T

    def rope(self, x):
        """x [S, ..., rotary], interleaved pairs, row = position."""
        angle = np.arange(len(x))[:, None] * self.frequency
        cos, sin = ((f(angle) * self.table_factor).astype(self.dtype) for f in (np.cos, np.sin))
        if x.ndim == 3:
            cos, sin = cos[:, None], sin[:, None]
        even, odd, y = x[..., 0::2], x[..., 1::2], np.empty_like(x)
        y[..., 0::2], y[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
        return y

    def attention(self, x, p, mla):
        s, h = len(x), self.heads
        if self.config.get("q_lora_rank") is None:
            q = self.linear(x, p + "q_proj.weight")
        else:
            q = self.linear(self.norm(self.linear(x, p + "q_a_proj.weight"), p + "q_a_layernorm.weight", 1e-6), p + "q_b_proj.weight")
        q = q.reshape(s, h, self.nope + self.rotary)
        q_nope, q_rope = q[..., :self.nope], self.rope(q[..., self.nope:])
        kv = self.linear(x, p + "kv_a_proj_with_mqa.weight")
        latent, k_rope = self.norm(kv[:, :self.rank], p + "kv_a_layernorm.weight", 1e-6), self.rope(kv[:, self.rank:])
        up = self.weights[p + "kv_b_proj.weight"].reshape(h, self.nope + self.value, self.rank)
        up_k, up_v = up[:, :self.nope], up[:, self.nope:]
        if mla == "absorbed":
            score = np.einsum("shc,tc->hst", np.einsum("shn,hnc->shc", q_nope, up_k), latent)
        else:
            score = np.einsum("shn,thn->hst", q_nope, np.einsum("tc,hnc->thn", latent, up_k))
        score = (score + np.einsum("shr,tr->hst", q_rope, k_rope)) * self.dtype(self.softmax_scale)
        score = np.where(np.tril(np.ones((s, s), bool)), score, self.dtype(-np.inf))
        weight = np.exp(score - score.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        if mla == "absorbed":
            out = np.einsum("shc,hvc->shv", np.einsum("hst,tc->shc", weight, latent), up_v)
        else:
            out = np.einsum("hst,thv->shv", weight, np.einsum("tc,hvc->thv", latent, up_v))
        return self.linear(out.reshape(s, h * self.value), p + "o_proj.weight")

    def mlp(self, x, p):
        gate = self.linear(x, p + "gate_proj.weight")
        return self.linear(gate / (1 + np.exp(-gate)) * self.linear(x, p + "up_proj.weight"), p + "down_proj.weight")

    def route(self, x, p):
        """Chosen experts and their weights, both [S, K]. Ties go to the lower id."""
        c, gate = self.config, self.weights[p + "gate.weight"]
        # Summed row by row: equal rows of the gate give equal bits, which a BLAS product does not promise.
        z = (x[:, None, :] * gate[None]).sum(-1)
        scoring = c.get("scoring_func", "sigmoid" if self.is_v3 else "softmax")
        method = c.get("topk_method", "noaux_tc" if self.is_v3 else "greedy")
        if scoring == "sigmoid":
            score = 1 / (1 + np.exp(-z))
        else:
            score = np.exp(z - z.max(-1, keepdims=True))
            score /= score.sum(-1, keepdims=True)
        choice = score + self.weights[p + "gate.e_score_correction_bias"] if method == "noaux_tc" else score
        if method in ("noaux_tc", "group_limited_greedy"):
            grouped = choice.reshape(len(x), c["n_group"], -1)
            group = np.sort(grouped, -1)[..., -2:].sum(-1) if method == "noaux_tc" else grouped.max(-1)
            self.note_margin(group, c["topk_group"])
            kept = np.zeros(group.shape, bool)
            np.put_along_axis(kept, np.argsort(-group, -1, kind="stable")[:, :c["topk_group"]], True, -1)
            choice = np.where(np.repeat(kept, grouped.shape[-1], 1), choice, -np.inf)
        k = c["num_experts_per_tok"]
        expert = np.argsort(-choice, -1, kind="stable")[:, :k]
        self.note_margin(choice, k)
        weight = np.take_along_axis(score, expert, -1)
        normalise = k > 1 and c.get("norm_topk_prob", self.is_v3)
        if normalise:
            weight = weight / (weight.sum(-1, keepdims=True) + 1e-20)
        if method == "noaux_tc" or not normalise:
            weight = weight * c["routed_scaling_factor"]
        return expert, weight.astype(self.dtype)

    def note_margin(self, choice, k):
        """Remembers the closest choice of experts or groups; exact ties are left out."""
        best = -np.sort(-choice, -1)
        gap = best[:, k - 1] - best[:, k] if best.shape[-1] > k else np.array([])
        gap = gap[np.isfinite(gap) & (gap > 0)]
        self.router_margin = min([getattr(self, "router_margin", np.inf), *gap])

    def moe(self, x, p):
        expert, weight = self.route(x, p)
        y = np.zeros_like(x)
        for e in range(self.config["n_routed_experts"]):
            row, slot = np.nonzero(expert == e)
            if len(row):
                y[row] += weight[row, slot][:, None] * self.mlp(x[row], f"{p}experts.{e}.")
        return y + self.mlp(x, p + "shared_experts.")

    def is_moe(self, layer):
        c = self.config
        return bool(c.get("n_routed_experts")) and layer >= c["first_k_dense_replace"] and layer % c.get("moe_layer_freq", 1) == 0

    def layer(self, x, layer, mla):
        p = f"model.layers.{layer}."
        x = x + self.attention(self.norm(x, p + "input_layernorm.weight"), p + "self_attn.", mla)
        u = self.norm(x, p + "post_attention_layernorm.weight")
        return x + (self.moe(u, p + "mlp.") if self.is_moe(layer) else self.mlp(u, p + "mlp."))

    def hidden(self, ids, mla="expanded"):
        """After the final norm, [S, hidden_size]."""
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            x = self.layer(x, layer, mla)
        return self.norm(x, "model.norm.weight")

    def logits(self, ids, mla="expanded"):
        head = "model.embed_tokens.weight" if self.config.get("tie_word_embeddings") else "lm_head.weight"
        return self.linear(self.hidden(ids, mla), head)

    def mtp_logits(self, ids, mla="expanded"):
        """Row i predicts ids[i + 2] from the main model's state i and the embedding of ids[i + 1]: [S - 1, vocab]."""
        layer = self.config["num_hidden_layers"]
        p = f"model.layers.{layer}."
        embedded = self.norm(self.weights[p + "embed_tokens.weight"][ids[1:]], p + "enorm.weight")
        state = self.norm(self.hidden(ids, mla)[:-1], p + "hnorm.weight")
        x = self.layer(self.linear(np.concatenate([embedded, state], -1), p + "eh_proj.weight"), layer, mla)
        return self.linear(self.norm(x, p + "shared_head.norm.weight"), p + "shared_head.head.weight")


def log_softmax(z):
    z = z.astype(np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("ids")
    parser.add_argument("--mla", choices=["expanded", "absorbed"], default="expanded")
    parser.add_argument("--mtp", action="store_true")
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f32")
    a = parser.parse_args()
    ids = np.array([int(i) for i in open(a.ids).read().split()])
    model = DeepSeek(a.checkpoint, {"f32": np.float32, "f64": np.float64}[a.dtype])
    ahead = 2 if a.mtp else 1
    logprobs = log_softmax(model.mtp_logits(ids, a.mla) if a.mtp else model.logits(ids, a.mla))
    for i in range(len(ids) - ahead):
        print(json.dumps(dict(pos=i + ahead, id=int(ids[i + ahead]), logprob=round(float(logprobs[i, ids[i + ahead]]), 7))))
