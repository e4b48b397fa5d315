#!/usr/bin/env python3
"""Do other programs read what Kogia writes, and compute the same from it?

    interop.py --kogia PROGRAM --llama FOLDER --work FOLDER

Directories: transformers loads what `kogia synth` wrote and gives the same log-probabilities (1e-3, f32).
GGUF: llama.cpp loads it, runs a prefill and a decode, and gives the same log-probabilities within what its
rounding of activations allows (it has no f32 mode for quantised files).
Runs under the Python of tools/golden/requirements.txt; ./dev interop starts it.
"""

import argparse
import json
import os
import pathlib
import random
import struct
import subprocess
import sys

N_IDS = 48
TOLERANCE = 1e-3
DIRECTORIES = [("v3-tiny", "BF16"), ("mini", "BF16")]
GGUFS = [("mini", "BF16"), ("mini", "Q8_0"), ("mini", "Q4_K"), ("v3-tiny", "Q8_0")]
CTX = 64
# Random experts are chosen by small differences, so rounding alone moves log-probabilities of these models a lot.
# What it explains is measured with Kogia's own arithmetic (f32 against the rounding that llama.cpp uses for the
# format); llama.cpp may stand this many times as far from f32. A wrong tensor or key is off by 1 and more.
ROUNDING_FACTOR = 2.5


def run(command, **options):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-1500:]}")
    return done.stdout


def synth(arguments, name, weights, path):
    if not path.exists():
        run([arguments.kogia, "synth", name, "--weights", weights, "-o", path])
    return path


def kogia_logprobs(arguments, model, ids, *flags):
    """{pos: log p(ids[pos] | the ids before it in its window)}"""
    file = arguments.work / "ids.txt"
    file.write_text(" ".join(map(str, ids)))
    lines = run([arguments.kogia, "perplexity", model, "--ids", file, "--per-token", "--json", *flags])
    rows = [json.loads(line) for line in lines.splitlines()]
    return {row["pos"]: row["logprob"] for row in rows if "logprob" in row}


def llama_logprobs(arguments, model):
    """The tokens that llama.cpp makes of a text, and the log-probabilities of those in the second half of each
    window of CTX, from the file that llama-perplexity writes for later comparison (16 bits a number)."""
    text, base = arguments.work / "text.txt", arguments.work / "base.bin"
    chooser = random.Random(11)
    text.write_text("".join(chooser.choice("abcdefghijklmnopqrstuvwxyz ,.") for _ in range(6 * CTX)))
    run([arguments.llama / "llama-perplexity", "-m", model, "-f", text, "-c", CTX, "-b", CTX, "--kl-divergence-base",
         base])
    blob = base.read_bytes()
    if blob[:8] != b"_logits_":
        raise RuntimeError(f"{base} begins with {blob[:8]!r}, expected b'_logits_'")
    n_ctx, n_vocab, n_chunk = struct.unpack_from("<Iii", blob, 8)
    ids = struct.unpack_from(f"<{n_ctx * n_chunk}i", blob, 20)
    at, logprobs = 20 + 4 * len(ids), {}
    row_bytes = 2 * (2 * ((n_vocab + 1) // 2) + 4)
    for chunk in range(n_chunk):
        for pos in range(n_ctx // 2 + 1, n_ctx):
            scale, least = struct.unpack_from("<2f", blob, at)
            token = ids[chunk * n_ctx + pos]
            code = struct.unpack_from("<H", blob, at + 8 + 2 * token)[0]
            if code > 0:  # 0: less than e^-16 of the likeliest
                logprobs[chunk * n_ctx + pos] = least + scale * code
            at += row_bytes
    return list(ids), logprobs


def transformers_logprobs(model_path, ids):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    logprobs = torch.log_softmax(logits, dim=-1)
    return [logprobs[i - 1, ids[i]].item() for i in range(1, len(ids))]


def check_directory(arguments, name, weights):
    path = synth(arguments, name, weights, arguments.work / f"{name}-{weights.lower()}")
    vocab_size = json.loads((path / "config.json").read_text())["vocab_size"]
    chooser = random.Random(7)
    ids = [chooser.randrange(vocab_size) for _ in range(N_IDS)]
    ours = [logprob for _, logprob in sorted(kogia_logprobs(arguments, path, ids, "--compute", "f32").items())]
    theirs = transformers_logprobs(path, ids)
    if len(ours) != len(theirs):
        raise RuntimeError(f"{len(ours)} log-probabilities, expected {len(theirs)}")
    worst = max(abs(a - b) for a, b in zip(ours, theirs))
    if worst > TOLERANCE:
        raise RuntimeError(f"log-probabilities differ by {worst:.2e}, more than {TOLERANCE}")
    return f"transformers agrees to {worst:.1e}"


def check_gguf(arguments, name, weights):
    path = synth(arguments, name, weights, arguments.work / f"{name}-{weights.lower()}.gguf")
    rows = json.loads(run([arguments.llama / "llama-bench", "-m", path, "-r", "1", "-p", "8", "-n", "4", "-o", "json"]))
    ids, theirs = llama_logprobs(arguments, path)
    rounding = "bf16" if weights == "BF16" else "int8"
    exact, rounded = (kogia_logprobs(arguments, path, ids, "--compute", compute, "--ctx", CTX)
                      for compute in ("f32", rounding))
    mean = lambda other: sum(abs(exact[pos] - other[pos]) for pos in theirs) / len(theirs)
    difference, explained = mean(theirs), mean(rounded)
    text = (f"{len(theirs)} log-probabilities of llama.cpp are {difference:.4f} from f32 in the mean, "
            f"{rounding} rounding alone {explained:.4f}")
    if len(theirs) < CTX or difference > ROUNDING_FACTOR * explained:
        raise RuntimeError(text)
    return f"runs as {rows[0]['model_type']}; {text}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--kogia", "--llama", "--work"):
        parser.add_argument(flag, required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}

    failed = 0
    checks = [(check_directory, *case) for case in DIRECTORIES] + [(check_gguf, *case) for case in GGUFS]
    for check, name, weights in checks:
        kind = "directory" if check is check_directory else "GGUF"
        try:
            print(f"ok      {name} {weights} {kind}: {check(arguments, name, weights)}", flush=True)
        except Exception as error:  # one failure must not hide the others
            failed += 1
            print(f"FAILED  {name} {weights} {kind}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
