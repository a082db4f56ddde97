#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""count.py PROGRAM [--engines A,B] [--ops N] [--records N] [--out FILE.json]

Counts per operation, on each engine: instructions, memory accesses that miss a
simulated first-level and last-level cache, cache lines that such an operation
brings in, locked read-modify-writes, system calls, and bytes read and written.
Nothing here looks at a clock.

  instructions   callgrind: what the adapter's function costs with all that it
                 calls, per call; of N and 2N operations the difference. The
                 instrument's own work is outside of it.
  misses         callgrind's cache model (32 KiB, 32 MiB), the same calls.
  lines          callgrind's cache model with a first level of 256 lines: what every
                 operation touches stays in it (stack, handle, version), what only
                 this one needs does not (bucket, entry, filter, index, block). Beside it
                 what the design expects of a get in which everything is cached.
  RMWs           callgrind counts each instruction; objdump says which of them
                 are locked (a lock prefix, or xchg with memory). A run of N
                 and one of 2N operations: the difference, divided by N. So
                 opening and closing cancel out, and background work that the
                 operations cause is included.
  system calls   strace -f -c, N and 2N in the same way.
  bytes read     strace: what read and pread returned, N and 2N. Not what is mapped. Beyond the
                 cache nearly every operation asks the page cache for its blocks, and N is as given.
  disk bytes     /proc/self/io of the same workload with the page cache dropped, once: what the device
                 gave: blocks in whole pages, what the kernel read around them, indexes and filters that
                 were met for the first time. So few operations, the workload says how many, that they
                 seldom meet each other's blocks. 0 where files live in memory.
  bytes written  /proc/self/io of one run: pages made dirty, less those dropped.

esker runs with io=posix under callgrind, which knows no io_uring polling.
"""
import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

PREFIXES = {"esker": "engine_esker", "rocksdb": "rocks", "leveldb": "level", "lmdb": "lmdb",
            "wiredtiger": "wired", "sqlite": "lite"}
# operation -> (workload, the adapter's functions; each call of the first is one operation)
OPERATIONS = {"get, in memtable": ("readmem", "get"), "get, flushed": ("readrandom", "get"),
              "get, absent": ("readmissing", "get"), "get, beyond the cache": ("readsmall", "get"),
              "seek and 10 rows, beyond the cache": ("seek10-cold", "iter_open iter_step iter_close"),
              "put": ("fillrandom", "put"),
              "put, synced": ("fillsync-1", "put"), "row of a scan": ("scan", "iter_step")}
# Cache lines of a get that finds everything cached: bucket, entry, value; one filter and the fence
# before it; for a row in a block filter, fence, index 1-2, frame pointer, frame and fingerprints, row 1-2.
PREDICTED = {"get, in memtable": "2-3", "get, flushed": "7-9", "get, absent": "2"}
LINES_D1 = "16384,16,64"
DATA_D1 = "32768,8,64"
# Workloads with more records than the least budget holds -> the same with the page cache dropped.
COLD = {"readsmall": "readcold", "seek10-cold": "seek10-cold"}
BEYOND_RECORDS = 100000
LOCKED = re.compile(r"^\s*([0-9a-f]+):\s+(?:lock\b|xchg\s+%\w+,\S*\(|xchg\s+\S*\([^)]*\),%)")


def command(program, engine, workload, ops, records, directory, options):
    words = [program, "--no-fork", "--engines", engine, "--workloads", workload, "--rounds", "1",
             "--records", str(records), "--ops", str(ops), "--dir", directory]
    if options:
        words += ["--esker-options", options]
    return words


def run(words):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"count: {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done


class Profile:
    """What one callgrind file says."""

    def __init__(self, path, functions):
        self.calls = 0                   # of the first of `functions`
        self.inclusive = []              # events, summed over the calls of all of them
        self.executed = collections.Counter()  # (object, address) -> times
        self.read(path, functions)

    def read(self, path, functions):
        name, after_call = "", None
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith("events:"):
                    self.events = line.split()[1:]
                    self.inclusive = [0] * len(self.events)
                elif line.startswith("ob="):
                    name = line[3:].strip()
                elif line.startswith("cfn="):
                    callee = line[4:].strip()
                elif line.startswith("calls="):
                    after_call = (callee in functions, callee == functions[0], int(line[6:].split()[0]))
                elif line.startswith("0x"):
                    words = line.split()
                    if after_call is None:
                        self.executed[name, int(words[0], 16)] += int(words[2]) if len(words) > 2 else 0
                    else:
                        self.add_call(after_call, [int(word) for word in words[2:]])
                        after_call = None

    def add_call(self, after_call, costs):
        wanted, first, times = after_call
        if wanted:
            self.calls += times if first else 0
            for i, cost in enumerate(costs):
                self.inclusive[i] += cost

    def per_call(self, once, *names):
        """Of the calls that this run made and the shorter one did not: loading and warming cancel out."""
        calls = self.calls - once.calls
        if calls <= 0:
            return None
        return sum(self.inclusive[at] - once.inclusive[at]
                   for at in (self.events.index(name) for name in names)) / calls


LOCKED_CACHE = {}


def locked_addresses(path):
    """Link-time addresses of locked instructions in an object."""
    if path not in LOCKED_CACHE:
        found = set()
        if os.path.exists(path):
            listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL, text=True, check=False).stdout
            found = {int(match.group(1), 16) for match in map(LOCKED.match, listing.split("\n")) if match}
        LOCKED_CACHE[path] = found
    return LOCKED_CACHE[path]


def locked_total(profile):
    return sum(times for (path, address), times in profile.executed.items()
               if address in locked_addresses(path))


def callgrind(base, engine, function, first_level=DATA_D1):
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "callgrind.out")
        run(["valgrind", "--tool=callgrind", "--dump-instr=yes", "--compress-strings=no",
             "--compress-pos=no", "--cache-sim=yes", f"--D1={first_level}", "--LL=33554432,16,64",
             f"--callgrind-out-file={out}"] + base)
        return Profile(out, [f"{PREFIXES[engine]}_{name}" for name in function.split()])


def system_calls(base):
    """Calls by name."""
    with tempfile.NamedTemporaryFile(mode="r", suffix=".strace") as out:
        run(["strace", "-f", "-c", "-o", out.name] + base)
        calls = collections.Counter()
        for line in out:
            words = line.split()
            if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
                calls[words[-1]] += int(words[3])
        return calls


READ_LINE = re.compile(r"\b(?:read|pread64|preadv2?)\(.*= (\d+)$")


def read_bytes(base):
    with tempfile.NamedTemporaryFile(mode="r", suffix=".strace") as out:
        run(["strace", "-f", "-q", "-e", "trace=read,pread64,preadv,preadv2", "-o", out.name] + base)
        return sum(int(match.group(1)) for match in map(READ_LINE.search, out) if match)


def device_bytes(base, metric):
    with tempfile.TemporaryDirectory() as directory:
        run(base + ["--out", directory])
        with open(os.path.join(directory, "results.json"), encoding="utf-8") as file:
            cell = json.load(file)["cells"][0]
        return cell["metrics"].get(metric, 0) / max(cell["ops"], 1)


def measure(arguments, engine, operation, directory):
    workload, function = OPERATIONS[operation]
    options = "io=posix" if engine == "esker" else ""
    # Synced puts are slow; a scan works in whole walks.
    ops = {"fillsync-1": arguments.ops // 20, "seek10-cold": arguments.ops // 4,
           "scan": arguments.records}.get(workload, arguments.ops)

    def base(count, with_options=options, cold=False):
        # A fill must have enough records for both runs.
        records = max(arguments.records, count) if function == "put" else arguments.records
        records = max(records, BEYOND_RECORDS) if workload in COLD else records
        words = command(arguments.program, engine, COLD[workload] if cold else workload, count, records,
                        directory, with_options)
        return words if cold else words + ["--keep-caches"]

    once = callgrind(base(ops), engine, function)
    twice = callgrind(base(2 * ops), engine, function)
    lines_once = callgrind(base(ops), engine, function, LINES_D1)
    lines_twice = callgrind(base(2 * ops), engine, function, LINES_D1)
    calls_once, calls_twice = system_calls(base(ops, "")), system_calls(base(2 * ops, ""))
    done = max(twice.calls - once.calls, 1)
    calls = calls_twice.copy()
    calls.subtract(calls_once)
    return {"instructions": twice.per_call(once, "Ir"),
            "d1_misses": twice.per_call(once, "D1mr", "D1mw"),
            "ll_misses": twice.per_call(once, "DLmr", "DLmw"),
            "lines": lines_twice.per_call(lines_once, "D1mr", "D1mw"),
            "lines_predicted": PREDICTED.get(operation) if engine == "esker" else None,
            "bytes_read": max(read_bytes(base(2 * ops)) - read_bytes(base(ops)), 0) / done,
            "locked": max(locked_total(twice) - locked_total(once), 0) / done,
            "system_calls": max(sum(calls.values()), 0) / done,
            "chief_calls": {name: round(count / done, 4) for name, count in calls.most_common(3)
                            if count > 0},
            "disk_bytes": device_bytes(base(ops, "", True), "read_bytes") if workload in COLD else None,
            "bytes_written": device_bytes(base(2 * ops, ""), "write_bytes")}


def show(results, engines):
    columns = [("instructions", "%.0f"), ("d1_misses", "%.1f"), ("ll_misses", "%.2f"), ("lines", "%.1f"),
               ("lines_predicted", "%s"), ("locked", "%.2f"), ("system_calls", "%.3f"),
               ("bytes_read", "%.0f"), ("disk_bytes", "%.0f"), ("bytes_written", "%.0f")]
    names = ["operation", "engine", "instructions", "L1 misses", "LL misses", "lines", "lines expected",
             "locked RMWs", "system calls", "bytes read", "disk bytes", "bytes written"]
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for operation in results:
        for engine in engines:
            row = results[operation].get(engine)
            if row is None:
                continue
            cells = ["-" if row[name] is None else form % row[name] for name, form in columns]
            print(f"| {operation} | {engine} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--engines", default="esker")
    parser.add_argument("--operations", default="all", help="comma-separated, of: " + "; ".join(OPERATIONS))
    parser.add_argument("--ops", type=int, default=20000)
    parser.add_argument("--records", type=int, default=20000)
    parser.add_argument("--dir", default=None)
    parser.add_argument("--out", default=None)
    arguments = parser.parse_args()
    engines = arguments.engines.split(",")
    wanted = [name for name in OPERATIONS
              if arguments.operations == "all" or OPERATIONS[name][0] in arguments.operations.split(",")]
    results = {}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as directory:
        for operation in wanted:
            results[operation] = {}
            for engine in engines:
                results[operation][engine] = measure(arguments, engine, operation, directory)
    show(results, engines)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump({"ops": arguments.ops, "records": arguments.records, "counts": results}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
