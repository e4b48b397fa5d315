#!/usr/bin/env python3
"""Compares Kogia's tokenizers with Hugging Face `tokenizers`, string by string.

    cmake --preset check && ninja -C build/check text_tool
    python3 tools/differential_tokenizer.py [--strings N] [--seed S] [NAME...]

NAME is deepseek_v3, qwen3, llama3, smollm or variants (made-up tokenizers that reach the options which
the published ones leave unused); all by default. Random strings of every kind, then every code point;
ids and decoded text are compared. Exits 1 after showing a few differences.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "golden"))
import text_oracles as oracles  # noqa: E402


def ask_kogia(tool, path, strings, flags=()):
    lines = "".join(s.encode().hex() + "\n" for s in strings)
    done = subprocess.run([tool, str(path), *flags], input=lines, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        ids, text = line.split("|")
        yield [int(i) for i in ids.split()], bytes.fromhex(text).decode(errors="replace")


def compare(tool, path, oracle, strings, add_special=False):
    differences = 0
    flags = ["--add-special"] if add_special else []
    for i in range(0, len(strings), 20000):
        part = strings[i : i + 20000]
        wanted = oracle.encode_batch(part, add_special_tokens=add_special)
        decoded = oracle.decode_batch([w.ids for w in wanted], skip_special_tokens=False)
        for s, w, d, (ids, text) in zip(part, wanted, decoded, ask_kogia(tool, path, part, flags), strict=True):
            if w.ids != ids or d != text:
                differences += 1
                if differences <= 5:
                    print(f"  {s!r}\n    expected {w.ids} {d!r}\n    found    {ids} {text!r}")
    return differences


def tokenizers(names, scratch):
    """(name, oracle, path for the tool, whether to add special tokens)"""
    for name in names or ["deepseek_v3", "qwen3", "llama3", "smollm", "variants"]:
        if name == "smollm":
            oracle, dump = oracles.smollm()
            path = Path(scratch) / "smollm.json"
            path.write_text(json.dumps(dump, separators=(",", ":")), encoding="utf-8")
            yield name, oracle, path, False
        elif name == "variants":
            for variant, oracle in oracles.variants():
                path = Path(scratch) / f"{variant}.json"
                oracle.save(str(path))
                yield variant, oracle, path, True
        else:
            yield name, *oracles.hugging_face(name), False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--strings", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tool", default=str(ROOT / "build/check/bin/text_tool"))
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        for name, oracle, path, add_special in tokenizers(args.names, scratch):
            added = [t.content for t in oracle.get_added_tokens_decoder().values()]
            strings = oracles.texts(args.seed, args.strings, added)
            if not add_special:
                strings += oracles.every_code_point()
            differences = compare(args.tool, path, oracle, strings, add_special)
            print(f"{name}: {len(strings)} strings, {differences} differences", flush=True)
            failed |= differences > 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
