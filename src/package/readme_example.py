#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""readme_example.py README CC ARCHIVE INCLUDE_DIR LIBRARY...: the README's first C example compiles and runs.

It runs twice in an empty directory, since a store that is found again is the
point of the thing, and must exit 0 and print the same both times.
"""
import pathlib
import re
import subprocess
import sys
import tempfile


def main():
    readme, cc, archive, include, *libraries = sys.argv[1:]
    text = pathlib.Path(readme).read_text(encoding="utf-8")
    blocks = re.findall(r"^```c\n(.*?)^```$", text, flags=re.S | re.M)
    if not blocks:
        sys.exit(f"readme_example: {readme} has no ```c block")
    with tempfile.TemporaryDirectory() as work:
        source = pathlib.Path(work) / "example.c"
        source.write_text(blocks[0], encoding="utf-8")
        subprocess.run([cc, "-std=c17", "-Wall", "-Wextra", "-Werror", f"-I{include}", str(source), archive,
                        *libraries, "-o", f"{work}/example"], check=True)
        printed = []
        for _ in range(2):
            run = subprocess.run([f"{work}/example"], cwd=work, capture_output=True, text=True, timeout=60)
            if run.returncode != 0:
                sys.exit(f"readme_example: exit {run.returncode}\n{run.stdout}{run.stderr}")
            printed.append(run.stdout)
        if printed[0] != printed[1]:
            sys.exit(f"readme_example: printed\n{printed[0]}and, run again,\n{printed[1]}")
    print(f"{len(blocks[0].splitlines())} lines compiled, run twice, printed:\n{printed[0]}", end="")


if __name__ == "__main__":
    main()
