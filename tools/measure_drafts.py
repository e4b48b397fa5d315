"""Decodes the prompts of bench/prompts with and without --speculate lookup, by turns, and compares.

  measure_drafts.py KOGIA MODEL [--rounds N] [--temperature X,Y] [--sets copy,free] [-- FLAG...]

Prints a Markdown row for each set and temperature: tokens, tokens/s of each (all rounds together), their
ratio, drafts, and whether the answers are equal byte for byte. One sequence at a time, so that decode is
what is measured. Flags after -- go to `kogia run`.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
WAYS = {"plain": [], "lookup": ["--speculate", "lookup"]}


def answers(kogia, model, prompts, flags):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.jsonl"
        subprocess.run(
            [kogia, "run", model, "--prompts", prompts, "--out", out, "--max-sequences", "1", "--quiet", *flags],
            check=True,
        )
        return [json.loads(line) for line in out.read_text().splitlines()]


def what_is_said(lines):
    return [{k: v for k, v in line.items() if k not in ("usage", "timings", "key")} for line in lines]


class Sum:
    def __init__(self):
        self.tokens = self.seconds = self.drafted = self.accepted = 0

    def add(self, lines):
        for line in lines:
            timings = line["timings"]
            self.tokens += line["usage"]["completion_tokens"]
            self.seconds += timings["decode_s"]
            self.drafted += timings["drafted"]
            self.accepted += timings["accepted"]

    def rate(self):
        return self.tokens / self.seconds


def row(args, name, temperature):
    prompts = ROOT / "bench" / "prompts" / f"{name}.jsonl"
    sums = {way: Sum() for way in WAYS}
    said = {}
    for _ in range(args.rounds):
        for way, flags in WAYS.items():
            lines = answers(args.kogia, args.model, prompts, [*flags, "--temperature", temperature, *args.flags])
            sums[way].add(lines)
            said.setdefault(way, []).append(what_is_said(lines))
    plain, lookup = sums["plain"], sums["lookup"]
    equal = all(each == said["plain"][0] for each in said["plain"] + said["lookup"])
    print(
        f"| {name} | {temperature} | {plain.tokens // args.rounds} | {plain.rate():.0f} | {lookup.rate():.0f} "
        f"| {lookup.rate() / plain.rate():.2f} | {lookup.accepted} of {lookup.drafted} | {'yes' if equal else 'NO'} |",
        flush=True,
    )
    return equal


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("kogia")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", default="0,0.8")
    parser.add_argument("--sets", default="copy,free")
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    print("| prompts | temperature | tokens | plain tok/s | lookup tok/s | ratio | drafts accepted | same bytes |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    equal = [row(args, name, t) for name in args.sets.split(",") for t in args.temperature.split(",")]
    sys.exit(0 if all(equal) else "the answers differ")


main()
