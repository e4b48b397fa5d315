#!/usr/bin/env python3
"""Makes docs/commands.md from docs/commands.in, so that what the page shows is what the program says.

    make_commands.py KOGIA MODEL.gguf
    make_commands.py KOGIA --check       writes nothing; fails if the page lacks a text of --help

Lines of docs/commands.in that begin with @ are replaced (KOGIA stands for kogia, MODEL.gguf for SmolLM2.gguf):

    @help COMMAND        the text of `kogia COMMAND --help`
    @sh COMMAND LINE     the line and what it printed; lines that follow each other become one block
    @chat LINE | LINE    what a chat on a terminal shows for these lines

Speeds differ from run to run: make the page on an idle machine.
"""

import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
V3_CONFIG = ROOT / "tests/data/cli/deepseek-v3/config.json"
LICENSE_TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")  # a long English text that Debian installs
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\x07\x00]")
PATIENCE_S = 120
QUESTIONS = """\
{"id": "france", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
{"id": "italy", "prompt": "The capital of Italy is", "max_tokens": 4, "n": 2, "temperature": 0.8, "seed": 4}
"""


def fenced(text):
    lines = "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
    return f"```text\n{lines}\n```\n\n"


def help_of(kogia, command):
    return fenced(subprocess.run([kogia, command, "--help"], capture_output=True, text=True, check=True).stdout)


def output_of(kogia, folder, line):
    done = subprocess.run(["bash", "-c", f'kogia() {{ "{kogia}" "$@"; }}; {line}'], cwd=folder, capture_output=True,
                          text=True)
    if done.returncode != 0 or not done.stdout.strip():
        raise SystemExit(f"{line}: exit code {done.returncode}, output {done.stdout!r}\n{done.stderr}")
    return f"$ {line}\n{done.stdout.rstrip()}"


class Terminal:
    """A program on a terminal of its own, and all that it has shown there."""

    def __init__(self, command, folder):
        self.shown = ""
        home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder), "TERM": "dumb"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(command[0], command, {**os.environ, **home})

    def read_until_prompt(self):
        """Reads until what was shown since the last call ends in the prompt of a chat."""
        begin, deadline = len(self.shown), time.monotonic() + PATIENCE_S
        while not self.shown[begin:].endswith("\n> "):
            if not select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise SystemExit(f"chat: no prompt after {PATIENCE_S} s in {self.shown!r}")
            data = os.read(self.fd, 65536)
            self.shown += ESCAPES.sub("", data.decode()).replace("\r\n", "\n")

    def write_line(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def close(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def chat_of(kogia, folder, lines):
    terminal = Terminal([str(kogia), "chat", "SmolLM2.gguf", "--temperature", "0", "--no-history"], folder)
    terminal.read_until_prompt()
    for line in lines.split("|"):
        terminal.write_line(line.strip())
        terminal.read_until_prompt()
    terminal.close()
    first = terminal.shown.index("> ")
    return fenced(terminal.shown[first:].removesuffix("> "))


def fill_in(page, kogia, folder):
    def run_block(match):
        return fenced("\n\n".join(output_of(kogia, folder, line[4:]) for line in match[0].rstrip("\n").split("\n")))

    page = re.sub(r"^@help (.*)\n", lambda m: help_of(kogia, m[1]), page, flags=re.M)
    page = re.sub(r"^@chat (.*)\n", lambda m: chat_of(kogia, folder, m[1]), page, flags=re.M)
    page = re.sub(r"(^@sh .*\n)+", run_block, page, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", page).rstrip("\n") + "\n"


def check(kogia):
    page = (ROOT / "docs/commands.md").read_text()
    commands = re.findall(r"^@help (.*)$", (ROOT / "docs/commands.in").read_text(), flags=re.M)
    stale = [command for command in commands if help_of(kogia, command) not in page]
    if stale or not commands:
        raise SystemExit(f"docs/commands.md: not the --help of {', '.join(stale) or 'any command'}: run ./dev docs")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    if sys.argv[2] == "--check":
        return check(pathlib.Path(sys.argv[1]).resolve())
    kogia, model = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "SmolLM2.gguf").symlink_to(model)
        (folder / "DeepSeek-V3").mkdir()
        shutil.copy(V3_CONFIG, folder / "DeepSeek-V3")
        shutil.copy(LICENSE_TEXT, folder / "GPL-3")
        (folder / "prompt.ids").write_text("504 3575 282 4649 314\n")
        (folder / "questions.jsonl").write_text(QUESTIONS)
        page = fill_in((ROOT / "docs/commands.in").read_text(), kogia, folder)
    (ROOT / "docs/commands.md").write_text(page)


if __name__ == "__main__":
    main()
