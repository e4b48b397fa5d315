#!/usr/bin/env python3
"""Keeps some documents of .jsonl files out of what is learnt, and makes prompts of their beginnings.

    hold_out.py --out DIR --prompts FILE [--each N] [--words N] [--rest N] FILE.jsonl...

Of each file N documents that have at least --words + --rest words are held out: those whose text has the smallest hashes.
The others go to DIR under the file's name. A prompt, {"prompt": ...}, is the first --words words of a document, cut where
a word begins.
"""

import argparse
import hashlib
import json
import pathlib
import re


def text_of(line):
    return json.loads(line)["text"]


def beginning(text, n_words):
    """Up to the end of the n-th word: what follows begins with the space before the next one."""
    return text[: [m.end() for m in re.finditer(r"\S+", text)][n_words - 1]]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--prompts", type=pathlib.Path, required=True)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--rest", type=int, default=100)
    args = parser.parse_args()
    prompts = []
    for file in args.files:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line]
        long_enough = [i for i, line in enumerate(lines) if len(text_of(line).split()) >= args.words + args.rest]
        held_out = set(sorted(long_enough, key=lambda i: hashlib.sha256(lines[i].encode()).digest())[: args.each])
        prompts += [beginning(text_of(lines[i]), args.words) for i in sorted(held_out)]
        rest = [line + "\n" for i, line in enumerate(lines) if i not in held_out]
        (args.out / file.name).write_text("".join(rest), encoding="utf-8")
    args.prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts), encoding="utf-8")


if __name__ == "__main__":
    main()
