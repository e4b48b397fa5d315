"""Decodes prompts with and without --speculate, by turns, and compares.

  measure_drafts.py KOGIA MODEL [--how lookup|mtp] [--rounds N] [--temperature X,Y] [--sets copy,free]
                    [--prompts FILE] [--max-tokens N] [-- FLAG...]

Prints a Markdown row for each file of prompts (sets are those of bench/prompts) and temperature: tokens, tokens/s of each
way (of each prompt the median round), their ratio, how many drafts were accepted, by their place in a step where places are
few, tokens a step, the share of 4-grams of an answer that are its first such (an answer that goes round in circles has
few), and whether the answers are equal byte for byte, log-probabilities included. One sequence at a time, so that decode is
what is measured. --max-tokens: so many, the end of a text is ignored, and sampling is of the whole distribution. Flags
after -- go to `kogia run`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOST_PLACES = 4


def answers(kogia, model, prompts, flags):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.jsonl"
        command = [kogia, "run", model, "--prompts", prompts, "--out", out, "--max-sequences", "1", "--quiet", "--logprobs"]
        subprocess.run([*command, *flags], check=True)
        return [json.loads(line) for line in out.read_text().splitlines()]


def what_is_said(lines):
    return [{k: v for k, v in line.items() if k not in ("usage", "timings", "key")} for line in lines]


def distinct_4grams(lines):
    """Over all answers: different ones of each, by all of them."""
    grams = [list(zip(*(line["ids"][i:] for i in range(4)))) for line in lines]
    return sum(len(set(g)) for g in grams) / max(1, sum(map(len, grams)))


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

    def timings(self):
        return [line["timings"] for lines in self.rounds for line in lines]

    def drafts(self, what):
        return sum(t[what] for t in self.timings()) // len(self.rounds)

    def at(self, what):
        """Sums by place in a step."""
        places = [t[what + "_at"] for t in self.timings()]
        return [sum(p[i] for p in places if i < len(p)) for i in range(max(map(len, places), default=0))]

    def acceptance(self):
        text = f"{self.drafts('accepted')} of {self.drafts('drafted')}"
        shares = [f"{a / d:.2f}" for a, d in zip(self.at("accepted"), self.at("drafted"))]
        return text + (f" ({', '.join(shares)})" if 0 < len(shares) <= MOST_PLACES else "")

    def tokens_a_step(self):
        return self.tokens() / max(1, self.drafts("steps"))


def row(args, prompts, temperature):
    ways = {"plain": [], "drafted": ["--speculate", args.how]}
    fixed = ["--max-tokens", str(args.max_tokens), "--ignore-eos", "--top-k", "0", "--top-p", "1", "--min-p", "0"]
    rounds = {way: Rounds() for way in ways}
    for _ in range(args.rounds):
        for way, flags in ways.items():
            flags = [*flags, "--temperature", temperature, *(fixed if args.max_tokens else []), *args.flags]
            rounds[way].add(answers(args.kogia, args.model, prompts, flags))
    plain, drafted = rounds["plain"], rounds["drafted"]
    said = [what_is_said(lines) for lines in plain.rounds + drafted.rounds]
    equal = all(each == said[0] for each in said)
    name = prompts.parent.name if prompts.stem == "prompts" else prompts.stem
    print(
        f"| {name} | {temperature} | {plain.tokens()} | {plain.rate():.0f} | {drafted.rate():.0f} "
        f"| {drafted.rate() / plain.rate():.2f} | {drafted.acceptance()} | {drafted.tokens_a_step():.2f} "
        f"| {distinct_4grams(plain.rounds[0]):.2f} | {'yes' if equal else 'NO'} |",
        flush=True,
    )
    return equal


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("kogia")
    parser.add_argument("model")
    parser.add_argument("--how", choices=["lookup", "mtp"], default="lookup")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperature", default="0,0.8")
    parser.add_argument("--sets", default="copy,free")
    parser.add_argument("--prompts", type=pathlib.Path)
    parser.add_argument("--max-tokens", type=int)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.flags = words[end + 1 :]
    sets = [ROOT / "bench" / "prompts" / f"{name}.jsonl" for name in args.sets.split(",")]
    if args.prompts:
        sets = [args.prompts]
    print(
        f"| prompts | temperature | tokens | plain tok/s | {args.how} tok/s | ratio | drafts accepted (by place) "
        "| tokens a step | distinct 4-grams | same bytes |"
    )
    print("|" + "---|" * 10, flush=True)
    equal = [row(args, prompts, t) for prompts in sets for t in args.temperature.split(",")]
    sys.exit(0 if all(equal) else "the answers differ")


main()
