#!/usr/bin/env python3
"""Do other programs read what Kogia writes, and compute the same from it?

    interop.py --kogia PROGRAM --llama FOLDER --work FOLDER

Directories: transformers loads what `kogia synth` wrote and gives the same log-probabilities (1e-3, f32).
GGUF: llama.cpp loads it and runs a prefill and a decode.
Runs under the Python of tools/golden/requirements.txt; ./dev interop starts it.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

N_IDS = 48
TOLERANCE = 1e-3
DIRECTORIES = [("v3-tiny", "BF16"), ("mini", "BF16")]
GGUFS = [("mini", "BF16"), ("mini", "Q8_0"), ("mini", "Q4_K"), ("v3-tiny", "Q8_0")]


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


def kogia_logprobs(arguments, model, ids):
    """log p(ids[i] | ids[:i]) for i = 1, 2, ..."""
    file = arguments.work / "ids.txt"
    file.write_text(" ".join(map(str, ids)))
    lines = run([arguments.kogia, "perplexity", model, "--ids", file, "--per-token", "--json", "--compute", "f32"])
    rows = [json.loads(line) for line in lines.splitlines()]
    return {row["pos"]: row["logprob"] for row in rows if "logprob" in row}


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
    ours = [logprob for _, logprob in sorted(kogia_logprobs(arguments, path, ids).items())]
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
    return f"llama.cpp runs it ({rows[0]['model_type']})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--kogia", "--llama", "--work"):
        parser.add_argument(flag, required=True, type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    failed = 0
    checks = [(check_directory, *case) for case in DIRECTORIES] + [(check_gguf, *case) for case in GGUFS]
    for check, name, weights in checks:
        kind = "directory" if check is check_directory else "GGUF"
        try:
            print(f"ok      {name} {weights} {kind}: {check(arguments, name, weights)}")
        except Exception as error:  # one failure must not hide the others
            failed += 1
            print(f"FAILED  {name} {weights} {kind}: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
