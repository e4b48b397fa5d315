#!/usr/bin/env python3
"""Writes src/text/unicode_tables.inc: what Unicode means to Hugging Face `tokenizers`.

    pip install tokenizers==0.23.3 unicodedata2==18.0.0
    python3 tools/make_unicode_tables.py > src/text/unicode_tables.inc

`tokenizers` looks at characters through four libraries of different Unicode versions: Oniguruma for
the categories of a Split pattern, Rust's char for Digits, the regex crate for `single_word`, and an
older crate for NFC. So the table is not taken from one release of Unicode: each property is asked of
the package itself, for every code point.
"""

import sys

import unicodedata2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cn Co Cs").split()
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
NUMERIC, WORD, WHITE_SPACE = 0x20, 0x40, 0x80


def matched_by(pattern):
    """Code points that Oniguruma matches: the Split removes them, so they are in no piece."""
    text = "".join(map(chr, CODE_POINTS))
    left = bytearray(len(text))
    for _, (begin, end) in pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text):
        left[begin:end] = b"\1" * (end - begin)
    return {c for c, kept in zip(CODE_POINTS, left) if not kept}


def numeric():
    text = "".join("ab" + chr(c) for c in CODE_POINTS)
    pieces = pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(text)
    return {CODE_POINTS[a // 3] for _, (a, b) in pieces if b - a == 1 and a % 3 == 2}


def word():
    """Characters that keep a single_word token from matching."""
    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.add_tokens([AddedToken("QQ", single_word=True)])
    found = set()
    for i in range(0, len(CODE_POINTS), 20000):
        part = CODE_POINTS[i : i + 20000]
        encoded = tokenizer.encode("".join(" QQ" + chr(c) for c in part))
        starts = {a for (a, _), token in zip(encoded.offsets, encoded.ids) if token == 1}
        found |= {c for j, c in enumerate(part) if 4 * j + 1 not in starts}
    return found


def nfc_unknown():
    """Code points that a newer Unicode reorders or composes and the NFC of `tokenizers` does not."""
    theirs, ours = normalizers.NFC().normalize_str, lambda s: unicodedata2.normalize("NFC", s)
    unknown = set()
    for c in CODE_POINTS:
        char = chr(c)
        combining = unicodedata2.combining(char)
        if combining:
            marks = char + "\u0316" if combining >= 230 else "\u0301" + char
            if theirs("x" + marks) != ours("x" + marks):
                unknown.add(c)
        decomposition = unicodedata2.decomposition(char)
        if decomposition and not decomposition.startswith("<"):
            parts = unicodedata2.normalize("NFD", char)
            if theirs(char) != ours(char):
                sys.exit(f"U+{c:04X} decomposes differently: the barrier scheme of nfc.cc does not hold")
            if theirs(parts) != ours(parts):
                unknown.add(c)
                unknown |= {ord(p) for p in parts if ord(p) >= 0x1000}
    return unknown


def ranges(values):
    """[(first code point, value)] of the runs of equal values."""
    runs, last = [], None
    for c, value in enumerate(values):
        if value != last:
            runs.append((c, value))
            last = value
    return runs


def print_array(name, numbers):
    print(f"constexpr std::uint32_t {name}[] = {{")
    for i in range(0, len(numbers), 8):
        print("    " + " ".join(f"0x{n:X}," for n in numbers[i : i + 8]))
    print("};")


def main():
    values = [CATEGORIES.index("Cs")] * 0x110000
    for index, category in enumerate(CATEGORIES[:-1]):
        for c in matched_by(r"\p{%s}" % category):
            values[c] = index
    for flag, members in ((NUMERIC, numeric()), (WORD, word()), (WHITE_SPACE, matched_by(r"\s"))):
        for c in members:
            values[c] |= flag
    print("// Written by tools/make_unicode_tables.py from tokenizers 0.23.3. Do not edit.")
    print("// First code point of a run << 8 | flags of CharInfo | category.")
    print_array("kCharRuns", [c << 8 | value for c, value in ranges(values)])
    members = nfc_unknown()
    unknown = ranges([c in members for c in range(0x110000)])
    print("// Runs [first, end) of code points that the NFC of tokenizers does not know.")
    print_array("kNfcUnknown", [c for c, _ in unknown[1:]])


if __name__ == "__main__":
    main()
