#!/usr/bin/env python3
"""Makes tests/data/tensor/dtypes.{bin,txt}: what torch and gguf make of the number formats.

    make_dtype_fixtures.py [OUTPUT_FOLDER]

dtypes.txt lists "name offset bytes" of the arrays in dtypes.bin (little-endian). Made with torch
2.13.0, gguf 0.19.0, numpy 2.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
          "IQ4_NL", "IQ4_XS", "MXFP4"]
QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]
F16_FIELDS = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
              "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": []}


def decoded_codes(dtype):
    codes = torch.arange(256, dtype=torch.uint8)
    return codes.view(dtype).to(torch.float32).numpy()


def hard_floats(rng):
    """Values of all sizes, and the neighbourhood of halves between codes."""
    x = rng.standard_normal(600) * np.exp2(rng.integers(-30, 20, 600))
    ties = np.concatenate([(np.arange(1, 33) + 0.5) * 2.0**e for e in (-12, -10, -3, 0, 4, 11)])
    near = np.concatenate([ties, ties * (1 + 2.0**-20), ties * (1 - 2.0**-20)])
    special = [0.0, -0.0, 448, 464, 465, 480, 1e9, 57344, 61439, 61440, 61441, 65504, 65519, 65520,
               65535, 1e38, 3e-45, 1e-40, 2.0**-9, 2.0**-10, 2.0**-17, 2.0**-24, 2.0**-25, 3.3e38]
    x = np.concatenate([x, near, -near, special, np.negative(special)]).astype(np.float32)
    return np.concatenate([x, np.array([np.inf, -np.inf], dtype=np.float32)])


def bytes_of(t):
    return t.contiguous().view(torch.uint8).numpy()


def saturated(x, top):
    return torch.where(torch.isinf(x), x, x.clamp(-top, top))


def main(folder):
    rng = np.random.default_rng(20261125)
    arrays = {"e4m3": decoded_codes(torch.float8_e4m3fn), "e5m2": decoded_codes(torch.float8_e5m2),
              "e8m0": decoded_codes(torch.float8_e8m0fnu)}
    x = hard_floats(rng)
    t = torch.from_numpy(x)
    arrays["floats"] = x
    arrays["floats_bf16"] = bytes_of(t.to(torch.bfloat16))
    arrays["floats_f16"] = bytes_of(t.to(torch.float16))
    arrays["floats_e4m3"] = bytes_of(t.clamp(-448, 448).to(torch.float8_e4m3fn))
    arrays["floats_e5m2"] = bytes_of(saturated(t, 57344).to(torch.float8_e5m2))

    weights = (rng.standard_normal(32 * 24) * 0.02).astype(np.float32)
    weights[:32] = 0
    weights[32:64] = 0.5
    weights[64:96] = np.linspace(-1, 1, 32)
    arrays["weights"] = weights
    for name in BLOCKS:
        qtype = GGMLQuantizationType[name]
        size = GGML_QUANT_SIZES[qtype][1]
        raw = rng.integers(0, 256, (4, size), dtype=np.uint8)
        for at in F16_FIELDS[name]:  # any scale but infinity and NaN
            raw[:, at:at + 2] = rng.standard_normal((4, 1)).astype(np.float16).view(np.uint8)
        if name == "MXFP4":  # exponents: the subnormal scales, the largest, a usual one
            raw[:, 0] = [0, 1, 255, 120]
        arrays[f"{name.lower()}_blocks"] = raw
        arrays[f"{name.lower()}_values"] = quants.dequantize(raw, qtype).astype(np.float32)
        if name in QUANTISED:
            arrays[f"{name.lower()}_weights"] = quants.quantize(weights, qtype)

    lines, blob = [], b""
    for name, array in arrays.items():
        data = np.ascontiguousarray(array).tobytes()
        lines.append(f"{name} {len(blob)} {len(data)}\n")
        blob += data
    (folder / "dtypes.bin").write_bytes(blob)
    (folder / "dtypes.txt").write_text("".join(lines))


main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "tests/data/tensor")
