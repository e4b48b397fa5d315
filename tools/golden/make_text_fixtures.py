#!/usr/bin/env python3
"""Writes tests/data/text: ids of some hundred strings and rendered chats, from Hugging Face.

    ./check or tools/fetch.sh model tokenizers     (fills the cache)
    pip install tokenizers==0.23.3 transformers==5.24.0 gguf==0.19.0
    python3 tools/golden/make_text_fixtures.py
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools" / "golden"))
import text_oracles as oracles  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from transformers.utils.chat_template_utils import _compile_jinja_template  # noqa: E402

OUT = ROOT / "tests" / "data" / "text"


def write_lines(name, rows):
    with open(OUT / name, "w", encoding="ascii") as f:
        for row in rows:
            f.write(json.dumps(row, separators=(",", ":")) + "\n")


def write_ids(name, oracle):
    added = [t.content for t in oracle.get_added_tokens_decoder().values()]
    strings = ["", " ", "What is 60481 + 7293?", "x != y , 'ok' .", "\n\n  def f(x):\n\treturn x\r\n"]
    strings += [f"a{c}b {c} 1{c}2" for c in oracles.HARD] + oracles.WORDS + oracles.texts(99, 120, added)
    strings = [s for s in dict.fromkeys(strings) if len(s) < 300]
    encoded = oracle.encode_batch(strings, add_special_tokens=False)
    write_lines(f"ids_{name}.jsonl", [{"text": s, "ids": e.ids} for s, e in zip(strings, encoded)])


def check_smollm():
    """The oracle built by hand is the one that transformers makes of the GGUF."""
    folder = oracles.cache_folder() / "models"
    theirs = AutoTokenizer.from_pretrained(str(folder), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf").backend_tokenizer
    ours, _ = oracles.smollm()
    strings = oracles.texts(7, 20000, [t.content for t in ours.get_added_tokens_decoder().values()])
    a, b = (t.encode_batch(strings, add_special_tokens=False) for t in (theirs, ours))
    assert all(x.ids == y.ids for x, y in zip(a, b))


CALLS = lambda k: [{"type": "function", "function": {"name": f"f{i}", "arguments": '{"x":0}'}} for i in range(k)]
TOOLS = [{"type": "function", "function": {"name": "wx", "description": "Wetter \u2600 <b>&'\"", "parameters": {"type": "object", "properties": {"n": {"type": "number", "default": 1.5}, "ok": {"default": True, "x": None}}, "required": ["n"]}}}]


def conversations():
    user, assistant, system = ({"role": r, "content": c} for r, c in (("user", "Hi  "), ("assistant", "Hello."), ("system", "Be \u00e9.")))
    yield {"messages": [{"role": "user", "content": "ping"}]}
    yield {"messages": [user]}
    yield {"messages": [user], "add_generation_prompt": False}
    yield {"messages": [system, user, assistant, {"role": "user", "content": " \n two\n\n"}]}
    yield {"messages": [system, system, user]}
    yield {"messages": [user, {"role": "assistant", "content": "<think>\na\n</think>\n\nb"}, user]}
    yield {"messages": [user, {"role": "assistant", "content": "<think>\na\n</think>\n\nb"}], "add_generation_prompt": False}
    yield {"messages": [user, {"role": "assistant", "content": "x</think>say </think> twice"}, user]}
    yield {"messages": [{"role": "user", "content": "\u4f60\u597d \U0001f44d 1234 't"}, assistant, user, assistant]}
    for k in (1, 2, 3):
        yield {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": CALLS(k)}, {"role": "tool", "content": "r"}]}
    yield {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": CALLS(1)}, {"role": "tool", "content": "r"}]}
    yield {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": CALLS(2)}, {"role": "tool", "content": "r"}, {"role": "tool", "content": "s"}, {"role": "assistant", "content": "done"}, user]}
    yield {"messages": [system, user], "tools": TOOLS}
    yield {"messages": [user], "kwargs": {"enable_thinking": False}}
    yield {"messages": [user], "kwargs": {"enable_thinking": True, "thinking": True}}
    yield {"messages": [{"role": "user", "content": "hello world xox\nsecond line \n"}, {"role": "skip", "content": "no"}, {"role": "user", "content": ""}, {"role": "assistant", "content": "\u001c x \u00a0y"}], "tools": TOOLS, "kwargs": {"extra": {"b": 2, "a": 1.5}}}


def write_chats():
    _, smollm_dump = oracles.smollm()
    published = {}
    for name in ("deepseek_v3", "qwen3", "llama3"):
        oracle, folder = oracles.hugging_face(name)
        config = json.loads((folder / "tokenizer_config.json").read_text())
        token = lambda key: config[key]["content"] if isinstance(config.get(key), dict) else config.get(key)
        published[name] = (config["chat_template"], oracle, token("bos_token"), token("eos_token"))
    smollm, _ = oracles.smollm()
    published["smollm"] = (smollm_dump["chat_template"], smollm, "<|im_start|>", "<|im_end|>")
    for name in ("reasoning", "python"):
        source = (OUT / "templates" / f"{name}.jinja").read_text()
        published[name] = (source, published["qwen3"][1], "<|endoftext|>", "<|im_end|>")
    rows = []
    for name, (source, oracle, bos, eos) in published.items():
        template = _compile_jinja_template(source)
        for chat in conversations():
            specials = {k: v for k, v in (("bos_token", bos), ("eos_token", eos)) if v is not None}
            row = {"template": name, **chat}
            try:
                row["text"] = template.render(messages=chat["messages"], tools=chat.get("tools"), documents=None, add_generation_prompt=chat.get("add_generation_prompt", True), **specials, **chat.get("kwargs", {}))
                row["ids"] = oracle.encode(row["text"], add_special_tokens=False).ids
            except Exception as e:  # what the template itself refuses, ours must refuse too
                row["error"] = str(e)
            rows.append(row)
    write_lines("chats.jsonl", rows)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for name in ("deepseek_v3", "qwen3", "llama3"):
        write_ids(name, oracles.hugging_face(name)[0])
    write_ids("smollm", oracles.smollm()[0])
    check_smollm()
    write_chats()


if __name__ == "__main__":
    main()
