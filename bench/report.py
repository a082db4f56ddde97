#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report.py DIR: docs/benchmarks.md from DIR/full/results.json, and from
DIR/beyond/results.json and DIR/counts.json where they exist.

Every sentence with a figure in it comes from the results; none is written by
hand, least of all those that say where a peer wins.
"""
import json
import os
import statistics
import sys

OURS = "esker"
EVEN = 1.05     # closer than that is called even


def load(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def figure(value, unit="ops/s"):
    if value is None:
        return "–"
    if unit == "s":
        return f"{value * 1e3:.2g} ms" if value < 0.01 else f"{value:.3g} s"
    for limit, divisor, letter in ((999_500, 1e6, "M"), (999.5, 1e3, "k")):
        if value >= limit:
            return f"{value / divisor:.3g}{letter}"
    return f"{value:.3g}"


def microseconds(value):
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


class Results:
    def __init__(self, data):
        self.data = data
        self.engines = [engine["name"] for engine in data["engines"]]
        self.peers = [name for name in self.engines if name != OURS]
        self.lines = data["lines"]

    def cells(self, workload, engine):
        return [cell for cell in self.data["cells"]
                if cell["workload"] == workload and cell["engine"] == engine and cell["status"] == "done"]

    def metric(self, workload, engine, name):
        values = [cell["metrics"][name] for cell in self.cells(workload, engine) if name in cell["metrics"]]
        return statistics.median(values) if values else None

    def best_peer(self, line):
        """(name, how many times better esker is) of the peer that does best."""
        found = [(line["engines"][peer]["esker_times_better"], peer) for peer in self.peers
                 if line["engines"][peer]["esker_times_better"] is not None]
        return (min(found)[1], min(found)[0]) if found else (None, None)

    def spread(self, line, peer):
        """The least and the largest ratio of a single round."""
        series = line["line"][len(line["workload"]) + 1:]

        def by_round(engine):
            found = {}
            for cell in self.cells(line["workload"], engine):
                rates = {entry["name"]: entry["rate"] for entry in cell["series"]}
                value = cell["value"] if line["better"] == "lower" or not rates else \
                    rates.get(series, cell["series"][0]["rate"])
                found[cell["round"]] = value
            return found

        ours, theirs = by_round(OURS), by_round(peer)
        ratios = [ours[i] / theirs[i] if line["better"] == "higher" else theirs[i] / ours[i]
                  for i in ours if i in theirs and ours[i] and theirs[i]]
        return (min(ratios), max(ratios)) if ratios else (None, None)


# ---- Sections ------------------------------------------------------------------

def head(results):
    data, machine, parameters = results.data, results.data["machine"], results.data["parameters"]
    words = drop_paths(data["command"])
    command = " ".join([os.path.basename(words[0])] + words[1:])
    virtual = ", " + machine["virtualisation"] if machine["virtualisation"] else ""
    versions = ", ".join(f"{engine['name']} {engine['version']}" for engine in data["engines"])
    return f"""# Benchmarks

Written by `bench/report.py` from the results of `./dev bench`; no figure here was typed. What the
workloads are and how each engine is set up stands in [bench/README.md](../bench/README.md).

| | |
|---|---|
| begun | {data["started"]}, took {data["wall_seconds"] / 60:.1f} minutes |
| command | `{command}` |
| machine | {machine["cpu"]}, {machine["cores"]} cores{virtual}, \
{machine["memory_bytes"] / 2**30:.0f} GiB, {machine["file_system"]}, {machine["kernel"]} |
| load average before | {machine["load_before"]:.2f} |
| engines | {versions} |
| compiler of esker | {machine["compiler"]} |
| records | {parameters["records"]:,.0f} of {parameters["key_bytes"]:.0f} + \
{parameters["value_bytes"]:.0f} bytes, seed {parameters["seed"]:.0f} |
| rounds | up to {data["rounds"]:.0f}, engines interleaved; medians |
| wrong answers | {data["wrong_answers"]:.0f} |
| cells that failed | {data["failed_cells"]:.0f} |
| the instrument's own cost | {machine["instrument_ns"]:.0f} ns per operation, in every rate, in no latency |
"""


def drop_paths(words):
    """Where somebody keeps files is nobody's business."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("--dir", "--out"):
            kept.append(word)
        skip = not skip and word in ("--dir", "--out")
    return kept


def standing(results):
    wins, losses, even = [], [], []
    for line in results.lines:
        if line["line"].startswith("mixed") and "free" not in line["line"] and line["line"].endswith("write"):
            continue    # paced: every engine that keeps up is even
        peer, ratio = results.best_peer(line)
        if peer is None:
            continue
        low, high = results.spread(line, peer)
        entry = (ratio, line["line"], peer, low, high)
        (wins if ratio > EVEN else losses if ratio < 1 / EVEN else even).append(entry)
    total = len(wins) + len(losses) + len(even)
    if total == 0:
        return "\n## Where esker stands\n\nThere is no peer in these results.\n"
    text = f"""
## Where esker stands

Against the best peer of each line: ahead on {len(wins)} of {total} lines, even (within \
{(EVEN - 1) * 100:.0f} %) on {len(even)}, behind on {len(losses)}. The range is that of single rounds; where
it includes 1, nothing is proven.
"""
    if losses:
        text += "\n### A peer wins\n\n" + table(
            ["line", "winner", "times as good as esker", "single rounds"],
            [[name, peer, f"×{1 / ratio:.2f}", f"×{1 / high:.2f} to ×{1 / low:.2f}"]
             for ratio, name, peer, low, high in sorted(losses)])
    if even:
        text += "\n### Even\n\n" + ", ".join(f"{name} ({peer})" for _, name, peer, _, _ in even) + ".\n"
    if wins:
        text += "\n### esker wins\n\n" + table(
            ["line", "best peer", "esker is times as good", "single rounds"],
            [[name, peer, f"×{ratio:.2f}", f"×{low:.2f} to ×{high:.2f}"]
             for ratio, name, peer, low, high in sorted(wins, reverse=True)])
    return text


def rates(results):
    rows = []
    for line in results.lines:
        best = None
        values = {name: line["engines"][name]["median"] for name in results.engines}
        known = [value for value in values.values() if value is not None]
        if known:
            best = min(known) if line["better"] == "lower" else max(known)
        row = [line["line"], line["what"]]
        for name in results.engines:
            entry = line["engines"][name]
            if entry["status"] != "done" or values[name] is None:
                row.append(entry["status"] if entry["status"] != "pending" else "–")
                continue
            text = figure(values[name], line["unit"])
            ratio = entry["esker_times_better"]
            text = f"**{text}**" if values[name] == best else text
            row.append(text + (f" ×{ratio:.2f}" if name != OURS and ratio is not None else ""))
        rows.append(row)
    return f"""
## Rates

Operations per second, medians of the rounds; the best of a line is bold. ×N: esker does N times as well (the
median of the ratios within each round), so below 1 the peer is ahead. Keys for batches and churn, rows for
scans, seconds where it says s; merge-plain and merge-lz4 are MB per second of processor time.

{table(["line", "what"] + results.engines, rows)}"""


def latencies(results):
    rows = []
    for line in results.lines:
        cells = []
        for name in results.engines:
            entry = line["engines"][name]
            if entry["p50_us"] is None:
                cells.append("–")
                continue
            keys = ("p50_us", "p99_us", "p999_us", "max_us")
            cells.append(" / ".join(microseconds(entry[key]) for key in keys))
        if any(cell != "–" for cell in cells):
            rows.append([line["line"]] + cells)
    return f"""
## Latencies

Microseconds: median / 99 % / 99.9 % / worst, of all rounds together. The paced writers (mixed-N, without
"free") count from when a write was due, so a stall is charged to every write that it delays. Whole histograms
are in `hgrm/` beside the results.

{table(["line"] + results.engines, rows)}"""


def processor(results):
    rows = []
    for line in results.lines:
        if line["unit"] == "s":
            continue
        row = [line["line"]]
        for name in results.engines:
            value = line["engines"][name]["cpu_ns_per_op"]
            row.append("–" if value is None else f"{value:,.0f}")
        if line["line"].endswith(" write") and not line["workload"].startswith(("fill", "batch")):
            continue    # the roles of a cell share one process
        rows.append(row)
    return f"""
## Processor time

Nanoseconds of all threads of the process, background work included, per operation of all roles.

{table(["line"] + results.engines, rows)}"""


def readers(results):
    """What a read costs its own thread beside a writer, and the same readers alone in the same cell."""
    rows = []

    def row(title, workload, cost, times=None):
        cells = []
        for name in results.engines:
            value = results.metric(workload, name, cost)
            ratio = results.metric(workload, name, times) if times else None
            cells.append("–" if value is None else
                         f"{value:,.0f}" + (f" ×{ratio:.2f}" if ratio is not None else ""))
        if any(cell != "–" for cell in cells):
            rows.append([title] + cells)

    for count in (1, 2, 8, 32):
        paced, free = f"mixed-{count}", f"mixed-{count}-free"
        row(f"{count}, alone, at rest", free, "alone_cpu_ns")
        row(f"{count}, beside 10,000 writes/s", paced, "beside_cpu_ns", "times_alone")
        row(f"{count}, beside writes without pause", free, "beside_cpu_ns", "times_alone")
        after = [results.metric(free, name, "times_after") for name in results.engines]
        if any(value is not None for value in after):
            rows.append([f"{count}, the same: times alone, right after"] +
                        ["–" if value is None else f"×{value:.2f}" for value in after])
    return f"""
## Readers beside a writer

Nanoseconds of processor time that the readers' own threads take per read. ×N: times as much as the same
readers took alone in the same cell, over the same records at rest, directly before. The last line of each
number: times as much as they took in the pauses of the writer, right after it stopped, by turns: over the
tree as it left it, with write buffers full and merges under way. What the writer and the background take from
the same processors is in none of it; what they push out of the caches is, and the instrument itself.

{table(["readers"] + results.engines, rows)}""" if rows else ""


def together(results):
    """What asking for many keys at once is worth."""
    rows = []
    for title, metric, form in (("one by one", "single_ops_per_s", "{:,.0f}"),
                                ("64 at once, times that", "times_single", "{:.1f}")):
        values = [results.metric("multiget-cold", name, metric) for name in results.engines]
        rows.append([title] + ["–" if value is None else form.format(value) for value in values])
    known = any(cell != "–" for row in rows for cell in row[1:])
    return f"""
## Many keys at once

Random records, page cache dropped, a cache of a few percent, one thread; keys per second, never the same key.

{table(["gets"] + results.engines, rows)}""" if known else ""


def opened(results):
    """Cold reads, the open before them counted."""
    rows = []
    for workload in ("readcold", "readcold-8", "seek10-cold"):
        for title, metric, scale, form in ((" open, ms", "open_seconds", 1e3, "{:.1f}"),
                                           (", open counted", "with_open_ops_per_s", 1, "{:,.0f}")):
            values = [results.metric(workload, name, metric) for name in results.engines]
            if any(value is not None for value in values):
                rows.append([workload + title])
                rows[-1] += ["–" if value is None else form.format(value * scale) for value in values]
    return f"""
## Cold reads, the open counted

What an engine reads at open it does not read later. Page cache dropped before the open; operations per
second from there to the end of the cold phase.

{table(["workload"] + results.engines, rows)}""" if rows else ""


def weights(results):
    sections = [("write_amp", "Bytes written to files per byte put (closing included)"),
                ("space_amp", "Bytes on disk after closing per byte that is live")]
    text = "\n## Write and space amplification\n"
    for metric, title in sections:
        rows = []
        for workload in ("fillseq", "fillrandom", "batch-100", "overwrite", "churn", "compact", "large-fill"):
            values = [results.metric(workload, name, metric) for name in results.engines]
            if any(value is not None for value in values):
                rows.append([workload] + ["–" if value is None else f"{value:.2f}" for value in values])
        if rows:
            text += f"\n{title}:\n\n" + table(["workload"] + results.engines, rows)
    return text + """
Written bytes are counted by the kernel when a page becomes dirty, and uncounted when a file goes before it
was written; records compress to about 60 %.
"""


def troubles(results):
    seen, lines = set(), []
    for cell in results.data["cells"]:
        key = (cell["workload"], cell["engine"])
        if cell["status"] != "done" and key not in seen:
            seen.add(key)
            lines.append(f"- {cell['workload']}, {cell['engine']}: {cell['status']}: {cell['reason']}")
    return "\n## What could not be measured\n\n" + ("\n".join(lines) if lines else "Nothing.") + "\n"


def settings(results):
    text = "\n## Settings\n\nThe budgets differ by workload; these are examples.\n\n"
    rows = [[engine["name"], workload, words] for engine in results.data["engines"]
            for workload, words in engine["settings"].items()]
    return text + table(["engine", "workload", "settings"], rows)


def beyond(results):
    parameters = results.data["parameters"]
    records = parameters["records"]
    names = [line["line"] for line in results.lines]
    text = rates(results).split("\n", 7)[-1] if names else ""
    return f"""
## Data beyond the budget

{records:,.0f} records, budgets of {parameters["cold_percent"]:.0f} % of the data, page cache dropped before
each cold phase, which ends before it meets much of what it has read; {results.data["rounds"]:.0f} round(s),
{results.data["wall_seconds"] / 60:.0f} minutes. fillrandom has half of the data as its budget and stops after
{parameters["phase_seconds"] * 10:.0f} s.

{text}"""


def tenfold(results):
    names = [line["line"] for line in results.lines]
    text = rates(results).split("\n", 7)[-1] if names else ""
    return f"""
## Ten times the records

{results.data["parameters"]["records"]:,.0f} records, in memory but where a line says otherwise;
{results.data["rounds"]:.0f} round(s), {results.data["wall_seconds"] / 60:.0f} minutes.

{text}"""


def counts(data):
    columns = (("instructions", "%.0f"), ("d1_misses", "%.1f"), ("ll_misses", "%.2f"), ("lines", "%.1f"),
               ("lines_predicted", "%s"), ("locked", "%.2f"), ("system_calls", "%.3f"),
               ("bytes_read", "%.0f"), ("disk_bytes", "%.0f"), ("bytes_written", "%.0f"))
    rows = []
    for operation, engines in data["counts"].items():
        for engine, row in engines.items():
            rows.append([operation, engine] + ["–" if row.get(name) is None else form % row[name]
                                               for name, form in columns])
    return f"""
## Counts

Per operation, {data["records"]:,} records, {data["ops"]:,} operations; nothing here depends on a clock.
Instructions, misses (of a simulated 32 KiB and 32 MiB cache) and locked read-modify-writes by callgrind;
system calls and bytes read by strace; disk bytes are what the disk gave with the page cache dropped.

{table(["operation", "engine", "instructions", "L1 misses", "LL misses", "lines", "lines expected",
        "locked RMWs", "system calls", "bytes read", "disk bytes", "bytes written"], rows)}"""


def main():
    folder = sys.argv[1]
    data = load(os.path.join(folder, "full", "results.json"))
    if data is None:
        sys.exit(f"report: there is no {folder}/full/results.json")
    results = Results(data)
    text = head(results) + standing(results) + rates(results) + latencies(results) + processor(results)
    text += readers(results) + together(results) + opened(results) + weights(results)
    far = load(os.path.join(folder, "beyond", "results.json"))
    if far is not None:
        text += beyond(Results(far))
    ten = load(os.path.join(folder, "tenfold", "results.json"))
    if ten is not None:
        text += tenfold(Results(ten))
    counted = load(os.path.join(folder, "counts.json"))
    if counted is not None:
        text += counts(counted)
    text += troubles(results) + settings(results)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    sys.stdout.write(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
