"""The tokenizers that Kogia's text folder is compared with, and text to compare them on.

Used by tools/differential_tokenizer.py and tools/golden/make_text_fixtures.py. Needs the packages of
tools/requirements.txt.
"""

import json
import os
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def cache_folder():
    xdg = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("KOGIA_CACHE") or Path(xdg) / "kogia")


def hugging_face(name):
    """Oracle and path of one of the tokenizer.json files in the cache."""
    folder = cache_folder() / "tokenizers" / name
    return Tokenizer.from_file(str(folder / "tokenizer.json")), folder


def gguf_dump(path):
    """The tokenizer of a GGUF as plain data."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    field = lambda key: reader.fields[key].contents() if key in reader.fields else None
    get = lambda key: field("tokenizer.ggml." + key)
    return {
        "gguf": 1,
        "model": get("model"),
        "pre": get("pre"),
        "tokens": get("tokens"),
        "token_types": get("token_type"),
        "merges": get("merges"),
        "bos": get("bos_token_id"),
        "eos": get("eos_token_id"),
        "add_bos": get("add_bos_token"),
        "chat_template": field("tokenizer.chat_template"),
    }


def smollm(digits=False):
    """Oracle and dump of SmolLM2's GGUF.

    transformers 5.24 splits by GPT-2's pattern alone, and so do we; `digits` first isolates digits, as
    the tokenizer.json published with the model does (docs/decisions/0013-smollm2-digits.md).
    """
    dump = gguf_dump(cache_folder() / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    vocab = {token: i for i, token in enumerate(dump["tokens"])}
    tokenizer = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in dump["merges"]]))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if digits else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(dump["tokens"], dump["token_types"]) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer, dump


# Characters that libraries of different Unicode versions disagree about, and other corners.
HARD = (
    "\u1c89\U0002ebf0\U00031350\u180e\u0085\u00a0\u2028\u2029\u3000\ufeff\u200b\u200d\u017f\u212a\u0130\u0131\u00df\ufb06"
    "\U00011de0\U00016ff4\u0300\u0301\u0316\u0345\u0591\u0897\u0898\u1abf\u1ac1\u09fe\u0c3c\U00011938\U00011935\U00011930"
    "\uac00\u1100\u1161\u11a8\ud7a3\u0344\u0958\u2126\u212b\uf900\U0002f800\U0001d15e\U0001d160\u0f73\u0f75"
    "\ue000\U000f0000\U0010fffd\uffff\ufffe\ufffd\u0000\u0001\u007f\u00ad\u2064\U000e0001\U000e0100"
    "٣٤٥٦۴०१२߀²³½¼Ⅷ①㊿〇一龥㐀ぁゟ゠ヿｱﾝ가힣ㄱ々"
)
WORDS = (
    "the The quick brown fox don't DON'T I'll we've they're it's IT'S 'S 'ſ 'll naïve café Ωmega über "
    "Привет мир שלום عالم नमस्ते कि สวัสดี 你好 世界 こんにちは 안녕하세요 int main() {return 0;} == != <= -> :: #include "
    "3.14159 1,234,567 2024-11-25 0x7fff x1y22z333 http://a.b/c?d=e&f#g foo_bar fooBar FOOBAR 👍🏽 👨‍👩‍👧 é e\u0301 \u0301 !!! ... "
    "'''\"\"\" \\n <| |> < > <think> </think> <｜ ｜> ▁ Ġ Ċ Ā"
).split(" ")
SPACES = [" ", "  ", "   ", " " * 9, "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", " \n", "\n ", " \n \n", "\u00a0", "\u3000", "\u2003", "\x0b", "\x0c", "\x85", ""]


def random_text(rng, added):
    """One string of a random kind."""
    kind = rng.randrange(10)
    size = rng.choice([1, 2, 3, 5, 8, 20, 60])
    char = lambda low, high: chr(rng.choice([c for c in (rng.randrange(low, high),) if not 0xD800 <= c <= 0xDFFF] or [0x41]))
    parts = []
    for _ in range(size):
        k = kind if kind < 8 else rng.randrange(8)
        if k == 0:
            parts.append(char(0, 0x110000))
        elif k == 1:
            parts.append(char(0, 0x80))
        elif k == 2:
            parts.append(char(0x80, 0x3000))
        elif k == 3:
            parts.append(rng.choice(HARD))
        elif k == 4:
            parts.append(rng.choice(WORDS) + rng.choice(SPACES))
        elif k == 5:
            parts.append(rng.choice(added) + rng.choice(["", "", " ", "x", "\n"]))
        elif k == 6:
            parts.append(rng.choice("aeiouAEnrsNk가ᄀกΑα") + "".join(rng.choice("\u0300\u0301\u0302\u0308\u0316\u0323\u0327\u0328\u0345\u05b0\u0898\u1ab0\u3099\u309a\u1161\u11a8") for _ in range(rng.randrange(4))))
        elif k == 7:
            parts.append(rng.choice("0123456789") * rng.randrange(1, 6) + rng.choice([" ", ".", ",", "", "x"]))
    return "".join(parts)


def texts(seed, n, added):
    rng = random.Random(seed)
    return [random_text(rng, added) for _ in range(n)]


def every_code_point():
    """Texts that hold each code point once alone, once between letters and once after a space."""
    for start in range(0, 0x110000, 64):
        chars = [chr(c) for c in range(start, start + 64) if not 0xD800 <= c <= 0xDFFF]
        if chars:
            yield "".join(chars)
            yield "".join("a" + c + "b " + c for c in chars)


# --- Tokenizers made up to reach what the published ones leave unused -----------------------------------

O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = [
    O200K,
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    r"\s+$", r"^\s+|\p{Lu}\p{Ll}+?[a-z]", r"(a|b)+c|[^\S\n]+|\d{2,}?x|.", r"\P{L}{2,4}|[\P{L}\s]+", r"(?:a+)+b|(?=x)x*|\x{61}\u0062+",
]


def variants():
    """(name, Tokenizer) pairs."""
    from tokenizers import Regex, normalizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("a", "b"), ("Ġa", "b"), ("t", "h"), ("th", "e"), ("1", "2"), ("12", "3"), ("Ã", "©"), ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("e", "Ì"), ("a", "a"), ("aa", "aa"), ("aa", "b")]
    vocab = {t: i for i, t in enumerate(alphabet + ["".join(m) for m in merges])}
    split = lambda pattern, behavior="isolated", invert=False: pre_tokenizers.Split(pattern, behavior, invert)
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = {f"pattern{i}": [split(Regex(p)), plain] for i, p in enumerate(PATTERNS)}
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            steps[f"{behavior}-{invert}"] = [split(Regex(r"\p{N}|[aeiou]"), behavior, invert), plain]
    steps["string"] = [split(" ", "merged_with_next"), split("(a", "isolated"), plain]
    steps["digits"] = [pre_tokenizers.Digits(individual_digits=False), plain]
    steps["prefix"] = [split(Regex(r"\p{N}+")), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)]
    steps["prefix-plain"] = [pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    for i, (name, sequence) in enumerate(steps.items()):
        tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=i % 2 == 1))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(sequence)
        tokenizer.decoder = decoders.ByteLevel()
        if i % 3 == 1:
            tokenizer.normalizer = normalizers.NFC()
        # Overlapping contents, white space inside, characters that NFC changes, every flag.
        tokenizer.add_tokens([
            AddedToken("<a>", lstrip=True, normalized=False), AddedToken("<a", rstrip=True, normalized=False),
            AddedToken("<a><b>", normalized=True), AddedToken("the", single_word=True, normalized=i % 2 == 0),
            AddedToken("e\u0301x", normalized=True), AddedToken("\u212b", normalized=False), AddedToken("  ", normalized=False),
            AddedToken("b> c", lstrip=True, rstrip=True, normalized=True), AddedToken("é", normalized=False, special=True),
            AddedToken("\u0301", single_word=True, normalized=False),
        ])
        tokenizer.add_special_tokens([AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, rstrip=True, normalized=False)])
        ids = tokenizer.token_to_id
        template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", ids("<s>")), ("</s>", ids("</s>"))])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template]) if i % 2 else template
        yield name, tokenizer
