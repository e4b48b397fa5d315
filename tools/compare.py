#!/usr/bin/env python3
"""Kogia and llama.cpp by turns on one model and one machine: prefill 512 and decode 64 tokens.

    compare.py --kogia PROGRAM --llama-bench PROGRAM MODEL [--threads N] [--rounds N] [-- FLAG...]

Flags behind -- go to `kogia bench`. Prints the rounds as they come (standard error) and one table of medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

N_PREFILL, N_DECODE = 512, 64


def run_json(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {command[0]} failed with {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def bench_llama(arguments):
    rows = run_json([arguments.llama_bench, "-m", arguments.model, "-t", str(arguments.threads), "-r", "1",
                     "-p", str(N_PREFILL), "-n", str(N_DECODE), "-o", "json"])
    prefill = next(row["avg_ts"] for row in rows if row["n_gen"] == 0)
    decode = next(row["avg_ts"] for row in rows if row["n_prompt"] == 0)
    return {"prefill": prefill, "decode": decode}


def bench_kogia(arguments):
    result = run_json([arguments.kogia, "bench", arguments.model, "--threads", str(arguments.threads),
                       "--prompt", str(N_PREFILL), "--gen", str(N_DECODE), "--repeat", "1", "--json", *arguments.flags])
    return {phase: result[phase]["tokens_per_s"] for phase in ("prefill", "decode")}


def parse(argv):
    flags = []
    if "--" in argv:
        at = argv.index("--")
        argv, flags = argv[:at], argv[at + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--kogia", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(argv)
    arguments.flags = flags
    return arguments


def main():
    arguments = parse(sys.argv[1:])
    engines = {"kogia": bench_kogia, "llama.cpp": bench_llama}
    seen = {name: {"prefill": [], "decode": []} for name in engines}
    for round_number in range(1, arguments.rounds + 1):
        for name, bench in engines.items():
            result = bench(arguments)
            for phase, tokens_per_s in result.items():
                seen[name][phase].append(tokens_per_s)
            print(f"round {round_number}  {name:9}  prefill {result['prefill']:8.1f}  decode {result['decode']:7.1f} tok/s",
                  file=sys.stderr)
    print(f"{os.path.basename(arguments.model)}, {arguments.threads} threads, {arguments.rounds} rounds by turns; "
          "median tok/s [least-most]")
    for phase, n in (("prefill", N_PREFILL), ("decode", N_DECODE)):
        median = {name: statistics.median(seen[name][phase]) for name in engines}
        cells = "   ".join(f"{name} {median[name]:8.1f} [{min(seen[name][phase]):.1f}-{max(seen[name][phase]):.1f}]"
                           for name in engines)
        print(f"{phase:7} {n:4}   {cells}   ratio {median['kogia'] / median['llama.cpp']:.2f}")


if __name__ == "__main__":
    main()
