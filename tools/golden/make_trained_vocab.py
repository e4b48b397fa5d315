#!/usr/bin/env python3
"""Writes tests/data/text/bpe_trained.json: what Hugging Face's `tokenizers` learns from a text that every Debian has.

    make_trained_vocab.py FOLDER     FOLDER holds a tokenizer.json of `kogia tokenizer train`: its pre-tokenizer and
                                     special tokens are used, and nothing else of it
"""

import json
import sys
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = "/usr/share/common-licenses/GPL-3"
CASES = [(300, 2), (900, 2), (1400, 12)]


def learn(source, vocab_size, min_frequency):
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = Tokenizer.from_file(str(source)).pre_tokenizer
    special = [token["content"] for token in json.loads(source.read_text())["added_tokens"]]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    theirs.train_from_iterator([open(TEXT, newline="").read()], trainer)
    model = json.loads(theirs.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {"vocab_size": vocab_size, "min_frequency": min_frequency, "tokens": tokens,
            "merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]}


def main():
    source = Path(sys.argv[1]) / "tokenizer.json"
    data = {"tokenizers": tokenizers.__version__, "text": TEXT, "cases": [learn(source, *case) for case in CASES]}
    out = ROOT / "tests" / "data" / "text" / "bpe_trained.json"
    out.write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
