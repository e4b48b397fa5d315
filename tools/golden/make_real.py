#!/usr/bin/env python3
"""Makes tests/data/golden/smollm2/: what transformers makes of a real model and a real text.

expected.json:
  ids         the first 2,048 tokens of the GPL-3 that Debian installs
  logprobs    of each token given those before it in its window of 1,024: 1,023 numbers a window
  perplexity  of the first window
  question, question_ids, answer_ids, answer    a chat at temperature 0
"""

import importlib.metadata
import json
import pathlib

import numpy as np
import torch

import real

QUESTION = "What is the capital of France?"


def main():
    tokenizer, model = real.load()
    ids = real.text_ids(tokenizer)
    logprobs = []
    for w, rows in enumerate(real.window_logprobs(model, ids)):
        following = ids[w * real.N_WINDOW + 1:(w + 1) * real.N_WINDOW]
        logprobs += [float(rows[i, t]) for i, t in enumerate(following)]
    perplexity = float(np.exp(-np.mean(logprobs[:real.N_WINDOW - 1])))

    chat = [dict(role="user", content=QUESTION)]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    question_ids = prompt["input_ids"][0].tolist()
    answer_ids = out[0, len(question_ids):].tolist()
    expected = dict(
        ids=ids, logprobs=[float(f"{v:.7g}") for v in logprobs], perplexity=float(f"{perplexity:.7g}"),
        question=QUESTION, question_ids=question_ids, answer_ids=answer_ids,
        answer=tokenizer.decode(answer_ids, skip_special_tokens=True),
        made_with={p: importlib.metadata.version(p) for p in ("torch", "transformers", "gguf")})
    folder = pathlib.Path(__file__).resolve().parents[2] / "tests/data/golden/smollm2"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    print(f"perplexity of the first {real.N_WINDOW} tokens {perplexity:.4f}; {expected['answer']!r}")


if __name__ == "__main__":
    main()
