#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""exports.py NM HEADER[,HEADER] SHARED [STATIC]: the libraries define exactly the calls the headers declare.

The shared library shows them under the version ESKER_0; the archive has no
other global name, so that a program may use every name of ours itself.
"""
import re
import subprocess
import sys


def defined(nm, *arguments):
    """Name -> version of every global symbol that the file defines."""
    run = subprocess.run([nm, "--defined-only", *arguments], check=True, capture_output=True, text=True)
    symbols = {}
    for line in run.stdout.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] != "A":
            name, _, version = fields[2].partition("@")
            symbols[name] = version.lstrip("@")
    return symbols


def main():
    nm, header, shared = sys.argv[1:4]
    text = ""
    for path in header.split(","):
        with open(path, encoding="utf-8") as file:
            text += re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    declared = set(re.findall(r"ESKER_API[^;{]*?\b(esker_\w+)\(", text))
    if not declared:
        sys.exit(f"exports: no ESKER_API call found in {header}")
    faults = []
    libraries = [(shared, defined(nm, "-D", shared))]
    libraries += [(static, defined(nm, "-g", static)) for static in sys.argv[4:]]
    for path, symbols in libraries:
        for name in sorted(set(symbols) - declared):
            faults.append(f"{path}: shows {name}, which the header does not declare; hide it")
        for name in sorted(declared - set(symbols)):
            faults.append(f"{path}: lacks {name}, which the header declares; define it or take it out")
        if path == shared:
            for name in sorted(set(symbols) & declared):
                if symbols[name] != "ESKER_0":
                    faults.append(f"{path}: {name} has version '{symbols[name]}', not ESKER_0")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(declared)} calls declared, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
