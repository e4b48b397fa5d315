#!/usr/bin/env python3
"""Writes tests/data/golden/CASE/gradients.json: what PyTorch's autograd makes of the golden checkpoints, in f64.

    make_gradients.py [--output FOLDER] [CASE...]

The batch is two packed rows of documents cut from `ids` of expected.json (`rows`: begin and end of each). A document of n tokens predicts
n - 1 targets at depth 0 and n - 1 - k at depth k: row i pairs the state of depth k - 1 behind ids[i] with ids[i + k]
and predicts ids[i + k + 1]. Nothing crosses documents: each is computed by itself here.

    loss          mean of -log p over the targets of depth 0
    mtp_loss      the same of each depth of multi-token prediction, over its own targets
    tensors       gradient of  loss + 0.3 / D * (sum of mtp_loss)  by the checkpoint's names. The copies of embedding and
                  head in a multi-token prediction layer have none of their own: it is in that of the original.
    balance_loss  sequence-wise balance loss with alpha = 1 of each expert layer (multi-token prediction last):
                  sum of f_i P_i of each document, f from the unbiased top-k, averaged over the documents by their rows
    balance_tensors   gradient of the sum of balance_loss alone, where it is not zero
Of each gradient: its L2 norm, and values at some flat indices, the largest among them. Selection biases are frozen.
"""

import argparse
import importlib.metadata
import json
import pathlib
import zlib

import numpy as np
import torch

from deepseek import DeepSeek, log_softmax
from torch_model import MTP_LAMBDA, TorchModel, in_double

CASES = ["v3", "v2_lite", "v2_group", "v3_tf5", "qwen2", "qwen2_tied", "qwen3", "llama", "llama_tied"]
WITH_BALANCE = ["v3"]
DOCUMENTS = [[[0, 70], [70, 101]], [[22, 150]]]
MIN_ROUTER_MARGIN = 2e-5  # closer choices of experts could fall either way by rounding alone
N_LARGEST = 8


def forward(model, documents):
    """Losses of each depth, and what the routers of each document did: [(logits, experts), layer by layer]."""
    sums, counts, routed = 0, 0, []
    for ids in documents:
        losses = model.losses(torch.tensor([ids]))
        sums = sums + torch.stack(losses)
        counts = counts + torch.tensor([len(ids) - 1 - k for k in range(len(losses))])
        routed.append(model.take_routed())
    return sums / counts, routed


def balance_loss(logits, top_k):
    """f_i = E / (K T) * how often i is in the top-k of the unbiased scores, P_i = mean share of the score."""
    score = logits.sigmoid()
    n_tokens, n_experts = score.shape
    best = score.topk(top_k + 1, -1)
    assert (best.values[:, -2] - best.values[:, -1]).min() > MIN_ROUTER_MARGIN, "a choice of experts is close"
    frequency = torch.bincount(best.indices[:, :-1].flatten(), minlength=n_experts) * (n_experts / (top_k * n_tokens))
    return (frequency * (score / score.sum(-1, keepdim=True)).mean(0)).sum()


def balance_losses(routed):
    """Of each expert layer, the documents weighted by their rows."""
    rows = torch.tensor([[len(logits) for logits, _ in document] for document in routed])
    each = torch.stack([torch.stack([balance_loss(logits, experts.shape[1]) for logits, experts in document])
                        for document in routed])
    return (rows * each).sum(0) / rows.sum(0)


def choices(routed):
    return [experts.sort(-1).values for document in routed for _, experts in document]


def objective(losses):
    return losses[0] + (MTP_LAMBDA * losses[1:].mean() if len(losses) > 1 else 0)


def gradients(model, value):
    model.zero_grad()
    value.backward(retain_graph=True)
    return {n: g.clone() for n, g in model.named(lambda p: torch.zeros_like(p) if p.grad is None else p.grad).items()}


def check_direction(model, documents, value_of, gradient, rng):
    """The gradient along a random direction against central differences."""
    parameters = model.named(lambda parameter: parameter.data)
    direction = {n: torch.from_numpy(rng.standard_normal(tuple(x.shape))) for n, x in parameters.items()}
    step, ends = 1e-7, []
    for sign in (1, -2):
        for n, x in parameters.items():
            x.add_(direction[n], alpha=sign * step)
        with torch.no_grad():
            ends.append(value_of(*forward(model, documents)).item())
    for n, x in parameters.items():
        x.add_(direction[n], alpha=step)
    slope = sum((gradient[n] * direction[n]).sum().item() for n in gradient)
    assert abs((ends[0] - ends[1]) / (2 * step) - slope) < 1e-6 * max(1, abs(slope)), (ends, slope)


def check_against_numpy(folder, documents, losses):
    """Losses by the numpy oracle, which also knows how clear the choices of experts are."""
    oracle, sums = DeepSeek(str(folder), np.float64), np.zeros(len(losses))
    for ids in map(np.array, documents):
        for k, logits in enumerate([oracle.logits, oracle.mtp_logits][:len(losses)]):
            p = log_softmax(logits(ids))
            sums[k] -= sum(p[i, ids[i + k + 1]] for i in range(len(ids) - 1 - k))
    counts = [sum(len(ids) - 1 - k for ids in documents) for k in range(len(losses))]
    difference = np.abs(sums / counts - losses.numpy()).max()
    assert difference < 1e-9, f"the oracles differ by {difference}"
    assert oracle.router_margin > MIN_ROUTER_MARGIN, f"a choice of experts is close: {oracle.router_margin}"


def sampled(gradient, case, n_most):
    out = {}
    for name, x in gradient.items():
        x = x.flatten().numpy()
        rng = np.random.default_rng(zlib.crc32(f"{case} {name}".encode()))
        n = min(n_most // 2 if ".experts." in name else n_most, len(x))
        largest = np.argsort(-np.abs(x), kind="stable")[:min(N_LARGEST, n // 2)]
        others = np.setdiff1d(rng.permutation(len(x))[:n], largest)
        indices = np.sort(np.concatenate([largest, rng.permutation(others)[:n - len(largest)]]))
        out[name] = dict(norm=rounded(np.linalg.norm(x)), indices=indices.tolist(), values=[rounded(v) for v in x[indices]])
    return out


def rounded(value, digits=9):
    return float(f"{value:.{digits}g}")


def relative_difference(a, b):
    """Largest distance of two gradients, each tensor by its norm."""
    return max(((a[n].double() - b[n]).norm() / b[n].norm()).item() for n in b if b[n].any())


def make_case(case, folder):
    ids = json.loads((folder / "expected.json").read_text())["ids"]
    documents = [ids[begin:end] for row in DOCUMENTS for begin, end in row]
    single, double = TorchModel(folder), TorchModel(folder, double=True)
    losses_f32, routed_f32 = forward(single, documents)
    with in_double():
        losses, routed = forward(double, documents)
        gradient = gradients(double, objective(losses))
        check_direction(double, documents, lambda losses, _: objective(losses), gradient, np.random.default_rng(1))
    assert all(map(torch.equal, choices(routed), choices(routed_f32))), "f32 routes otherwise"
    if "kv_lora_rank" in json.loads((folder / "config.json").read_text()):
        check_against_numpy(folder, documents, losses.detach())
    out = dict(rows=DOCUMENTS, loss=rounded(losses[0].item(), 12), mtp_loss=[rounded(v, 12) for v in losses[1:].tolist()],
               tensors=sampled(gradient, case, 48))
    if case in WITH_BALANCE:
        with in_double():
            balance = balance_losses(routed)
            balance_gradient = gradients(double, balance.sum())
            check_direction(double, documents, lambda _, routed: balance_losses(routed).sum(), balance_gradient,
                            np.random.default_rng(2))
        out |= dict(balance_loss=[rounded(v, 12) for v in balance.tolist()],
                    balance_tensors=sampled({n: g for n, g in balance_gradient.items() if g.any()}, case + " balance", 16))
    out["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers", "numpy")}
    (folder / "gradients.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
    return out, relative_difference(gradients(single, objective(losses_f32)), gradient)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parents[2] / "tests/data/golden"
    parser.add_argument("--output", type=pathlib.Path, default=default, help="holds the checkpoints too")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in arguments.cases or CASES:
        out, difference = make_case(case, arguments.output / case)
        size = (arguments.output / case / "gradients.json").stat().st_size
        print(f"{case:12} {size / 1000:6.0f} kB  loss {out['loss']:.6f} {out['mtp_loss']}  {out.get('balance_loss', '')}  "
              f"PyTorch's f32 is {difference:.1e} away")


if __name__ == "__main__":
    main()
