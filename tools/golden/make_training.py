#!/usr/bin/env python3
"""Writes tests/data/golden/train_v3/: a tiny DeepSeek-V3 with drawn weights, and what 200 steps of training by PyTorch
in f32 make of it.

    make_training.py [--output FOLDER] [--double] [--nudge]
        --double   writes nothing, trains in f64 and prints how far the losses of training.json are from that
        --nudge    the same in f32 from weights that differ in their last bits

text.txt is data, not made here: early pages of our own documentation. Row r of step s (both from 0) begins at byte
b = ((8 s + r) * 64) mod (length - 65): inputs are the bytes [b, b + 64), targets [b + 1, b + 65), a byte is its own id.
A row is one document of 65 tokens: 64 targets, and 63 of multi-token prediction (as make_gradients.py says).

The loss of a step is  mean of -log p + 0.3 * mean of -log p of multi-token prediction.  Its gradient is clipped to a
global norm of 1 by torch.nn.utils.clip_grad_norm_ (coefficient min(1, 1 / (norm + 1e-6)); embedding and head count
once), then AdamW: learning rate 1e-3 throughout, betas 0.9 and 0.95, eps 1e-8, decay 0.1 of matrices (embedding, head,
router and experts among them), none of norms. Experts without a token are stepped with a gradient of zero. Then each
selection bias: b += 0.001 * sign(mean(c) - c), c the tokens of each expert in this step's batch, in each expert layer.

training.json:
  loss, mtp_loss   of each step, before its update
  grad_norm        of each step, before clipping
  counts           of the first three steps: tokens of each expert, expert layers in order, multi-token prediction last
  final_norms      L2 norms of some tensors after the last step
  final_biases     selection biases after the last step
"""

import argparse
import importlib.metadata
import json
import pathlib

import ml_dtypes
import numpy as np
import torch

import files
from cases import deepseek, tensor_shapes
from make_checkpoints import write_config
from make_gradients import objective, rounded
from torch_model import TorchModel, in_double

CONFIG = deepseek(
    "deepseek_v3", vocab_size=256, hidden_size=64, intermediate_size=128, moe_intermediate_size=32,
    num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=8,
    num_experts_per_tok=2, routed_scaling_factor=1.0, kv_lora_rank=32, q_lora_rank=None, qk_nope_head_dim=16,
    qk_rope_head_dim=8, v_head_dim=16, rope_interleave=True, num_nextn_predict_layers=1, torch_dtype="float32")
N_STEPS, N_ROWS, N_TOKENS = 200, 8, 64
SEED, STD = 23, 0.06
LEARNING_RATE, BETAS, EPS, DECAY, CLIP, BIAS_STEP = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0, 1e-3
N_COUNTED = 3


def draw_weights():
    """f32 that bf16 holds too: a run in bf16 begins at the same point."""
    rng, weights = np.random.default_rng(SEED), {}
    for name, shape in tensor_shapes(CONFIG).items():
        if name.endswith("e_score_correction_bias"):
            w = np.zeros(shape)
        else:
            w = rng.standard_normal(shape) * STD if len(shape) > 1 else np.ones(shape)
        weights[name] = w.astype(ml_dtypes.bfloat16).astype(np.float32)
    mtp = f"model.layers.{CONFIG['num_hidden_layers']}."
    weights[mtp + "embed_tokens.weight"] = weights["model.embed_tokens.weight"]
    weights[mtp + "shared_head.head.weight"] = weights["lm_head.weight"]
    return weights


def batch(text, step):
    begins = [((N_ROWS * step + r) * N_TOKENS) % (len(text) - N_TOKENS - 1) for r in range(N_ROWS)]
    return torch.tensor([list(text[b:b + N_TOKENS + 1]) for b in begins])


def optimizer_of(model):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [dict(params=matrices, weight_decay=DECAY), dict(params=vectors, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS, foreach=False)


def one_step(model, optimizer, ids):
    """Losses of each depth, norm of the gradient, tokens of each expert in each expert layer."""
    targets = torch.tensor([N_ROWS * (N_TOKENS - k) for k in range(1 + len(model.mtp))])
    losses = torch.stack(model.losses(ids)) / targets
    optimizer.zero_grad(set_to_none=False)
    objective(losses).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
    counts = [torch.bincount(experts.flatten(), minlength=CONFIG["n_routed_experts"])
              for _, experts in model.take_routed()]
    for bias, count in zip(model.biases().values(), counts, strict=True):
        count = count.to(bias.dtype)
        bias += BIAS_STEP * torch.sign(count.mean() - count)
    return losses.tolist(), norm.item(), [count.tolist() for count in counts]


def train(model, text):
    optimizer = optimizer_of(model)
    out = dict(loss=[], mtp_loss=[], grad_norm=[], counts=[])
    for step in range(N_STEPS):
        (loss, mtp_loss), norm, counts = one_step(model, optimizer, batch(text, step))
        for key, value in dict(loss=loss, mtp_loss=mtp_loss, grad_norm=norm).items():
            out[key].append(rounded(value))
        if step < N_COUNTED:
            out["counts"].append(counts)
    norms = {n: rounded(x.norm().item()) for n, x in model.named(lambda p: p.data).items() if ".experts." not in n}
    biases = {n: [rounded(v, 6) for v in b.tolist()] for n, b in model.biases().items()}
    return out | dict(final_norms=norms, final_biases=biases)


def compare(ours, theirs):
    for key in ("loss", "mtp_loss", "grad_norm"):
        difference = np.abs(np.array(ours[key]) - np.array(theirs[key]))
        print(f"{key:10} at most {difference.max():.1e} away, step {difference.argmax() + 1}; "
              f"in the last 50 steps {difference[-50:].mean():.1e} on average")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parents[2] / "tests/data/golden/train_v3"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="holds text.txt too")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--nudge", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = arguments.output
    text = (folder / "text.txt").read_bytes()
    if arguments.double:
        model = TorchModel(folder, double=True)
        with in_double():
            compare(train(model, text), json.loads((folder / "training.json").read_text()))
        return
    if arguments.nudge:
        model = TorchModel(folder)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + 1e-7 * torch.randn_like(p))
        compare(train(model, text), json.loads((folder / "training.json").read_text()))
        return
    write_config(folder, CONFIG)
    files.write_safetensors(folder / "model.safetensors", draw_weights())
    out = train(TorchModel(folder), text)
    out["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers", "numpy")}
    (folder / "training.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
    print(f"loss {out['loss'][0]:.4f} to {out['loss'][-1]:.4f}, multi-token prediction {out['mtp_loss'][0]:.4f} to "
          f"{out['mtp_loss'][-1]:.4f}")


if __name__ == "__main__":
    main()
