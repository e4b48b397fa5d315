#!/usr/bin/env python3
"""Holds the folders of src/ to their floors.

Reads the kogia_library() lines of src/*/CMakeLists.txt and every #include "folder/..." under src/. Fails if a
folder includes one that its line does not name, or one that stands no lower, or if a file is too long.

    lint_floors.py [--graph] [ROOT]      --graph prints who includes whom, and how often
"""

import collections
import pathlib
import re
import sys

MAX_LINES = 600  # a file that grows past this wants to be two
LIBRARY = re.compile(r"kogia_library\(\s*(\w+)\s+FLOOR\s+(\d+)(?:\s+DEPS((?:\s+[a-z_0-9]+)*))?")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([a-z_0-9]+)/[^"]+"')


def read_floors(src):
    """{folder: (floor, the folders it names)}"""
    floors = {}
    for path in sorted(src.glob("*/CMakeLists.txt")):
        match = LIBRARY.search(path.read_text())
        if match and match[1] == path.parent.name:
            floors[match[1]] = (int(match[2]), set((match[3] or "").split()))
    return floors


def sources(src):
    for suffix in ("*.h", "*.cc", "*.inc"):
        yield from sorted(src.rglob(suffix))


def check(root):
    src = root / "src"
    floors = read_floors(src)
    problems, edges = [], collections.Counter()
    for folder, (floor, deps) in floors.items():
        for dep in sorted(deps):
            if dep not in floors:
                problems.append(f"src/{folder}/CMakeLists.txt: names '{dep}', which is no folder of src/")
            elif floors[dep][0] >= floor:
                problems.append(f"src/{folder}/CMakeLists.txt: floor {floor} may not use {dep} (floor {floors[dep][0]})")
    for path in sources(src):
        folder = path.relative_to(src).parts[0]
        place = path.relative_to(root)
        lines = path.read_text().splitlines()
        if len(lines) > MAX_LINES:
            problems.append(f"{place}: {len(lines)} lines, more than {MAX_LINES}")
        if path.suffix == ".h" and not path.name.endswith("-inl.h") and "#pragma once" not in lines:
            problems.append(f"{place}: no #pragma once")
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match or match[1] == folder or match[1] not in floors:
                continue
            edges[folder, match[1]] += 1
            if folder in floors and match[1] not in floors[folder][1]:
                problems.append(f"{place}:{number}: src/{folder} does not name {match[1]} in its DEPS")
    return floors, edges, problems


def print_graph(floors, edges):
    for folder, (floor, _) in sorted(floors.items(), key=lambda item: item[1][0]):
        used = {to: n for (source, to), n in edges.items() if source == folder}
        arrows = ", ".join(f"{to} ({n})" for to, n in sorted(used.items(), key=lambda x: floors[x[0]][0]))
        print(f"{floor}  {folder:8} -> {arrows or '-'}")


def main(arguments):
    graph = "--graph" in arguments
    paths = [a for a in arguments if a != "--graph"]
    root = pathlib.Path(paths[0] if paths else __file__).resolve()
    root = root if paths else root.parent.parent
    floors, edges, problems = check(root)
    if graph:
        print_graph(floors, edges)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not floors:
        print("no kogia_library() found: wrong folder?", file=sys.stderr)
    return 1 if problems or not floors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
