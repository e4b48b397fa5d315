#!/usr/bin/env python3
"""Makes docs/commands.md from docs/commands.in, so that what the page shows is what the program says.

    make_commands.py KOGIA MODEL.gguf

A line `@help COMMAND` becomes the text of `kogia COMMAND --help`; a line `@sh COMMAND LINE` is run (KOGIA for kogia,
MODEL.gguf for SmolLM2.gguf) and becomes the line and what it printed. Times differ from run to run and are not compared.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
V3_CONFIG = ROOT / "tests/data/cli/deepseek-v3/config.json"
LICENSE_TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")  # a long English text that Debian installs


def indented(text):
    return "\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").split("\n")) + "\n"


def help_of(kogia, command):
    done = subprocess.run([kogia, command, "--help"], capture_output=True, text=True, check=True)
    return indented(done.stdout)


def output_of(kogia, folder, line):
    done = subprocess.run(["bash", "-c", f'kogia() {{ "{kogia}" "$@"; }}; {line}'], cwd=folder, capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise SystemExit(f"{line}: exit code {done.returncode}\n{done.stderr}")
    return indented(f"$ {line}\n{done.stdout}")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    kogia, model = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "SmolLM2.gguf").symlink_to(model)
        (folder / "DeepSeek-V3").mkdir()
        shutil.copy(V3_CONFIG, folder / "DeepSeek-V3")
        shutil.copy(LICENSE_TEXT, folder / "GPL-3")
        (folder / "prompt.ids").write_text("504 3575 282 4649 314\n")
        page = (ROOT / "docs/commands.in").read_text()
        page = re.sub(r"^@help (.*)\n", lambda m: help_of(kogia, m[1]), page, flags=re.M)
        page = re.sub(r"^@sh (.*)\n", lambda m: output_of(kogia, folder, m[1]), page, flags=re.M)
        (ROOT / "docs/commands.md").write_text(page)


if __name__ == "__main__":
    main()
