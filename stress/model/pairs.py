#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Is the table of pairs in docs/concurrency.md true?

For each pair all its ends are made relaxed in a copy of the tree, what the
test that its row names needs is built anew under the race detector, and the
test must fail. Seeded faults that a row names in brackets are run in their
harness, built plainly, or where the harness says that only the model checker
sees them, under that ($GENMC); where they stand without "and" the row claims no
more than them. What is left out of a row's claim is a row's fault: it is printed as
a survivor, and so is a test that fails without any mutant.

    pairs.py [--jobs N] [--work DIR] [PAIR...]     no pair: all of them; hours on a busy machine
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([A-Z0-9_]+)` \|.*\| ([^|]+) \|$", re.M)
PAIRS = re.compile(r"pairs:[\s*]*([A-Z][A-Z0-9_]+(?:(?:,[\s*]*|[\s*]+and[\s*]+)[A-Z][A-Z0-9_]+)*)")
RELAXED = {"load": "load", "store": "store", "exchange": "exchange", "add": "add", "sub": "sub", "or": "or",
           "cas": "cas"}
VERB = re.compile(r"\b(load|store|exchange|add|sub|or|cas)_(acquire|seq|release|acq_rel)\s*\(")
REACH = 4  # lines between a comment and its operation, as in tidy.py
TRIES, SECONDS = 6, "4"
CASES = 2  # at most so many of a harness are tried under the model checker
LACKING = """
#define exchange_relaxed(ptr, value) atomic_exchange_explicit((ptr), (value), memory_order_relaxed)
#define sub_relaxed(ptr, value) atomic_fetch_sub_explicit((ptr), (value), memory_order_relaxed)
#define or_relaxed(ptr, value) atomic_fetch_or_explicit((ptr), (value), memory_order_relaxed)

static inline void
cpu_relax(void)"""


def sites(text, name):
    """Places of the operations whose comment names the pair."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for match in VERB.finditer(text):
        line = text.count("\n", 0, match.start())
        if "pairs:" in lines[line]:
            near = lines[line]
        else:
            near = "\n".join(lines[max(0, line - REACH):line + 1])
        found = [m for m in PAIRS.finditer(near)]
        if found and name in re.findall(r"[A-Z][A-Z0-9_]+", found[-1].group(1)):
            yield match


def relaxed(text, name):
    for match in reversed(list(sites(text, name))):
        text = text[:match.start()] + RELAXED[match.group(1)] + "_relaxed(" + text[match.end():]
    return text


class Work:
    def __init__(self, path, jobs):
        self.path, self.jobs, self.clean = path, jobs, {}
        self.tree = path / "tree"
        files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                               capture_output=True, text=True).stdout.split("\n")
        for name in filter(None, files):
            source, to = ROOT / name, self.tree / name
            if source.is_file() and (not to.exists() or to.read_bytes() != self.prepared(source)):
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(self.prepared(source))
                shutil.copymode(source, to)
        self.texts = {path: path.read_text() for path in sorted((self.tree / "src").rglob("*.[ch]"))
                      if not path.name.endswith("_test.c") and path.name != "atomic.h"}
        common = ["-DESKER_DEBUG=ON", "-DESKER_TESTS=code"]
        self.configure("tsan", ["-DESKER_SANITIZE=tsan", "-DCMAKE_C_COMPILER=clang-19",
                                "-DCMAKE_CXX_COMPILER=clang++-19"] + common)
        self.configure("plain", ["-DCMAKE_BUILD_TYPE=Debug"] + common)

    def prepared(self, source):
        data = source.read_bytes()
        if source == ROOT / "src/sync/atomic.h":
            data = data.replace(b"\nstatic inline void\ncpu_relax(void)", LACKING.encode())
        return data

    def configure(self, kind, options):
        command = ["cmake", "-G", "Ninja", "-S", self.tree, "-B", self.path / kind]
        subprocess.run(command + options, check=True, stdout=subprocess.DEVNULL)

    def build(self, kind, test):
        done = subprocess.run(["cmake", "--build", self.path / kind, f"-j{self.jobs}", "--target", test],
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{test} does not build:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def fails(self, kind, test, args, tries):
        """Whether the program fails in one of so many runs."""
        args = args or ([SECONDS] if test.startswith("stress_") else [])
        options = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ESKER_SOURCE_DIR": str(self.tree)}
        for _ in range(tries):
            try:
                code = subprocess.run([self.path / kind / test] + args, env=options, timeout=300,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
            except subprocess.TimeoutExpired:
                return True
            if code != 0:
                return True
        return False

    def fault_seen(self, test, fault):
        source = (self.tree / "stress" / "model" / f"{test}.c").read_text()
        if not re.search(rf"\b{fault}, GENMC\)", source):
            self.build("plain", test)
            return self.fails("plain", test, [fault], 1)
        script = self.tree / "stress" / "model" / "genmc.sh"
        for case in range(CASES):
            done = subprocess.run(["sh", script, test.removeprefix("model_"), fault], capture_output=True,
                                  text=True, env=os.environ | {"CASE": str(case)})
            if "Verification unsuccessful" in done.stdout:
                return True
        return False

    def is_clean(self, test):
        if test not in self.clean:
            self.build("tsan", test)
            self.clean[test] = not self.fails("tsan", test, [], 1)
        return self.clean[test]

    def relax(self, name, test):
        changed = {path: text for path, text in self.texts.items() if relaxed(text, name) != text}
        count = sum(len(list(sites(text, name))) for text in changed.values())
        try:
            for path, text in changed.items():
                path.write_text(relaxed(text, name))
            self.build("tsan", test)
            return count, count > 0 and self.fails("tsan", test, [], TRIES)
        finally:
            for path, text in changed.items():
                path.write_text(text)


def judge(work, name, cell):
    """True: everything that the row claims was seen."""
    tests = re.findall(r"`(\w+)`(?: \(([^)]*)\))?", cell)
    told = []
    for number, (test, brackets) in enumerate(tests):
        faults = re.findall(r"\b[A-Z][A-Z_]{3,}\b", re.sub(r"`[^`]*`", "", brackets))
        begun = time.monotonic()
        if number == 0 and (not faults or brackets.startswith("and ")):
            if not work.is_clean(test):
                told.append((False, f"{test} fails as it is"))
                continue
            count, seen = work.relax(name, test)
            told.append((seen, f"{count} operations relaxed, {test}, {time.monotonic() - begun:.0f} s"))
        for fault in faults:
            begun = time.monotonic()
            seen = work.fault_seen(test, fault)
            told.append((seen, f"{test} {fault}, {time.monotonic() - begun:.0f} s"))
    for seen, story in told:
        print(f"{name}: {'seen' if seen else 'SURVIVES'}: {story}", flush=True)
    if not told:
        print(f"{name}: SURVIVES: its row names no test", flush=True)
    return bool(told) and all(seen for seen, _ in told)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pairs")
    parser.add_argument("pairs", nargs="*")
    args = parser.parse_args()
    rows = dict(ROW.findall((ROOT / "docs" / "concurrency.md").read_text()))
    unknown = set(args.pairs) - set(rows)
    if unknown:
        sys.exit(f"no row is called {', '.join(sorted(unknown))}")
    work = Work(args.work.resolve(), args.jobs)
    survivors = [name for name in args.pairs or rows if not judge(work, name, rows[name])]
    print(f"{len(args.pairs or rows)} pairs, survivors: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
