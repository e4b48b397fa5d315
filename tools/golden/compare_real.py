#!/usr/bin/env python3
"""Compares SmolLM2 in Kogia with transformers in f32 over the full distribution of 2,048 positions.

    compare_real.py TOOL        TOOL: the program logits_tool (tests/infer/)

Prints KL(transformers || Kogia), the share of positions with the same top token and the perplexity of
the first window, for each arithmetic. ./dev golden real builds the tool and starts this.
"""

import subprocess
import sys
import tempfile

import numpy as np

import real


def log_softmax(logits):
    z = logits.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kogia_logprobs(tool, ids, compute, vocab):
    with tempfile.NamedTemporaryFile("w", suffix=".ids") as file:
        file.write(" ".join(map(str, ids)))
        file.flush()
        raw = subprocess.run([tool, real.model_path(), file.name, compute], check=True, stdout=subprocess.PIPE).stdout
    return log_softmax(np.frombuffer(raw, "<f4").reshape(len(ids), vocab))


def main(tool):
    tokenizer, model = real.load()
    ids = real.text_ids(tokenizer)
    computes = ["f32", "default", "bf16", "int8"]
    sums = {c: [0.0, 0, None] for c in computes}
    for w, reference in enumerate(real.window_logprobs(model, ids)):
        window = ids[w * real.N_WINDOW:(w + 1) * real.N_WINDOW]
        theirs = reference.astype(np.float64)
        for compute in computes:
            ours = kogia_logprobs(tool, window, compute, theirs.shape[1])
            sums[compute][0] += (np.exp(theirs) * (theirs - ours)).sum(-1).sum()
            sums[compute][1] += int((theirs.argmax(-1) == ours.argmax(-1)).sum())
            if w == 0:
                sums[compute][2] = np.exp(-np.mean(ours[np.arange(len(window) - 1), window[1:]]))
    print(f"{'compute':8} {'KL':>10} {'same top':>9} {'perplexity':>11}")
    for compute, (kl, same, perplexity) in sums.items():
        print(f"{compute:8} {kl / len(ids):10.2e} {100 * same / len(ids):8.2f}% {perplexity:11.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
