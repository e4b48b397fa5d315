#!/usr/bin/env python3
"""Fails if objects compiled with wide instructions define inline functions that the linker could keep
for everybody.

    weak_symbols.py NM OBJECT...

Weak definitions are fine in Highway's own namespaces, whose names contain the instruction set.
"""
import re
import subprocess
import sys


def weak_definitions(nm, path):
    out = subprocess.run([nm, "-C", path], check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        match = re.match(r"[0-9a-f]+ ([WVu]) (.*)", line)
        if match and not re.search(r"N_(AVX|NEON)\w*::", match[2]):
            yield match[2]


def main():
    nm, objects = sys.argv[1], sys.argv[2:]
    if not objects:
        sys.exit("no objects to look at")
    found = [(path, symbol) for path in objects for symbol in weak_definitions(nm, path)]
    for path, symbol in found:
        print(f"{path}: {symbol}")
    if found:
        sys.exit("inline functions compiled for one instruction set: make them static, or use plain data")


main()
