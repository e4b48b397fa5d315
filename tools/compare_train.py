#!/usr/bin/env python3
"""Kogia's training against PyTorch's on the shapes of bench/models, by turns on this machine. See ./dev compare-train.

Of each program the fastest of its ways counts: PyTorch in f32 and bf16 (autocast), eager and compiled; Kogia in f32 and
bf16. Each runs in a process of its own, once a round.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHAPES = {"dense-300k": (32, 128), "moe-4m": (16, 256), "dense-13m": (16, 256)}


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()[-300:]}")
    return done.stdout


def torch_step(a, shape, dtype, compiled):
    batch, length = SHAPES[shape]
    out = json.loads(run([sys.executable, ROOT / "tools/train_torch.py", ROOT / f"bench/models/{shape}.json", "--batch", batch,
                          "--seq", length, "--dtype", dtype, "--threads", a.threads, "--steps", a.steps,
                          *(["--compile"] if compiled else [])]).strip().splitlines()[-1])
    return {"tok_s": out["tok_s"], "peak_gb": out["peak_rss_gb"], "first_s": out["warm_up_s"]}


def kogia_step(a, shape, dtype):
    out = json.loads(run(["env", f"KOGIA_THREADS={a.threads}", a.bench, f"--benchmark_filter=^{shape}/{dtype}/",
                          "--benchmark_format=json", f"--benchmark_min_time={a.seconds}"]))
    row = out["benchmarks"][0]
    return {"tok_s": row["tok/s"], "peak_gb": row["peak_GB"], "gflop_s": row["FLOP/s"] / 1e9, "first_s": row["first_s"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--peak", type=float, help="GFLOP/s that the machine can do (kogia devices)")
    a = parser.parse_args()
    lines = ["| shape | PyTorch f32 / compiled / bf16 / compiled | Kogia f32 / bf16 | ratio | peak memory | first step |",
             "|---|---|---|---|---|---|"]
    for shape in a.shapes.split(","):
        theirs, ours = {}, {}
        for _ in range(a.rounds):
            for dtype in ("f32", "bf16"):
                ours.setdefault(dtype, []).append(kogia_step(a, shape, dtype))
                for compiled in (False, True):
                    if compiled and a.no_compile:
                        continue
                    theirs.setdefault((dtype, compiled), []).append(torch_step(a, shape, dtype, compiled))
        middle = lambda rows, key: statistics.median(row[key] for row in rows)
        best_of = lambda ways: max(ways.values(), key=lambda rows: middle(rows, "tok_s"))
        mine, other = best_of(ours), best_of(theirs)
        speed = lambda ways, key: f"{middle(ways[key], 'tok_s'):,.0f}" if key in ways else "-"
        share = f", {middle(mine, 'gflop_s') / a.peak:.0%} of the peak" if a.peak else ""
        lines.append(
            f"| `{shape}` | {' / '.join(speed(theirs, (d, c)) for d in ('f32', 'bf16') for c in (False, True))} | "
            f"{speed(ours, 'f32')} / {speed(ours, 'bf16')} | {middle(mine, 'tok_s') / middle(other, 'tok_s'):.2f}{share} | "
            f"{middle(mine, 'peak_gb'):.2f} of {middle(other, 'peak_gb'):.2f} GB | "
            f"{middle(mine, 'first_s'):.2f} s, {middle(other, 'first_s'):.0f} s for three |")
        print(lines[-1], flush=True)
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
