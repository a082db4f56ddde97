#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The reader in this directory against the engine.

Goal: what esker_dump.py reads from a directory is what the engine reads from it, byte for byte: after
loads, deletes, flushes, merges and kills, with every codec, tiny and huge keys and values; every version
that `esker inspect` finds, with its LSN; and damage is named by both.
Method: databases made by the built tool ($ESKER_BIN); the tool opens a copy, since opening writes. The
worked example of docs/format.md is read from the page itself.
"""
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ESKER = os.environ["ESKER_BIN"]
SOURCE = pathlib.Path(os.environ.get("ESKER_SOURCE_DIR", pathlib.Path(__file__).parent.parent))
DUMP = [sys.executable, str(SOURCE / "python" / "esker_dump.py")]
FORMS = {"tsv": [], "jsonl": ["--format", "jsonl"], "all": ["--all"], "check": ["--check"]}


def run(*words, data=None, code=0):
    """Runs a program and returns what it prints; its exit code must be `code`."""
    done = subprocess.run(words, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != code:
        said = done.stderr.decode(errors="replace")
        sys.exit(f"FAILED: {words}: exit {done.returncode}, not {code}: {said}")
    return done.stdout if code == 0 else done.stderr


def escape(raw):
    """Every byte in the escape that load reads."""
    return b"".join(b"\\x%02x" % byte for byte in raw)


def records(rng, count):
    """Keys and values of all sorts, as load's tsv."""
    lines = []
    for i in range(count):
        kind = rng.randrange(100)
        key = b"key/%05d" % rng.randrange(2 * count)
        value = b"value %d " % i * rng.randrange(12)
        if kind < 3:
            key = bytes([rng.randrange(256)])
        elif kind < 6:
            key = rng.randbytes(rng.randrange(1, 40))
        elif kind == 6:
            key = rng.randbytes(4) * 8192  # the longest there may be
        elif kind == 7:
            key = b"key/" + b"\0" * rng.randrange(1, 12)
        elif kind == 8:
            value = rng.randbytes(rng.randrange(1, 30000))
        elif kind == 9:
            value = "Grüße, \t\n\\ \u0085".encode() * 3
        lines.append(escape(key) + b"\t" + escape(value))
    return b"\n".join(lines) + b"\n"


def compare(directory, what, form="tsv", orphans=False):
    """What the reader finds is what the engine finds."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    ours = {name: run(*DUMP, *FORMS[name], str(directory)) for name in (form, "all", "check")}
    if before != {path.name: path.read_bytes() for path in directory.iterdir()}:
        sys.exit(f"FAILED: {what}: the reader changed the directory")
    if not orphans:
        compare_versions(directory, ours["all"], what)
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    if ours[form] != run(ESKER, "dump", str(copy), "--format", form):
        sys.exit(f"FAILED: {what}: the dumps differ in {form}")
    shutil.rmtree(copy)
    print(f"{what}: {ours[form].count(10)} rows; {ours['check'].decode().strip()}")


def compare_versions(directory, ours, what):
    """Every version in listed segments, as `inspect` prints them, is in ours with its LSN and kind; and
    what else is in ours is in the logs."""
    found = {}
    for line in ours.splitlines():
        lsn, kind, _, _ = line.split(b"\t")
        found[int(lsn)] = kind
    if len(found) != ours.count(b"\n"):
        sys.exit(f"FAILED: {what}: an LSN stands twice")
    segments, logs = {}, {}
    for path in directory.iterdir():
        if path.suffix == ".seg":
            text = run(ESKER, "inspect", str(path), "--rows")
            found_here = re.finditer(rb"\n    .* LSN (\d+) (put|delete)\b", text)
            segments.update((int(match[1]), match[2]) for match in found_here)
        elif path.name.startswith("log-"):
            text = run(ESKER, "inspect", str(path), "--rows")
            found_here = re.finditer(rb"\n    LSN (\d+) (put|delete) ", text)
            logs.update((int(match[1]), match[2]) for match in found_here)
    if not segments.items() <= found.items():
        sys.exit(f"FAILED: {what}: versions of segments are missing")
    rest = {lsn: kind for lsn, kind in found.items() if lsn not in segments}
    if not rest.items() <= logs.items():
        sys.exit(f"FAILED: {what}: versions that are nowhere: {sorted(rest.items() - logs.items())[:9]}")


def make(directory, options, rng, count):
    """A database in several states, each compared."""
    load = [ESKER, "-o", options, "load", str(directory)]
    run(*load, data=records(rng, count))
    compare(directory, f"{options}: loaded")
    keys = [line.split(b"\t")[1] for line in run(*DUMP, "--all", str(directory)).splitlines()][::97]
    for key in [key for key in keys if b"\\x" not in key and b"\\\\" not in key][:6]:
        run(ESKER, "-o", options, "del", str(directory), key)
    run(ESKER, "-o", options, "del", str(directory), "never there")
    run(*load, data=records(rng, count))
    for i in range(9):
        life = ("1ms", "2h", "90d")[i % 3]
        run(ESKER, "-o", options, "put", str(directory), f"key/{i:05d}", f"lives {life}", "--ttl", life)
    compare(directory, f"{options}: deleted and loaded again, and some expire", "jsonl")
    compare(directory, f"{options}: deleted and loaded again")
    run(ESKER, "-o", options, "compact", str(directory))
    compare(directory, f"{options}: merged")
    run(*load, data=records(rng, count // 4))
    compare(directory, f"{options}: merged and loaded", "jsonl")


def make_killed(directory, options, rng, feeds):
    """A loader that is killed while it writes leaves logs without a SEAL."""
    last = 0
    for fed in feeds:
        loader = subprocess.Popen([ESKER, "-o", options, "load", str(directory)], stdin=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # A pipe holds 64 KiB, so by then the loader has taken most of it and waits for more.
        for _ in range(fed // 2048):
            lines = (b"k%06d\tvalue %08d\n" % (rng.randrange(90000), i) for i in range(87))
            loader.stdin.write(b"".join(lines))
        loader.send_signal(signal.SIGKILL)
        loader.wait()
        loader.stdin = None
        compare(directory, f"{options}: killed", orphans=True)
        lines = run(*DUMP, str(directory)).count(b"\n")
        if lines <= last and "memory;" not in options:
            sys.exit(f"FAILED: {options}: the killed loader left nothing behind")
        last = lines


def damage(directory, rng):
    """A flipped bit: the reader names the file wherever the engine's verify does."""
    told = 0
    for path in sorted(directory.iterdir()):
        good = path.read_bytes()
        for _ in range(4 if good else 0):
            bad = bytearray(good)
            bad[rng.randrange(min(len(bad), 70000))] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            ours = subprocess.run([*DUMP, "--check", str(directory)], stderr=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, check=False)
            theirs = subprocess.run([ESKER, "verify", str(directory)], stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, check=False)
            if (ours.returncode, theirs.returncode) not in ((0, 0), (3, 3)):
                sys.exit(f"FAILED: {path.name}: the reader says {ours}, verify says {theirs}")
            if ours.returncode == 3 and path.name.encode() not in ours.stderr:
                sys.exit(f"FAILED: {path.name} is damaged and not named: {ours.stderr}")
            told += ours.returncode == 3
        path.write_bytes(good)
    if told < 6:
        sys.exit(f"FAILED: of all those flips only {told} were told")
    print(f"damage: {told} told by both")


def worked_example(directory):
    """The page's own files."""
    page = (SOURCE / "docs" / "format.md").read_text(encoding="utf-8")
    for name, size, body in re.findall(r"```hex (\S+) (\d+)\n(.*?)```", page, re.S):
        data = bytearray(int(size))
        for line in body.splitlines():
            words = line.split(";")[0].split()
            part = bytes(int(word, 16) for word in words[1:])
            data[int(words[0], 16) : int(words[0], 16) + len(part)] = part
        (directory / name).write_bytes(data)
    want = b"2565\tdelete\tapple\t\n514\tput\tapple\tred\n518\tput\tbanana\tyellow\n2562\tput\tcherry\tdark\n"
    if run(*DUMP, "--all", str(directory)) != want:
        sys.exit("FAILED: the worked example reads otherwise")


def main():
    """All of it, in a directory of its own."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="esker-dump-") as name:
        place = pathlib.Path(name)
        (place / "example").mkdir()
        worked_example(place / "example")
        for i, codec in enumerate(("none", "lz4", "zstd")):
            make(place / f"db{i}", f"compression={codec};memory=8M", rng, 160)
        make(place / "sync", "durability=sync;io=posix;memory=8M", rng, 60)
        make_killed(place / "killed", "memory=8M", rng, (1 << 18, 3 << 17))
        make_killed(place / "memory", "durability=memory;memory=8M", rng, (1 << 17,))
        damage(place / "db1", rng)
        run(*DUMP, str(place / "none"), code=3)
        run(*DUMP, code=2)


if __name__ == "__main__":
    main()
