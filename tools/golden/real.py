"""SmolLM2-135M-Instruct as transformers runs it: the GGUF decoded to f32, on the CPU."""

import os
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

N_WINDOW, N_WINDOWS = 1024, 2
TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")


def model_path():
    cache = os.environ.get("KOGIA_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kogia")
    return pathlib.Path(cache) / "models/SmolLM2-135M-Instruct.Q4_1.gguf"


def load():
    path = model_path()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    return tokenizer, model


def text_ids(tokenizer):
    return tokenizer(TEXT.read_text()).input_ids[:N_WINDOW * N_WINDOWS]


def window_logprobs(model, ids):
    """log-probabilities [N_WINDOW, vocab] of each window in turn, f32."""
    for begin in range(0, len(ids), N_WINDOW):
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:begin + N_WINDOW]])).logits[0]
        yield torch.log_softmax(logits.double(), -1).float().numpy()
