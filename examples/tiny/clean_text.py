#!/usr/bin/env python3
"""Prose out of the files of Debian packages: a line of JSON, {"text": ...}, for each article.

    clean_text.py KIND ROOT > FILE.jsonl      ROOT: where the package is unpacked

KIND is gcide, foldoc, jargon, bible or handbook. Only Python's own library is used.
"""

import gzip
import html.parser
import json
import pathlib
import re
import struct
import subprocess
import sys
import unicodedata

# Shorter articles teach little but their own form; of the largest dictionary only the long ones are wanted.
MIN_CHARACTERS = {"gcide": 700}
MIN_CHARACTERS_ELSE = 120

# --- dictionaries in dictd's form ----------------------------------------------------------------------

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def base64_number(digits):
    value = 0
    for digit in digits:
        value = value * 64 + BASE64.index(digit)
    return value


def dictd_articles(data, index):
    """Articles in the order of the file; headwords that share one give it once."""
    places = set()
    for line in index.splitlines():
        word, *place = line.split("\t")
        if not word.startswith("00-database") and len(place) >= 2:
            places.add((base64_number(place[0]), base64_number(place[1])))
    for offset, length in sorted(places):
        yield data[offset : offset + length].decode("utf-8", errors="replace")


def paragraphs(text):
    """Lines between empty ones, joined."""
    for part in re.split(r"\n\s*\n", text):
        words = " ".join(part.split())
        if words:
            yield words


# GCIDE writes accents in brackets: ['e], [^a], ["o], [-o], [a^].
ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", '"': "\u0308", ",": "\u0327", "~": "\u0303", "-": "\u0304",
           "=": "\u0304"}


def accents(text):
    text = re.sub(r"\[(['`^\",~=-])([A-Za-z])\]", lambda m: m[2] + ACCENTS[m[1]], text)
    text = re.sub(r"\[([A-Za-z])\^\]", lambda m: m[1] + "\u0306", text)
    text = re.sub(r"\[(ae|oe|AE|OE)\]", lambda m: {"ae": "æ", "oe": "œ", "AE": "Æ", "OE": "Œ"}[m[1]], text)
    return unicodedata.normalize("NFC", text)


def without_references(text):
    """{word} is a link to another article, {word (place)} one to somewhere else."""
    text = re.sub(r"\{([^{}]*?)\s*\((?:https?|ftp|mailto)[^{}]*\}", r"\1", text)
    return re.sub(r"\{([^{}]*)\}", r"\1", text)


def clean_gcide(text):
    # Where an entry is from: [1913 Webster +PJC]. Not [AS. ...], which is where a word is from.
    text = re.sub(r"\[(?:(?:1913 Webster|Webster|WordNet|Century)[^\]]*|[A-Z]{2,4}(?: \+[A-Z]+)*)\]", "", text)
    head, _, body = text.partition("\n")
    head = re.sub(r"\s*\\[^\\]*\\", "", head)  # how it is said, between backslashes
    text = accents(without_references(head + "\n" + body))
    text = re.sub(r"\s*\([^()\n]*[\"*\u0304\u0306][^()\n]*\)(?=,)", "", text, count=1)  # the same in parentheses
    return "\n".join(paragraphs(text))


def clean_foldoc(text):
    text = re.sub(r"\n\s*\(\d{4}-\d\d-\d\d\)\s*", "\n\n", text)  # when it was written
    text = re.sub(r"<[a-z][^<>\n]*>\s*", "", without_references(text))  # <networking>
    head, *body = paragraphs(text)
    body = [p for p in body if not re.search(r"https?:|ftp:|@\w|\bHome\b|^E-mail|^Usenet newsgroup", p)]
    return "\n".join([head, *body]) if body else ""


def clean_jargon(text):
    head, *body = paragraphs(without_references(text))
    return "\n".join([re.sub(r"\s*/[^/]+/,?\s*", " ", head).strip(), *body])


def dictionary(root, name, clean):
    folder = root / "usr/share/dictd"
    data = gzip.decompress((folder / f"{name}.dict.dz").read_bytes())
    index = (folder / f"{name}.index").read_text(encoding="utf-8", errors="replace")
    for article in dictd_articles(data, index):
        if article.strip():
            yield clean(article)


# --- the King James version ----------------------------------------------------------------------------


def bible_text(data):
    """The file of the `bible` program: windows packed by `compress`, each without the three bytes of its mark."""
    n_windows, *_ = struct.unpack_from(">I", data, 0x58)
    offsets = struct.unpack_from(f">{n_windows + 1}I", data, 0x5C)
    text = b""
    for begin, end in zip(offsets, offsets[1:]):
        packed = b"\x1f\x9d\x90" + data[begin:end]
        text += subprocess.run(["gzip", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    return text.decode("ascii")


def bible_chapters(text):
    """'Ge1:2 And the earth ...': verses of a chapter, without their numbers."""
    chapter, verses = None, []
    for line in text.splitlines():
        match = re.match(r"(\w+?)(\d+):\d+ (.*)", line)
        if not match:
            continue
        if (match[1], match[2]) != chapter and verses:
            yield " ".join(verses)
            verses = []
        chapter = (match[1], match[2])
        verses.append(match[3].strip())
    if verses:
        yield " ".join(verses)


# --- the Debian Administrator's Handbook ---------------------------------------------------------------


class Handbook(html.parser.HTMLParser):
    """Headings and paragraphs of a page; no navigation, no listings."""

    SKIPPED = {"script", "style", "pre", "head", "table"}
    BLOCKS = {"p", "div", "li", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "title"}
    VOID = {"br", "img", "hr", "link", "meta", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.blocks, self.skipping = [], [[]], 0

    def is_skipped(self, tag, attributes):
        found = dict(attributes)
        classes = set((found.get("class") or "").split())
        return tag in self.SKIPPED or bool(classes & {"docnav", "toc"}) or found.get("id") in {"banner", "title"}

    def handle_starttag(self, tag, attributes):
        if tag in self.VOID:
            return
        skipped = self.is_skipped(tag, attributes)
        self.open.append((tag, skipped))
        self.skipping += skipped
        if tag in self.BLOCKS:
            self.blocks.append([])

    def handle_startendtag(self, tag, attributes):  # <a id="..." />
        pass

    def handle_endtag(self, tag):
        while any(name == tag for name, _ in self.open):
            name, skipped = self.open.pop()
            self.skipping -= skipped
            if name == tag:
                break
        if tag in self.BLOCKS:
            self.blocks.append([])

    def handle_data(self, data):
        if not self.skipping:
            self.blocks[-1].append(data)

    def text(self):
        lines = (" ".join("".join(block).split()) for block in self.blocks)
        return "\n".join(line for line in lines if line)


def clean_handbook(page):
    parser = Handbook()
    parser.feed(page)
    return parser.text()


def handbook(root):
    folder = root / "usr/share/doc/debian-handbook/html/en-US"
    for path in sorted(folder.glob("*.html")):
        if path.name != "index.html":
            yield clean_handbook(path.read_text(encoding="utf-8"))


KINDS = {
    "gcide": lambda root: dictionary(root, "gcide", clean_gcide),
    "foldoc": lambda root: dictionary(root, "foldoc", clean_foldoc),
    "jargon": lambda root: dictionary(root, "jargon", clean_jargon),
    "bible": lambda root: bible_chapters(bible_text((root / "usr/lib/bible.data").read_bytes())),
    "handbook": handbook,
}


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    n, least = 0, MIN_CHARACTERS.get(sys.argv[1], MIN_CHARACTERS_ELSE)
    for text in KINDS[sys.argv[1]](pathlib.Path(sys.argv[2])):
        if len(text) >= least:
            print(json.dumps({"text": text}, ensure_ascii=False))
            n += 1
    if n == 0:
        sys.exit(f"error: no text of {sys.argv[1]} under {sys.argv[2]}")


if __name__ == "__main__":
    main()
