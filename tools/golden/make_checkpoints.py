#!/usr/bin/env python3
"""Makes tests/data/golden/: tiny random checkpoints, and what the oracles say that they compute.

    make_checkpoints.py [--output FOLDER] [CASE...]

Beside each checkpoint lies expected.json:
  ids             the tokens that are scored, 150 of them
  logprobs        log p(ids[i] | ids[:i]) for i = 1, 2, ... in f32
  rows            {position: log-probabilities of the whole vocabulary after it}
  greedy          32 ids that follow the first 24, with the distance to the second best of each
  mtp_logprobs    log p(ids[i] | ids[:i-1] and the state behind them), i = 2, 3, ... (multi-token prediction)
  oracle          who said so; oracle_difference says how far the other one is from it
"""

import argparse
import importlib.metadata
import json
import pathlib
import shutil
import tempfile
import zlib

import ml_dtypes
import numpy as np
import torch
from transformers import AutoModelForCausalLM

import files
from cases import CASES, N_IDS, tensor_shapes
from deepseek import DeepSeek, log_softmax

ROW_POSITIONS = [0, 63, 64, N_IDS - 1]  # 64: the first of another cache page
N_PROMPT, N_GREEDY = 24, 32
MIN_ROUTER_MARGIN = 2e-5  # closer choices of experts could fall either way by rounding alone


def random_weights(config, case, seed):
    """Sane scales, so that each part of the model matters to the result."""
    rng, weights = np.random.default_rng(seed), {}
    for name, shape in tensor_shapes(config).items():
        noise = rng.standard_normal(shape)
        if name.endswith("e_score_correction_bias"):
            w = noise * 0.3 - 0.9 if case.get("bias") == "negative" else noise * 0.1
        elif len(shape) == 1:
            w = noise * 0.3 if name.endswith("bias") else 1 + 0.2 * noise
        elif "embed_tokens" in name:
            w = noise * (0.4 if config["tie_word_embeddings"] else 1.0)
        else:
            w = noise * (1.5 if "head" in name else 1.0) / np.sqrt(shape[1])
        weights[name] = w.astype(ml_dtypes.bfloat16).astype(np.float32)
    for name in list(weights):  # the multi-token prediction layer has copies of the embedding and the head
        if name.startswith("model.layers.") and name.endswith(".embed_tokens.weight"):
            weights[name] = weights["model.embed_tokens.weight"]
        if name.endswith("shared_head.head.weight"):
            weights[name] = weights["lm_head.weight"]
    for low, high in case.get("ties", []):
        for name in list(weights):
            if ".mlp.gate." in name:
                weights[name][high] = weights[name][low]
    return weights


def stored_config(config, case):
    config = dict(config)
    if case.get("fp8"):
        config["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                                             weight_block_size=[128, 128])
        if case["fp8"] != "f32":
            config["quantization_config"]["scale_fmt"] = "ue8m0"
    return config


def write_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def plain_copy(folder, config, weights):
    """The same values in f32 and without FP8, for oracles that know no other."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, dict(config, torch_dtype="float32"))
    files.write_safetensors(folder / "model.safetensors", {n: w.astype(np.float32) for n, w in weights.items()})


def values_of(stored):
    """f32 values of what is stored, FP8 blocks decoded."""
    out = {}
    for name, w in stored.items():
        if name.endswith("_scale_inv"):
            continue
        if w.dtype == ml_dtypes.float8_e4m3fn:
            scale = stored[name + "_scale_inv"].astype(np.float32)
            rows, columns = w.shape
            w = w.astype(np.float32) * np.repeat(np.repeat(scale, 128, 0), 128, 1)[:rows, :columns]
        out[name] = w.astype(np.float32)
    return out


class Transformers:
    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logprobs(self, ids):
        with torch.no_grad():
            return log_softmax(self.model(torch.tensor([list(map(int, ids))])).logits[0].numpy())


class Numpy:
    def __init__(self, folder, dtype=np.float32):
        self.model = DeepSeek(str(folder), dtype)

    def logprobs(self, ids):
        return log_softmax(self.model.logits(np.asarray(ids)))


def greedy(oracle, ids):
    ids, margins = list(map(int, ids)), []
    for _ in range(N_GREEDY):
        row = oracle.logprobs(ids)[-1]
        best = np.argsort(-row, kind="stable")
        margins.append(float(row[best[0]] - row[best[1]]))
        ids.append(int(best[0]))
    return dict(ids=ids[N_PROMPT:], margins=[round(m, 6) for m in margins])


def rounded(values):
    return [float(f"{v:.8g}") for v in values]


def expectations(plain, config, case, ids):
    expected = {}
    hf = Transformers(plain)
    oracle, name, logprobs = hf, "transformers", hf.logprobs(ids)
    if "kv_lora_rank" in config:
        own = Numpy(plain)
        theirs, ours = logprobs, own.logprobs(ids)
        difference = float(np.abs(theirs - ours).max())
        absorbed = log_softmax(own.model.logits(np.asarray(ids), "absorbed"))
        assert np.abs(absorbed - ours).max() < 2e-5, "the two MLA forms differ"
        expected["oracle_difference"] = float(f"{difference:.3g}")
        if case.get("oracle") == "deepseek.py":
            oracle, name, logprobs = own, "deepseek.py", ours
        else:
            assert difference < 5e-5, f"the oracles differ by {difference}"
        if config.get("num_nextn_predict_layers"):
            mtp = log_softmax(own.model.mtp_logits(np.asarray(ids)))
            expected["mtp_logprobs"] = rounded(mtp[i, ids[i + 2]] for i in range(len(ids) - 2))
    expected |= dict(oracle=name, ids=[int(i) for i in ids],
                     logprobs=rounded(logprobs[i, ids[i + 1]] for i in range(len(ids) - 1)),
                     rows={str(p): rounded(logprobs[p]) for p in ROW_POSITIONS},
                     greedy=greedy(oracle, ids[:N_PROMPT]))
    return expected


def weights_with_clear_choices(config, case, name, ids, make_plain):
    """The first seed of which no choice of experts hangs on rounding."""
    for seed in range(zlib.crc32(name.encode()), zlib.crc32(name.encode()) + 1000):
        weights = random_weights(config, case, seed)
        stored, plain = make_plain(weights, seed)
        if "n_routed_experts" not in config:
            return stored
        model = DeepSeek(str(plain), np.float64)
        full = model.logits(ids)
        if config.get("num_nextn_predict_layers"):
            model.mtp_logits(ids)
        if model.router_margin > MIN_ROUTER_MARGIN and np.isfinite(full).all():
            return stored
    raise RuntimeError(f"{name}: every seed has a close choice")


def make_case(name, case, folder, scratch):
    config = case["config"]
    ids = np.random.default_rng(zlib.crc32(b"ids " + name.encode())).integers(0, config["vocab_size"], N_IDS)
    plain = scratch / name

    def make_plain(weights, seed):
        if case.get("fp8"):
            stored = files.to_fp8(weights, case["fp8"])
        elif case.get("quantised"):
            rng = np.random.default_rng(seed + 1)
            stored = files.quantise(files.gguf_tensors(config, weights, case["gguf"][0] == "new"), rng,
                                    rare=case["quantised"] == "rare")
            decoded = {n: values for n, (_, _, values) in stored.items()}
            plain_copy(plain, config, files.weights_from_gguf(config, decoded, weights))
            return stored, plain
        else:
            dtype = np.float32 if case.get("storage") == "f32" else ml_dtypes.bfloat16
            stored = {n: w if n.endswith("e_score_correction_bias") else w.astype(dtype) for n, w in weights.items()}
        plain_copy(plain, config, values_of(stored))
        return stored, plain

    stored = weights_with_clear_choices(config, case, name, ids, make_plain)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if case.get("quantised"):
        files.write_gguf(folder / f"{case['gguf'][0]}.gguf", config, stored, case["gguf"][0])
    else:
        write_checkpoint(folder, config, case, stored)
    expected = expectations(plain, config, case, ids)
    expected["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers", "numpy", "gguf")}
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    return expected


def write_checkpoint(folder, config, case, stored):
    # transformers keeps fields it does not know; what it makes from nothing lacks these.
    unknown = ("scoring_func", "topk_method", "moe_layer_freq") if case.get("style") == "tf5" else ()
    write_config(folder, {k: v for k, v in stored_config(config, case).items() if k not in unknown})
    if case.get("shards"):
        files.write_shards(folder, stored)
    else:
        files.write_safetensors(folder / "model.safetensors", stored)
    for generation in case.get("gguf", []):
        n_nextn = config.get("num_nextn_predict_layers", 0) if generation == "new" else 0
        kept = {n: w for n, w in values_of(stored).items()
                if n_nextn or not n.startswith(f"model.layers.{config['num_hidden_layers']}.")}
        tensors = files.gguf_tensors(config, kept, generation == "new")
        files.write_gguf(folder / f"{generation}.gguf", config, tensors, generation, n_nextn)
    if case.get("style") == "tf5":
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        (folder / "model.safetensors").unlink()
        (folder / "config.json").unlink()
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parents[2] / "tests/data/golden"
    parser.add_argument("--output", type=pathlib.Path, default=default)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.cases or CASES:
            folder = arguments.output / name
            expected = make_case(name, CASES[name], folder, pathlib.Path(scratch))
            size = sum(f.stat().st_size for f in folder.iterdir())
            spread = np.std([v for row in expected["rows"].values() for v in row])
            print(f"{name:16} {size / 1000:6.0f} kB  oracle {expected['oracle']:12} the other differs by "
                  f"{expected.get('oracle_difference', '-')}  spread of log-probabilities {spread:.2f}")


if __name__ == "__main__":
    main()
