"""What ./dev compare measures, and what is aimed at."""

import dataclasses
import pathlib

PROMPTS, GEN, DEEP = (32, 512), 64, 4096
BATCHES, PARALLEL_PROMPT = (1, 4, 16, 64), 32  # sequences that decode together, from that depth


@dataclasses.dataclass(frozen=True)
class File:
    """A model file: fetched (path is set), or made by `kogia synth` for as long as it is measured."""

    name: str
    synth: tuple = ()  # NAME, --weights
    path: pathlib.Path | None = None
    blocks: bool = True  # of GGUF: then Kogia has a second arithmetic, --compute int8
    peer: bool = True  # llama.cpp reads it
    deep: bool = False  # measured at depth DEEP too


def _synth(name, weights, **more):
    return File(f"{name}-{weights.lower()}", synth=(name, weights), blocks=weights not in ("BF16", "FP8"),
                peer=weights != "FP8", **more)


def files(smollm):
    qwen = "r1-distill-qwen-1.5b"
    return [
        File("smollm2-q4_1", path=smollm),
        _synth("mini", "BF16"), _synth("mini", "Q8_0"), _synth("mini", "Q4_K", deep=True),
        _synth(qwen, "BF16"), _synth(qwen, "Q8_0"), _synth(qwen, "Q4_K", deep=True),
        _synth("v2-lite", "Q4_K"), _synth("v2-lite", "Q8_0"),
        _synth("v3-tiny", "FP8"), _synth(qwen, "FP8"),
    ]


def parallel_files(smollm):
    return [file for file in files(smollm) if file.name.endswith(("q4_1", "q4_k"))]


@dataclasses.dataclass(frozen=True)
class Aim:
    """Met by the ratio to llama.cpp or by the share of the machine's limit."""

    ratio: float | None
    share: float | None

    def text(self):
        words = [f"≥ {self.ratio:g}×"] if self.ratio else []
        words += [f"{self.share:.0%}"] if self.share else []
        return " or ".join(words)

    def met(self, ratio, share):
        return (self.ratio is not None and ratio is not None and ratio >= self.ratio) or (
            self.share is not None and share is not None and share >= self.share)


PREFILL, DECODE, EXTRA = f"prefill {PROMPTS[-1]}", f"decode {GEN}", f"extra ms at {DEEP}"
AIMS = {  # by file, phase and engine
    ("v2-lite-q4_k", PREFILL, "kogia"): Aim(3, 0.55),
    ("v2-lite-q4_k", PREFILL, "kogia int8"): Aim(5, 0.40),
    ("v2-lite-q4_k", DECODE, "kogia"): Aim(1.8, 0.75),
    ("mini-q4_k", DECODE, "kogia"): Aim(2.5, 0.45),
    ("mini-q4_k", EXTRA, "kogia"): Aim(5, 0.50),
    ("r1-distill-qwen-1.5b-q8_0", PREFILL, "kogia"): Aim(2, 0.65),
    ("r1-distill-qwen-1.5b-q8_0", PREFILL, "kogia int8"): Aim(4, 0.50),
    ("r1-distill-qwen-1.5b-q4_k", PREFILL, "kogia"): Aim(1.5, 0.65),
    ("r1-distill-qwen-1.5b-q4_k", PREFILL, "kogia int8"): Aim(3, 0.50),
    ("r1-distill-qwen-1.5b-q8_0", DECODE, "kogia"): Aim(1.7, 0.80),
    ("r1-distill-qwen-1.5b-q4_k", DECODE, "kogia"): Aim(1.7, 0.75),
    ("r1-distill-qwen-1.5b-bf16", PREFILL, "kogia"): Aim(1.4, 0.75),
    ("smollm2-q4_1", PREFILL, "kogia"): Aim(4, 0.55),
    ("smollm2-q4_1", DECODE, "kogia"): Aim(2.5, 0.60),
    ("v3-tiny-fp8", PREFILL, "kogia"): Aim(None, 0.55),
    ("v3-tiny-fp8", DECODE, "kogia"): Aim(None, 0.75),
    ("r1-distill-qwen-1.5b-fp8", PREFILL, "kogia"): Aim(None, 0.55),
    ("r1-distill-qwen-1.5b-fp8", DECODE, "kogia"): Aim(None, 0.75),
}
PARALLEL_AIMS = {  # by file, sequences and engine
    ("smollm2-q4_1", 64, "kogia"): Aim(5, None),
    ("mini-q4_k", 16, "kogia"): Aim(4, None),
    ("r1-distill-qwen-1.5b-q4_k", 16, "kogia"): Aim(3, 0.55),
    ("r1-distill-qwen-1.5b-q4_k", 16, "kogia int8"): Aim(3, 0.45),
    ("v2-lite-q4_k", 16, "kogia"): Aim(3, 0.60),
}


def required_ratio(file_name, phase):
    """Ahead on every row; at the wall of memory, where both stand, hardly behind."""
    return 0.97 if file_name.endswith("bf16") and phase == DECODE else 1.0
