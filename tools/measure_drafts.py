"""Decodes the prompts of bench/prompts with and without --speculate lookup, by turns, and compares.

  measure_drafts.py KOGIA MODEL [--rounds N] [--temperature X,Y] [--sets copy,free] [-- FLAG...]

Prints a Markdown row for each set and temperature: tokens, tokens/s of each way (of each prompt the median
round), their ratio, drafts of a round, and whether the answers are equal byte for byte. One sequence at a
time, so that decode is what is measured. Flags after -- go to `kogia run`.
"""

import argparse
import json
import pathlib
import statistics
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


class Rounds:
    """The same answers several times: of each prompt the median time counts, so that a disturbed run does not."""

    def __init__(self):
        self.rounds = []

    def add(self, lines):
        self.rounds.append(lines)

    def tokens(self):
        return sum(line["usage"]["completion_tokens"] for line in self.rounds[0])

    def rate(self):
        times = zip(*([line["timings"]["decode_s"] for line in lines] for lines in self.rounds))
        return self.tokens() / sum(map(statistics.median, times))

    def drafts(self, what):
        return sum(line["timings"][what] for lines in self.rounds for line in lines) // len(self.rounds)


def row(args, name, temperature):
    prompts = ROOT / "bench" / "prompts" / f"{name}.jsonl"
    rounds = {way: Rounds() for way in WAYS}
    for _ in range(args.rounds):
        for way, flags in WAYS.items():
            flags = [*flags, "--temperature", temperature, *args.flags]
            rounds[way].add(answers(args.kogia, args.model, prompts, flags))
    plain, lookup = rounds["plain"], rounds["lookup"]
    said = [what_is_said(lines) for lines in plain.rounds + lookup.rounds]
    equal = all(each == said[0] for each in said)
    print(
        f"| {name} | {temperature} | {plain.tokens()} | {plain.rate():.0f} | {lookup.rate():.0f} "
        f"| {lookup.rate() / plain.rate():.2f} | {lookup.drafts('accepted')} of {lookup.drafts('drafted')} "
        f"| {'yes' if equal else 'NO'} |",
        flush=True,
    )
    return equal


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("kogia")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", default="0,0.8")
    parser.add_argument("--sets", default="copy,free")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.flags = words[end + 1 :]
    print("| prompts | temperature | tokens | plain tok/s | lookup tok/s | ratio | drafts accepted | same bytes |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    equal = [row(args, name, t) for name in args.sets.split(",") for t in args.temperature.split(",")]
    sys.exit(0 if all(equal) else "the answers differ")


main()
