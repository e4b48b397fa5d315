#!/usr/bin/env python3
"""Do other programs compute the same from what `kogia convert` and `kogia quantize` write?

    interop_convert.py --kogia PROGRAM --logits-tool PROGRAM --llama-ids PROGRAM --model GGUF --work FOLDER [WORD...]

Of every family of tests/data/golden (tiny random models) and of SmolLM2; a WORD keeps only checks whose name holds it.

folder   transformers loads the folder and gives Kogia's log-probabilities, in f32, to 1e-4: of what was converted
         directly, by way of a GGUF, and from FP8, Kogia's own FP8 included. Where the weights are those of the
         golden data its oracle has to agree too.
greedy   llama.cpp loads the GGUF, f32 or bf16, and continues a prompt with the same 32 tokens as Kogia.
         f32: equal, and no log-probability of any token on the way off by more than 1e-3.
         bf16: equal; or, where the two first differ, Kogia's f32 logits of the two tokens are
         closer than rounding explains: both programs round what a matrix is multiplied with to bf16, but not at the
         same places, and what this moves is measured with Kogia alone (bf16 against f32, the largest change of a
         log-probability up to there), taken once for each program. Random models have many near ties; SmolLM2 has
         one after 12 tokens, which falls as the machine's bf16 rounds.
quantised   llama.cpp loads what `kogia quantize` wrote; its log-probabilities are finite and as near to f32 as its
         rounding of activations to 8 bits explains (ROUNDING_FACTOR of interop.py).

Runs under the Python of tools/golden/requirements.txt; ./dev interop builds the programs and starts it.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np

from interop import ROUNDING_FACTOR, kogia_logprobs, run, transformers_logprobs

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "tests/data/golden"
N_PROMPT, N_GREEDY = 24, 32
TOLERANCE, GGUF_TOLERANCE = 1e-4, 1e-3
# llama.cpp takes a deepseek2 without q_lora_rank only with the 27 layers of V2-Lite, and it chooses groups of experts
# by the sum of the two best, as V3 does and V2 does not: these are made deeper, or freed of groups.
LIMITS = {"v2_lite": dict(num_hidden_layers=27), "v2_norm": dict(num_hidden_layers=27),
          "v2_quantised/kv_b.gguf": dict(num_hidden_layers=27),
          "v2_group": dict(n_group=1, topk_group=1, topk_method="greedy")}
# v2_norm and v3_ties are not here: of those transformers is known to compute something else (golden/README.md).
FOLDERS = ["v2_lite", "v2_group", "v3", "v3_tf5", "v3_fp8", "v3_fp8_ue8m0", "v3_fp8_e8m0", "qwen2", "qwen2_tied", "qwen3",
           "llama", "llama_tied"]
FROM_GGUF = ["v2_quantised/kv_b", "v3_quantised/new", "qwen2_quantised/new", "qwen3_quantised/new", "llama_quantised/new"]
QUANTISED = ["Q8_0", "Q4_0", "Q4_K_M", "Q6_K"]
TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")


def log_softmax(logits):
    z = logits.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


class Programs:
    def __init__(self, arguments):
        self.a = arguments
        self.n_files = 0

    def place(self, name):
        """A path below the work folder where nothing is yet."""
        self.n_files += 1
        path = self.a.work / f"{self.n_files:03}-{name}"
        run(["rm", "-rf", path])
        return path

    def convert(self, source, suffix, *flags):
        target = self.place(source.stem + suffix)
        run([self.a.kogia, "convert", source, target, "--quiet", *flags])
        return target

    def quantize(self, source, weights):
        target = self.place(f"{source.stem}-{weights}" + ("" if weights == "FP8" else ".gguf"))
        run([self.a.kogia, "quantize", source, weights, target, "--quiet"])
        return target

    def ids_file(self, ids):
        file = self.a.work / "ids.txt"
        file.write_text(" ".join(map(str, ids)))
        return file

    def kogia_greedy(self, model, ids):
        return json.loads(run([self.a.kogia, "run", model, "--ids", self.ids_file(ids), "--max-tokens", N_GREEDY, "--temperature",
                               "0", "--ignore-eos", "--json", "--quiet"]))["ids"]

    def kogia_rows(self, model, ids, compute):
        """Log-probabilities of the whole vocabulary after each id."""
        file = self.a.work / "logits.bin"
        run(["sh", "-c", '"$1" "$2" "$3" "$4" > "$5"', "sh", self.a.logits_tool, model, self.ids_file(ids), compute, file])
        return log_softmax(np.fromfile(file, "<f4").reshape(len(ids), -1))

    def llama(self, model, ids, n):
        """The n tokens that llama.cpp continues with, and its log-probabilities after each id but the last."""
        file = self.a.work / "logits.bin"
        out = run([self.a.llama_ids, model, self.ids_file(ids), n, file])
        return list(map(int, out.split())), log_softmax(np.fromfile(file, "<f4").reshape(len(ids) + n - 1, -1))


# --- folders, against transformers ------------------------------------------------------------------------


def check_folder(p, path, ids, ours=None, oracle=None):
    """`ours`: what Kogia says of the checkpoint that the folder was made from; None: of the folder itself."""
    if ours is None:
        ours = kogia_logprobs(p.a, path, ids, "--compute", "f32")
    theirs = transformers_logprobs(path, ids)
    if len(ours) != len(theirs):
        raise RuntimeError(f"{len(ours)} log-probabilities, expected {len(theirs)}")
    worst = np.abs(np.array([v for _, v in sorted(ours.items())]) - theirs).max()
    if oracle is not None:
        worst = max(worst, np.abs(np.array(oracle) - theirs).max())
    if not worst <= TOLERANCE:
        raise RuntimeError(f"log-probabilities differ by {worst:.2e}, more than {TOLERANCE}")
    return f"transformers agrees to {worst:.1e}"


def golden(name):
    expected = json.loads((GOLDEN / name.split("/")[0] / "expected.json").read_text())
    return expected["ids"], expected["logprobs"]


def folder_checks(p):
    for name in FOLDERS:
        ids, oracle = golden(name)
        fp8 = "fp8" in name
        yield f"folder {name}", lambda n=name, i=ids, o=None if fp8 else oracle: check_folder(p, p.convert(GOLDEN / n, ""), i, None, o)
        yield (f"folder {name} by way of a GGUF, f32",
               lambda n=name, i=ids, o=oracle: check_folder(
                   p, p.convert(p.convert(GOLDEN / n, ".gguf", "--type", "f32", "--mtp"), "-back"), i, None, o))
    for name in FROM_GGUF:
        ids, oracle = golden(name)
        yield (f"folder {name}.gguf, f32", lambda n=name, i=ids, o=oracle: check_folder(
            p, p.convert(GOLDEN / f"{n}.gguf", "", "--type", "f32"), i, None, o))
    for name in ["v2_lite", "v3", "qwen2", "qwen3", "llama"]:
        yield f"folder {name} quantised to FP8", lambda n=name: check_fp8(p, GOLDEN / n, golden(n)[0])
    yield "folder SmolLM2, f32", lambda: check_smollm2_folder(p)


def check_fp8(p, source, ids):
    """Kogia's FP8 folder as Kogia runs it against its values in f32 as transformers does, and what transformers itself
    decodes the folder to."""
    fp8 = p.quantize(source, "FP8")
    ours = kogia_logprobs(p.a, fp8, ids, "--compute", "f32")
    text = check_folder(p, p.convert(fp8, "", "--type", "f32"), ids, ours)
    theirs = transformers_fp8_logprobs(fp8, ids)
    worst = np.abs(np.array([v for _, v in sorted(ours.items())]) - theirs).max()
    if not worst <= TOLERANCE:
        raise RuntimeError(f"{text}; what it decodes itself differs by {worst:.2e}")
    return f"{text}, and to {worst:.1e} where it decodes FP8 itself"


def transformers_fp8_logprobs(path, ids):
    import torch
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                 quantization_config=FineGrainedFP8Config(dequantize=True)).eval().float()
    with torch.no_grad():
        rows = log_softmax(model(torch.tensor([ids])).logits[0].numpy())
    return rows[np.arange(len(ids) - 1), ids[1:]]


def smollm2_ids(p, n):
    out = run(["sh", "-c", '"$1" tokenize "$2" < "$3"', "sh", p.a.kogia, p.a.model, TEXT])
    return list(map(int, out.split()[:n]))


def check_smollm2_folder(p):
    from transformers import AutoTokenizer

    path, ids = p.convert(p.a.model, "-f32", "--type", "f32"), smollm2_ids(p, 256)
    theirs = AutoTokenizer.from_pretrained(path)(TEXT.read_text(), add_special_tokens=False).input_ids[:len(ids)]
    if theirs != ids:
        raise RuntimeError("the tokenizer of the folder gives transformers other ids")
    return check_folder(p, path, ids, kogia_logprobs(p.a, p.a.model, ids, "--compute", "f32")) + ", and its tokenizer"


# --- GGUF, against llama.cpp ------------------------------------------------------------------------------


def without_limits(p, name):
    """The checkpoint in a form that llama.cpp takes; further layers are the last one with the rows in another order."""
    if name not in LIMITS:
        return GOLDEN / name
    from safetensors.torch import load_file, save_file

    source, changes = GOLDEN / name, LIMITS[name]
    if source.suffix == ".gguf":
        source = p.convert(source, "", "--type", "f32")
    config, weights = json.loads((source / "config.json").read_text()), load_file(source / "model.safetensors")
    last = f"model.layers.{config['num_hidden_layers'] - 1}."
    for layer in range(config["num_hidden_layers"], changes.get("num_hidden_layers", 0)):
        weights |= {n.replace(last, f"model.layers.{layer}."): w.roll(layer, 0).contiguous()
                    for n, w in weights.items() if n.startswith(last)}
    folder = p.place(name.split("/")[0])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | changes))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def check_greedy(p, source, ids, weights):
    model = p.convert(source, ".gguf", "--type", weights)
    ours, (theirs, their_rows) = p.kogia_greedy(model, ids), p.llama(model, ids, N_GREEDY)
    n_equal = next((i for i in range(N_GREEDY) if ours[i] != theirs[i]), N_GREEDY)
    context = list(ids) + ours[:min(n_equal, N_GREEDY - 1)]
    exact = p.kogia_rows(model, context, "f32")
    worst = np.abs(their_rows[:len(context)] - exact).max()
    text = f"{n_equal} of {N_GREEDY} tokens equal, log-probabilities {worst:.1e} from f32 at worst"
    if weights == "f32":
        if n_equal < N_GREEDY or not worst <= GGUF_TOLERANCE:
            raise RuntimeError(text)
        return text
    explained = np.abs(p.kogia_rows(model, context, "bf16") - exact).max()
    text += f", of which bf16 explains {explained:.1e}"
    if n_equal < N_GREEDY:
        margin = abs(exact[-1][ours[n_equal]] - exact[-1][theirs[n_equal]])
        text += f"; then a near tie of {margin:.1e}"
        if not margin <= 2 * explained:
            raise RuntimeError(text)
    return text


def check_quantised(p, source, ids, weights):
    model = p.quantize(p.convert(source, ".gguf", "--type", "f32"), weights)
    _, rows = p.llama(model, ids, 1)
    exact, rounded = (p.kogia_rows(model, ids, compute) for compute in ("f32", "int8"))
    if not np.isfinite(rows).all():
        raise RuntimeError("llama.cpp computes what is no number")
    difference, explained = np.abs(rows - exact).mean(), np.abs(rounded - exact).mean()
    text = f"llama.cpp is {difference:.4f} from f32 in the mean, rounding to 8 bits alone {explained:.4f}"
    if not difference <= ROUNDING_FACTOR * explained:
        raise RuntimeError(text)
    return text


def gguf_checks(p):
    for weights in ("f32", "bf16"):
        for name in ["v2_lite", "v2_group", "v2_norm", "v3", "qwen2", "qwen2_tied", "qwen3", "llama", "llama_tied"]:
            yield (f"greedy {name} {weights}",
                   lambda n=name, w=weights: check_greedy(p, without_limits(p, n), golden(n)[0][:N_PROMPT], w))
        yield f"greedy SmolLM2 {weights}", lambda w=weights: check_greedy(p, p.a.model, smollm2_ids(p, 64), w)
    for weights in QUANTISED:
        for name in FROM_GGUF:
            if name.startswith("qwen2"):  # llama.cpp wants its heads together as wide as the hidden state
                continue
            yield (f"quantised {name} {weights}",
                   lambda n=f"{name}.gguf", w=weights: check_quantised(p, without_limits(p, n), golden(n)[0], w))
        yield f"quantised SmolLM2 {weights}", lambda w=weights: check_quantised(p, p.a.model, smollm2_ids(p, 128), w)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--kogia", "--logits-tool", "--llama-ids", "--model", "--work"):
        parser.add_argument(flag, required=True, type=pathlib.Path)
    parser.add_argument("words", nargs="*", metavar="WORD")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}

    programs, failed, begin = Programs(arguments), 0, time.monotonic()
    checks = [*folder_checks(programs), *gguf_checks(programs)]
    chosen = [(name, check) for name, check in checks if all(word in name for word in arguments.words)]
    for name, check in chosen:
        try:
            print(f"ok      {name}: {check()}", flush=True)
        except Exception as error:  # one failure must not hide the others
            failed += 1
            print(f"FAILED  {name}: {error}", flush=True)
        for left in arguments.work.glob("[0-9][0-9][0-9]-*"):
            run(["rm", "-rf", left])
    print(f"{len(chosen) - failed} of {len(chosen)} in {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
