#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tidy.py [--self-test] [ROOT]: the rules of the house, checked in under a second.

Every rule is one function over a Tree (path -> text) and yields violations
that name the rule, the place and the fix. The self-test seeds one violation
per rule into a small clean tree and demands that exactly that rule speaks.
What a rule is for stands in docs/CONTRIBUTING.md.
"""
import ast
import functools
import os
import re
import sys
import time

FLOORS = {"base": 0, "sync": 1, "io": 2, "format": 2, "iter": 3, "memtable": 4, "wal": 4, "segment": 4,
          "manifest": 4, "version": 5, "compaction": 6, "db": 7, "tools": 8}
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70
HARNESS_LINES_MAX = 100
COLUMNS_MAX = 110
PAIR_COMMENT_REACH = 6
SKIPPED_DIRS = {".git", "build", "__pycache__", ".cache"}
UNREAD_DIRS = ("fuzz/corpus/", "proptest/golden/")
CODE = (".c", ".h", ".cc")
WITH_COLUMNS = (".c", ".h", ".cc", ".py", ".sh", ".cmake", "CMakeLists.txt", "dev", ".ci/run")
TEXT = WITH_COLUMNS + (".md", ".json", ".in", ".map", ".txt", ".clang-format", ".clang-tidy", ".editorconfig")
WITH_SPDX = CODE + (".py", ".sh", ".cmake", "CMakeLists.txt", ".map", "dev", ".ci/run")


class Violation:
    def __init__(self, rule, path, line, text):
        self.rule, self.path, self.line, self.text = rule, path, line, text

    def __str__(self):
        return f"{self.path}:{self.line}: [{self.rule}] {self.text}"


class Source:
    """One text file, with what several rules ask of it computed once."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.name = os.path.basename(path)
        parts = path.split("/")
        self.room = parts[1] if parts[0] == "src" and len(parts) > 2 and parts[1] in FLOORS else None
        self.is_code = path.endswith(CODE)
        self.is_test = bool(re.search(r"_test\.(c|cc)$", path))

    @property
    def in_library(self):
        """Part of what users link: neither a test nor a tool nor a program around the library."""
        return self.room is not None and self.room != "tools" and not self.is_test

    @functools.cached_property
    def lines(self):
        return self.text.splitlines()

    @functools.cached_property
    def code(self):
        """The text with comments blanked and strings emptied, line for line."""
        return STRIPPED.sub(blank_out, self.text)

    @functools.cached_property
    def code_lines(self):
        return self.code.splitlines()

    @functools.cached_property
    def functions(self):
        """(name, first line, last line, is static) of each definition, by the house's layout."""
        found = []
        lines = self.code_lines
        for at, line in enumerate(lines):
            if line.rstrip() != "{":
                continue
            start = at - 1
            while start >= 0 and not FUNCTION_NAME.match(lines[start]) and lines[start].strip():
                start -= 1
            match = FUNCTION_NAME.match(lines[start]) if start >= 0 else None
            if not match:
                continue
            first = start
            while first > 0 and SIGNATURE_LINE.match(lines[first - 1]):
                first -= 1
            last = next((i for i in range(at + 1, len(lines)) if lines[i].startswith("}")), len(lines) - 1)
            is_static = bool(re.search(r"\b(static|ALWAYS_INLINE)\b", " ".join(lines[first:start])))
            found.append((match.group(1), first + 1, last + 1, is_static))
        return found

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1

    def line_of_code(self, offset):
        return self.code.count("\n", 0, offset) + 1


STRIPPED = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
SIGNATURE_LINE = re.compile(r"(?!#)\S.*[^;}\s]\s*$")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+["<]([^">]+)[">]', re.M)
FUNCTION_NAME = re.compile(r"([A-Za-z_]\w*)\(")


def blank_out(match):
    text = match.group(0)
    if text[0] in "\"'":
        return text[0] + text[-1]
    return "\n" * text.count("\n") or " "


class Tree:
    def __init__(self, texts, paths):
        self.sources = {path: Source(path, text) for path, text in sorted(texts.items())}
        self.paths = set(paths) | set(texts)
        self.folders = {os.path.dirname(path) for path in self.paths}
        self.folders |= {parent for folder in self.folders for parent in parents(folder)}
        self.find_test_headers()

    def code(self):
        return (source for source in self.sources.values() if source.is_code)

    def find_test_headers(self):
        """A header that only tests and other programs include is a test's too."""
        includers = {}
        for source in self.code():
            for name in set(INCLUDE.findall(source.text)):
                includers.setdefault("src/" + name, []).append(source)

        def ships(path):
            return any(source.in_library or source.room == "tools" for source in includers[path])

        headers = [self.sources[path] for path in includers if path.endswith(".h") and path in self.sources]
        while True:
            found = [header for header in headers if header.in_library and not ships(header.path)]
            if not found:
                break
            for header in found:
                header.is_test = True

    def exists(self, path):
        return path in self.paths or path in self.folders


def parents(folder):
    while folder:
        folder = os.path.dirname(folder)
        yield folder


def read_tree(root):
    texts, paths = {}, []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_DIRS)
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), root)
            paths.append(path)
            if path.endswith(TEXT) and not path.startswith(UNREAD_DIRS):
                with open(os.path.join(folder, name), encoding="utf-8", errors="replace", newline="") as file:
                    texts[path] = file.read()
    return Tree(texts, paths)


# ---- Layout -------------------------------------------------------------------

def rule_floor(tree):
    for source in tree.code():
        if source.room is None:
            continue
        for match in re.finditer(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', source.text, re.M):
            target, line = match.group(1), source.line_of(match.start())
            room = target.split("/")[0]
            if "/" not in target:
                yield Violation("floor", source.path, line,
                                f'"{target}" lacks its room: "{source.room}/{target}"')
            elif room in FLOORS and room != source.room and FLOORS[room] >= FLOORS[source.room]:
                yield Violation("floor", source.path, line,
                                f"{source.room} (floor {FLOORS[source.room]}) may not include {room} (floor "
                                f"{FLOORS[room]}); move what is shared down, or pass it in")


def rule_length(tree):
    for source in tree.sources.values():
        if source.is_code or source.path.endswith(".py"):
            if len(source.lines) > FILE_LINES_MAX:
                yield Violation("length", source.path, FILE_LINES_MAX + 1,
                                f"{len(source.lines)} lines; a file has at most {FILE_LINES_MAX}: split it")
        if source.is_code:
            spans = [(name, first, last) for name, first, last, _ in source.functions]
        elif source.path.endswith(".py"):
            nodes = ast.walk(ast.parse(source.text))
            spans = [(node.name, node.lineno, node.end_lineno) for node in nodes
                     if isinstance(node, ast.FunctionDef)]
        else:
            continue
        for name, first, last in spans:
            if last - first + 1 > FUNCTION_LINES_MAX:
                yield Violation("length", source.path, first, f"{name} has {last - first + 1} lines; a "
                                f"function has at most {FUNCTION_LINES_MAX}: give its parts names")


def rule_harness(tree):
    """A harness of a model is short, together with what no other harness includes."""
    harnesses = [source for source in tree.code() if re.match(r"stress/model/model_\w+\.c$", source.path)]
    included = [name for source in harnesses for name in set(INCLUDE.findall(source.text))]
    for source in harnesses:
        own = ["stress/model/" + name for name in set(INCLUDE.findall(source.text))
               if name.endswith(".h") and included.count(name) == 1]
        parts = [source] + [tree.sources[path] for path in own if path in tree.sources]
        count = sum(len(part.lines) for part in parts)
        if count > HARNESS_LINES_MAX:
            yield Violation("harness", source.path, 1, f"{count} lines in {len(parts)} files; a harness has "
                            f"at most {HARNESS_LINES_MAX}: show one property, split the rest off")


def rule_layout(tree):
    for source in tree.sources.values():
        if source.text and not source.text.endswith("\n"):
            yield Violation("layout", source.path, len(source.lines), "no newline at the end; add one")
        limited = source.path.endswith(WITH_COLUMNS)
        for number, line in enumerate(source.text.split("\n"), 1):
            if "\t" in line:
                yield Violation("layout", source.path, number, "a tab; indent with four spaces")
            if line.endswith((" ", "\r")):
                yield Violation("layout", source.path, number, "space at the end of the line; remove it")
            if limited and len(line) > COLUMNS_MAX:
                yield Violation("layout", source.path, number, f"{len(line)} columns; wrap at {COLUMNS_MAX}")


LEFTOVER = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")


def rule_leftover(tree):
    for source in tree.sources.values():
        for match in LEFTOVER.finditer(source.text):
            yield Violation("leftover", source.path, source.line_of(match.start()),
                            f"{match.group(1)}: finish it, or write the limitation down in docs/")


def rule_spdx(tree):
    for source in tree.sources.values():
        if source.path.endswith(WITH_SPDX) and not any("SPDX-License-Identifier: MIT" in line
                                                       for line in source.lines[:2]):
            yield Violation("spdx", source.path, 1, "begin with the SPDX-License-Identifier: MIT line")


def rule_guard(tree):
    for source in tree.code():
        if source.room is None or not source.path.endswith(".h"):
            continue
        guard = "ESKER_" + re.sub(r"[^A-Za-z0-9]", "_", source.path[len("src/"):]).upper()
        if not re.search(rf"^#ifndef {guard}\n#define {guard}$", source.text, re.M):
            yield Violation("guard", source.path, 1, f"the include guard of this file is {guard}")


# ---- Names ----------------------------------------------------------------------

STATIC_VARIABLE = re.compile(r"^static\b[\w *]*?\b(\w+)(?:\[[^\]\n]*\])*\s*(?:=|;)", re.M)


def rule_unique(tree):
    """Names that a single translation unit of the whole library could not hold twice."""
    files, statics = {}, {}
    for source in tree.code():
        if source.path.startswith(("src/", "fuzz/", "stress/", "proptest/")):
            files.setdefault(source.name, []).append(source.path)
        if source.room is None or source.is_test:
            continue
        names = [(name, first) for name, first, _, is_static in source.functions if is_static]
        if source.path.endswith(".c"):
            names += [(match.group(1), source.line_of_code(match.start()))
                      for match in STATIC_VARIABLE.finditer(source.code)]
        for name, line in names:
            statics.setdefault(name, []).append((source.path, line))
    for name, paths in files.items():
        for path in paths[1:]:
            yield Violation("unique", path, 1, f"{paths[0]} has this file name already; a bare name in a log "
                            "must be unambiguous: rename one")
    for name, places in statics.items():
        for path, line in places[1:]:
            if path != places[0][0]:
                yield Violation("unique", path, line, f"{places[0][0]}:{places[0][1]} has a static {name} "
                                "already; prefix it with the file's noun")


# ---- Shared words ---------------------------------------------------------------

PAIR_NAMES = re.compile(r"pairs:[\s*]*((?:[A-Z][A-Z0-9_]+(?:,[\s*]*|[\s*]+and[\s*]+)?)*)"
                        r"([\s*]*\(both ends\))?")


def atomic_verbs(tree):
    """(ordered, relaxed) names that sync/atomic.h defines."""
    header = tree.sources.get("src/sync/atomic.h")
    names = re.findall(r"^#define (\w+)\(ptr", header.text, re.M) if header else []
    relaxed = {name for name in names if name.endswith("_relaxed")}
    return set(names) - relaxed - {"counter_bump"}, relaxed


class Pair:
    """What the tree says about one name: where it is written, and which ends its operations can be."""

    def __init__(self):
        self.places, self.ends, self.operations = [], set(), 0

    def add_place(self, path, line, both_ends):
        self.places += [(path, line)] * (2 if both_ends else 1)
        if both_ends:
            self.ends |= {"release", "acquire"}

    def add_operation(self, verb):
        self.operations += 1
        if not verb.startswith("load"):
            self.ends.add("release")
        if not verb.startswith("store"):
            self.ends.add("acquire")

    def lacks(self):
        """The end that no operation can be; None while some place may stand for a mutex, a thread's start…"""
        missing = {"release", "acquire"} - self.ends
        return missing.pop() if len(missing) == 1 and len(self.places) <= self.operations else None


def rule_pairs(tree):
    ordered, relaxed = atomic_verbs(tree)
    if not ordered:
        return
    verbs = re.compile(r"\b(" + "|".join(sorted(ordered | relaxed)) + r")\s*\(")
    pairs = {}
    for source in tree.code():
        if not source.in_library or source.path == "src/sync/atomic.h":
            continue
        for match in PAIR_NAMES.finditer(source.text):
            line = source.line_of(match.start())
            names = re.findall(r"[A-Z][A-Z0-9_]+", match.group(1))
            if not names:
                yield Violation("pairs", source.path, line, "`pairs:` names nothing; write `pairs: NAME`")
            for name in names:
                pairs.setdefault(name, Pair()).add_place(source.path, line, bool(match.group(2)))
        for match in verbs.finditer(source.code):
            line, verb = source.line_of_code(match.start()), match.group(1)
            above = "\n".join(source.lines[max(0, line - 1 - PAIR_COMMENT_REACH):line])
            if verb in ordered and "pairs:" not in above:
                yield Violation("pairs", source.path, line, f"{verb} without `pairs: NAME` on the line or "
                                f"within {PAIR_COMMENT_REACH} above; name the other end")
            elif verb in ordered:
                comment = PAIR_NAMES.match(above, above.rindex("pairs:"))
                for name in re.findall(r"[A-Z][A-Z0-9_]+", comment.group(1)):
                    pairs.setdefault(name, Pair()).add_operation(verb)
            elif "relaxed:" not in above:
                yield Violation("pairs", source.path, line, f"{verb} without `relaxed: why`; say why "
                                "nothing orders on it")
    yield from pairs_documented(tree, pairs)


def pairs_documented(tree, pairs):
    table = tree.sources.get("docs/concurrency.md")
    text = table.text if table else ""
    if pairs and not table:
        yield Violation("pairs", "docs/concurrency.md", 1, f"no table of the {len(pairs)} pairs; write it")
    for name, pair in sorted(pairs.items()):
        path, line = pair.places[0]
        if len(pair.places) < 2:
            yield Violation("pairs", path, line, f"{name} has one end only; name it at the other, or write "
                            f"`pairs: {name} (both ends)` where one read-modify-write is both")
        elif pair.lacks():
            yield Violation("pairs", path, line, f"{name} has no {pair.lacks()} end among its operations")
        if table and not re.search(rf"\b{name}\b", text):
            yield Violation("pairs", path, line, f"{name} is not in docs/concurrency.md; add its row")
    for match in re.finditer(r"^\| *`?([A-Z][A-Z0-9_]+)`? *\|", text, re.M):
        if pairs and match.group(1) not in pairs:
            yield Violation("pairs", "docs/concurrency.md", table.line_of(match.start()),
                            f"no code names {match.group(1)}; remove the row")


# ---- What only some rooms may do ----------------------------------------------

class Ban:
    """Calls only for `rooms` and `files`. Programs around the library, tests among them, may too, unless it
    is `everywhere`; with "tools" that means users' programs and not tests."""

    def __init__(self, names, instead, rooms=(), files=(), everywhere=False):
        self.names, self.instead = names.split(), instead
        self.rooms, self.files, self.everywhere = rooms, files, everywhere

    def forbids(self, source):
        if source.path in self.files or source.room in self.rooms:
            return False
        if self.everywhere == "tools":
            return source.room is not None and not source.is_test
        return self.everywhere or source.in_library


BANNED_CALLS = [
    Ban("malloc calloc realloc free strdup strndup aligned_alloc posix_memalign reallocarray asprintf "
        "vasprintf", "mem_alloc and its kin in base/mem.h, which serve the allocator hooks",
        files=("src/base/mem.c",)),
    Ban("sprintf vsprintf strcpy strcat stpcpy gets strncpy strncat",
        "snprintf or memcpy with a checked length", everywhere=True),
    Ban("atoi atol atoll atof scanf sscanf fscanf",
        "strtoull and kin, with the end checked", everywhere="tools"),
    Ban("strtok asctime ctime localtime gmtime", "code without hidden shared state", everywhere="tools"),
    Ban("rand srand random srandom drand48 rand_r",
        "base/rng.h with a seed that is printed", everywhere=True),
    Ban("alloca setjmp longjmp", "a buffer with a bound; a status", everywhere=True),
    Ban("open openat creat read pread preadv readv write pwrite pwritev writev fsync fdatasync "
        "sync_file_range unlink unlinkat rename renameat renameat2 link linkat mmap munmap mremap madvise "
        "msync mlock ftruncate truncate fallocate posix_fallocate stat fstat lstat fstatat statx opendir "
        "readdir closedir scandir mkdir mkdirat rmdir flock lockf fcntl ioctl fopen fread fwrite fclose "
        "getrandom getentropy gettimeofday time eventfd poll select",
        "a call of io/io.h, so that the simulated disk serves it too", rooms=("io",)),
    Ban("clock_gettime nanosleep clock_nanosleep usleep sleep syscall sysconf get_nprocs sched_getcpu",
        "io_monotonic_ns, sync/futex.h or sync/workers.h", rooms=("io", "sync")),
    Ban("exit _exit _Exit quick_exit atexit signal sigaction fork vfork system popen execve getenv setenv",
        "a status; the library leaves the process alone"),
    Ban("abort", "ASSERT for a broken invariant, a status for the rest", files=("src/base/assert.c",)),
    Ban("printf fprintf vprintf vfprintf puts fputs putchar perror",
        "FAIL with a sentence; the library is silent", files=("src/base/assert.c",)),
    Ban("assert", "ASSERT, which stays on in release (base/assert.h)"),
    Ban("strerror", "FAIL_OS, or strerror_r"),
    Ban("atomic_thread_fence atomic_signal_fence __sync_synchronize",
        "an ordered operation of sync/atomic.h; the race detector does not see fences", everywhere=True),
    Ban("ck_epoch_poll ck_epoch_poll_deferred ck_epoch_unregister ck_epoch_call ck_epoch_call_strict",
        "epoch_retire (sync/epoch.h says why)", everywhere=True),
]
BANNED_PATTERNS = [
    (re.compile(r"\bpthread_\w+\s*\("), "sync", "sync/mutex.h or sync/workers.h"),
    (re.compile(r"\bck_\w+\s*\("), "sync", "a call of sync/"),
    (re.compile(r"\b(?:atomic_(?!init\b|flag\b)[a-z_]+|__atomic_\w+|__sync_\w+)\s*\("), "sync",
     "a verb of sync/atomic.h with its pair named"),
]
# (headers, rooms that may include them, what to use instead)
BANNED_INCLUDES = [
    (re.compile(r"(?:ck_\w+|stdatomic|pthread|signal)\.h$"), ("sync",), "what sync/ offers"),
    (re.compile(r"(?:fcntl|unistd|liburing|time|dirent|poll|sys/\w+)\.h$"), ("io", "sync"), "io/io.h"),
    (re.compile(r"(?:assert|setjmp|locale)\.h$"), (), "base/assert.h or a status"),
]


CALL = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*\(")


def rule_banned(tree):
    by_name = {name: ban for ban in BANNED_CALLS for name in ban.names}
    for source in tree.code():
        for match in CALL.finditer(source.code):
            ban = by_name.get(match.group(1))
            if ban and ban.forbids(source):
                yield Violation("banned", source.path, source.line_of_code(match.start()),
                                f"{match.group(1)}() is not called here; use {ban.instead}")
        if not source.in_library:
            continue
        for pattern, room, instead in BANNED_PATTERNS:
            if source.room == room:
                continue
            for match in pattern.finditer(source.code):
                yield Violation("banned", source.path, source.line_of_code(match.start()),
                                f"{match.group(0)[:-1].strip()}() belongs to {room}/; use {instead}")
        for match in INCLUDE.finditer(source.text):
            for pattern, rooms, instead in BANNED_INCLUDES:
                if pattern.match(match.group(1)) and source.room not in rooms:
                    yield Violation("banned", source.path, source.line_of(match.start()),
                                    f"<{match.group(1)}> is not included here; use {instead}")


MOVES = re.compile(r"\b(?:cursor_(?:u\d+|bytes|skip|align)|rng_\w+)\s*\(|"
                   r"\b(?:add|sub|or|exchange|cas|store)_\w+\s*\(|\+\+|--")


def rule_twice(tree):
    """MIN and MAX evaluate an argument twice; it must not move anything."""
    for source in tree.code():
        for match in re.finditer(r"(MIN|MAX)\(", source.code):
            depth, end = 1, match.end()
            while depth > 0 and end < len(source.code):
                depth += {"(": 1, ")": -1}.get(source.code[end], 0)
                end += 1
            moved = MOVES.search(source.code, match.end(), end)
            if moved:
                yield Violation("twice", source.path, source.line_of_code(match.start()),
                                f"{match.group(1)} evaluates {moved.group(0)} twice; take the value first")


# ---- Decoders and their fuzz targets, tests ------------------------------------

def rule_fuzz(tree):
    targets = {path: source for path, source in tree.sources.items() if re.match(r"fuzz/fuzz_\w+\.c$", path)}
    called = "\n".join(source.code for source in targets.values())
    for source in tree.code():
        if not source.in_library:
            continue
        for name, first, _, is_static in source.functions:
            decodes = name.endswith("_decode") or (source.room == "format" and name.endswith("_open"))
            if is_static and source.path.endswith(".c"):
                continue
            if decodes and not re.search(rf"\b{name}\b", called):
                yield Violation("fuzz", source.path, first,
                                f"no fuzz/fuzz_*.c calls {name}; a decoder comes with its fuzz target")
    for path, source in targets.items():
        corpus = "fuzz/corpus/" + path[len("fuzz/fuzz_"):-len(".c")]
        if corpus not in tree.folders:
            yield Violation("fuzz", path, 1, f"{corpus}/ holds no seed; let the real encoder write a few")
        if not re.search(r"rooms: [a-z ]+", " ".join(source.lines[:2])):
            yield Violation("fuzz", path, 1, "the first lines name the rooms it links: /* rooms: format */")


def rule_parsers(tree):
    """The table of parsers in docs/testing.md has every decoder and every fuzz target, and nothing else."""
    document = tree.sources.get("docs/testing.md")
    if document is None:
        return
    start = document.text.find("\n| parser |")
    text = document.text[start:].lstrip("\n").split("\n\n")[0] if start >= 0 else ""
    rows = re.findall(r"^\|.*\|$", text, re.M)[2:]
    line = document.line_of(max(start, 0)) + 1
    cells = [[re.findall(r"`(\w+(?:\.py)?)`", cell) for cell in row.strip("|").split("|")] for row in rows]
    defined = {name for source in tree.code()
               for name in re.findall(r"\b(\w+(?=\()|\w+__\w+)", source.code)}
    files = {os.path.basename(path) for path in tree.paths}
    for at, row in enumerate(cells):
        wanted = [bool(cell) for cell in row[:4]]
        if wanted != [True] * 4:
            yield Violation("parsers", document.path, line + 3 + at, "a parser lacks a target or a test")
        for name in [name for cell in row for name in cell]:
            if not {name, name + ".c"} & (files if name.endswith(".py") else files | defined):
                yield Violation("parsers", document.path, line + 3 + at, f"there is no {name}")
    named = {name for row in cells for cell in row[:2] for name in cell}
    for source in tree.code():
        target = re.match(r"fuzz/(fuzz_\w+)\.c$", source.path)
        seeded_target = target and target.group(1).replace("fuzz_", "fuzz/corpus/", 1) in tree.folders
        if seeded_target and target.group(1) not in named:
            yield Violation("parsers", source.path, 1, "the table of parsers does not say what it is for")
        for name, first, _, is_static in source.functions if source.in_library else []:
            if name.endswith("_decode") and not is_static and name not in named:
                yield Violation("parsers", source.path, first, f"the table of parsers lacks {name}")


def rule_tests(tree):
    for source in tree.code():
        if not source.is_test or source.path.endswith(".h"):
            continue
        head = "\n".join(source.lines[:30])
        if not ("Goal" in head and "Method" in head):
            yield Violation("tests", source.path, 1, "a test's first comment says its Goal and its Method")
        for match in re.finditer(r"\bcmocka_unit_test\w*\(\s*(\w+)", source.code):
            line = source.line_of_code(match.start())
            in_macro = source.lines[line - 1].startswith("#") or source.lines[line - 2].endswith("\\")
            if "__" not in match.group(1) and not in_macro:
                yield Violation("tests", source.path, line,
                                f"{match.group(1)}: name a test subject__behaviour")


# ---- Documents -----------------------------------------------------------------

def slugs_of(text):
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def rule_links(tree):
    for source in tree.sources.values():
        if not source.path.endswith(".md"):
            continue
        text = re.sub(r"^```.*?^```|`[^`\n]*`", lambda match: "\n" * match.group(0).count("\n"),
                      source.text, flags=re.S | re.M)
        for match in re.finditer(r"\]\(([^)\s]+)\)", text):
            target, _, anchor = match.group(1).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            folder = os.path.dirname(source.path)
            path = os.path.normpath(os.path.join(folder, target)) if target else source.path
            line = text.count("\n", 0, match.start()) + 1
            if path != "." and not tree.exists(path):
                yield Violation("links", source.path, line, f"{target} does not exist; mend the link")
            elif anchor and path in tree.sources and anchor not in slugs_of(tree.sources[path].text):
                yield Violation("links", source.path, line, f"{path} has no heading #{anchor}; mend the link")


def rule_status(tree):
    header = tree.sources.get("include/esker/esker.h")
    document = tree.sources.get("docs/api.md")
    if header is None:
        return
    numbers = {}
    for match in re.finditer(r"^\s+X\((\w+), (-?\d+), \"([^\"]*)\"\)", header.text, re.M):
        name, number, sentence = match.groups()
        line = header.line_of(match.start(1))
        if not sentence:
            yield Violation("status", header.path, line, f"ESKER_{name} needs its sentence")
        if number in numbers:
            yield Violation("status", header.path, line, f"ESKER_{name} has the number of {numbers[number]}")
        numbers[number] = name
        if document and not re.search(rf"\b(ESKER_)?{name}\b", document.text):
            yield Violation("status", document.path, 1, f"ESKER_{name} is not described; add what it means")


RULES = [rule_floor, rule_length, rule_harness, rule_layout, rule_leftover, rule_spdx, rule_guard,
         rule_unique, rule_pairs, rule_banned, rule_twice, rule_fuzz, rule_parsers, rule_tests, rule_links,
         rule_status]


def check(tree):
    violations = [violation for rule in RULES for violation in rule(tree)]
    return sorted(violations, key=lambda found: (found.path, found.line, found.rule))


# ---- Self-test -----------------------------------------------------------------
SPDX = "/* SPDX-License-Identifier: MIT */\n"
CLEAN = {
    "include/esker/esker.h": SPDX + '#define LIST(X) \\\n    X(OK, 0, "done") \\\n    X(IO, -40, "broken")\n',
    "src/base/word.h": SPDX + "#ifndef ESKER_BASE_WORD_H\n#define ESKER_BASE_WORD_H\n"
                              "int word_len(int a);\n#endif\n",
    "src/base/word.c": SPDX + '#include "base/word.h"\n\nstatic int word_count;\n\n'
                              "static int\nword_help(int a)\n{\n    return a + word_count;\n}\n\n"
                              "int\nword_len(int a)\n{\n    return word_help(a);\n}\n",
    "src/sync/atomic.h": SPDX + "#ifndef ESKER_SYNC_ATOMIC_H\n#define ESKER_SYNC_ATOMIC_H\n"
                                "#define load_acquire(ptr) 0\n#define load_relaxed(ptr) 0\n"
                                "#define store_release(ptr, value) 0\n#endif\n",
    "src/sync/flag.c": SPDX + '#include "sync/atomic.h"\n\nvoid\nflag_set(void)\n{\n    /* pairs: FLAG */\n'
                              "    store_release(&f, 1);\n}\n\nint\nflag_get(void)\n{\n"
                              "    return load_acquire(&f); /* pairs: FLAG */\n}\n\nint\nflag_peek(void)\n{\n"
                              "    return load_relaxed(&f); /* relaxed: a guess is enough. */\n}\n",
    "src/format/thing.c": SPDX + '#include "base/word.h"\n\nint\nthing_decode(int a)\n{\n    return a;\n}\n',
    "src/format/thing_test.c": SPDX + '/* Goal: x. Method: y. */\n#include "format/sample.h"\n'
                                      "int t[] = {cmocka_unit_test(thing__works)};\n",
    "fuzz/fuzz_thing.c": "/* rooms: format */\n" + SPDX + "int\nfuzz(void)\n{\n"
                                                            "    return thing_decode(1);\n}\n",
    "src/format/sample.h": SPDX + "#ifndef ESKER_FORMAT_SAMPLE_H\n#define ESKER_FORMAT_SAMPLE_H\n"
                                  "#define SAMPLE() malloc(1)\n#endif\n",
    "stress/model/part.h": SPDX + "int y;\n" * 20,
    "docs/concurrency.md": "# Pairs\n\n| FLAG | a | b |\n",
    "docs/testing.md": "# Tests\n\n| parser | fuzz | back | damage |\n|---|---|---|---|\n"
                       "| `thing_decode` | `fuzz_thing` | `word_len` | `word_help` |\n",
    "docs/api.md": "# Calls\n\nOK, IO. See [pairs](concurrency.md#pairs).\n",
    "src/tools/chore.py": "# SPDX-License-Identifier: MIT\ndef chore():\n    return 1\n",
}
CLEAN_PATHS = ["fuzz/corpus/thing/one"]
# (rule, file, replace this, by that), or None and a whole new text; each must wake that rule and no other.
SEEDS = [
    ("floor", "src/base/word.c", "base/word.h", "sync/atomic.h"),
    ("floor", "src/format/thing.c", "base/word.h", "io/io.h"),
    ("floor", "src/base/word.c", "base/word.h", "word.h"),
    ("length", "src/base/long.c", None, SPDX + "int x;\n" * 800),
    ("length", "src/base/word.c", "    return word_help(a);\n", "    a++;\n" * 70),
    ("length", "src/tools/chore.py", "    return 1\n", "    print()\n" * 71),
    ("harness", "stress/model/model_word.c", None, SPDX + "int x;\n" * 100),
    ("harness", "stress/model/model_word.c", None, SPDX + '#include "part.h"\n' + "int x;\n" * 90),
    ("layout", "src/base/word.c", "    return word_help", "\treturn word_help"),
    ("layout", "docs/api.md", "# Calls\n", "# Calls \n"),
    ("layout", "src/base/word.c", "word_help(a);", "word_help(a" + " + 1" * 30 + ");"),
    ("layout", "docs/api.md", ").\n", ")."),
    ("leftover", "src/base/word.c", "    return word_help", "    /* TO" "DO */\n    return word_help"),
    ("spdx", "src/base/word.c", SPDX, "/* words */\n"),
    ("guard", "src/base/word.h", "ESKER_BASE_WORD_H", "ESKER_WORD_H"),
    ("unique", "src/format/word.c", None, SPDX),
    ("unique", "src/base/other.c", None, SPDX + "static void\nword_help(void)\n{\n}\n"),
    ("unique", "src/base/other.c", None, SPDX + "static long word_count = 1;\n"),
    ("pairs", "src/sync/flag.c", "    /* pairs: FLAG */\n", ""),
    ("pairs", "src/sync/flag.c", " /* relaxed: a guess is enough. */", ""),
    ("pairs", "src/sync/flag.c", "f); /* pairs: FLAG */", "f); /* pairs: OTHER */"),
    ("pairs", "src/sync/flag.c", "store_release(&f, 1)", "load_acquire(&f)"),
    ("pairs", "src/sync/flag.c", "pairs: FLAG */\n    store", "pairs: the flag */\n    store"),
    ("pairs", "docs/concurrency.md", "| FLAG |", "| BANNER |"),
    ("pairs", "docs/concurrency.md", "| FLAG | a | b |\n", "| FLAG | a | b |\n| STALE | a | b |\n"),
    ("banned", "src/base/word.c", "return word_help(a);", "return malloc(a);"),
    ("banned", "src/base/word.c", "return word_help(a);", "return open(a);"),
    ("banned", "src/base/word.c", "return word_help(a);", "return pthread_self();"),
    ("banned", "src/base/word.c", "return word_help(a);", "return atomic_load(&a);"),
    ("banned", "src/base/word.c", "return word_help(a);", "return ck_pr_load_int(&a);"),
    ("banned", "src/sync/flag.c", "flag_set(void)\n{\n", "flag_set(void)\n{\n    atomic_thread_fence(1);\n"),
    ("banned", "src/base/word.c", "word.h\"\n", "word.h\"\n#include <pthread.h>\n"),
    ("banned", "src/base/word.c", "word.h\"\n", "word.h\"\n#include <unistd.h>\n"),
    ("banned", "src/format/thing_test.c", "int t[]", "int n = sprintf(0);\nint t[]"),
    ("banned", "src/format/thing.c", "base/word.h", "format/sample.h"),
    ("banned", "src/tools/tool.c", None, SPDX + "int n = atoi(0);\n"),
    ("twice", "src/format/thing.c", "return a;", "return MIN((int)cursor_u8(&in), a);"),
    ("twice", "src/format/thing.c", "return a;", "return MAX(a, b++);"),
    ("fuzz", "fuzz/fuzz_thing.c", "thing_decode", "other_decode"),
    ("fuzz", "src/format/thing.c", "thing_decode", "thing_open"),
    ("fuzz", "fuzz/fuzz_more.c", None, "/* rooms: format */\n" + SPDX),
    ("fuzz", "fuzz/fuzz_thing.c", "/* rooms: format */\n", ""),
    ("parsers", "docs/testing.md", "`thing_decode`", "`other_call`"),
    ("parsers", "docs/testing.md", "| `word_help` |\n", "| |\n"),
    ("parsers", "docs/testing.md", "`fuzz_thing`", "`fuzz_other`"),
    ("tests", "src/format/thing_test.c", "Goal: x. ", ""),
    ("tests", "src/format/thing_test.c", "thing__works", "thing_works"),
    ("links", "docs/api.md", "(concurrency.md#pairs)", "(concurency.md)"),
    ("links", "docs/api.md", "(concurrency.md#pairs)", "(concurrency.md#trios)"),
    ("status", "docs/api.md", "OK, IO.", "OK."),
    ("status", "include/esker/esker.h", "X(IO, -40", "X(IO, 0"),
    ("status", "include/esker/esker.h", '"broken"', '""'),
]
# What looks like a violation and is none.
INNOCENT = [
    ("src/base/word.c", "return word_help(a);", "return mem->hooks.free(a) + x.open(a); /* malloc(1) */"),
    ("src/base/word.c", "return word_help(a);", 'return word_help("malloc(1)");'),
    ("src/format/thing.c", "return a;", "return MIN(thing_len(a), cursor_left(&in)) + cursor_u8(&in);"),
    ("src/io/disk.c", None, SPDX + "#include <unistd.h>\n\nint\ndisk_go(void)\n{\n    return fsync(1);\n}\n"),
    ("src/tools/tool.c", None, SPDX + '#include "db/db.h"\n\nint\ngo(void)\n{\n    return puts("");\n}\n'),
    ("src/base/word_test.c", None, SPDX + "/* Goal Method */\n#include <pthread.h>\nstatic int word_help;\n"),
    ("src/format/thing_test.c", "int t[]", "int n = atoi(0);\nint t[]"),
    ("src/base/whole_test.c", None, SPDX + '/* Goal, Method */\n#include "base/word.c"\n'),
    ("src/format/thing_test.c", "int t[]", "#define BOTH(name) cmocka_unit_test(name)\nint t[]"),
    ("src/sync/flag.c", "/* pairs: FLAG */\n", "/* pairs: FLAG,\n     * OTHER (both ends) */\n"),
]


def seeded(path, old, new):
    texts = dict(CLEAN)
    if old is not None:
        if old not in texts[path]:
            sys.exit(f"tidy self-test: the seed '{old}' does not fit {path}")
        new = texts[path].replace(old, new)
    texts[path] = new
    if "OTHER (both ends)" in new:
        texts["docs/concurrency.md"] += "| OTHER | a | a |\n"
    return check(Tree(texts, CLEAN_PATHS))


def self_test():
    faults = [f"the clean tree: {found}" for found in check(Tree(CLEAN, CLEAN_PATHS))]
    for path, old, new in INNOCENT:
        faults += [f"an innocent change: {found}" for found in seeded(path, old, new)]
    for rule, path, old, new in SEEDS:
        woken = {found.rule for found in seeded(path, old, new)}
        if woken != {rule}:
            faults.append(f"the seed for {rule} in {path} ({new.strip()[:50]!r}) woke {sorted(woken)}")
    unseeded = {rule.__name__[len("rule_"):] for rule in RULES} - {seed[0] for seed in SEEDS}
    faults += [f"rule {rule} has no seed" for rule in sorted(unseeded)]
    for fault in faults:
        print(f"tidy self-test: {fault}")
    print(f"tidy self-test: {len(SEEDS)} seeds, {len(INNOCENT)} innocents, {len(faults)} faults")
    return 1 if faults else 0


def main():
    arguments = sys.argv[1:]
    if arguments == ["--self-test"]:
        return self_test()
    started = time.monotonic()
    here = os.path.dirname(os.path.abspath(__file__))
    tree = read_tree(arguments[0] if arguments else os.path.dirname(os.path.dirname(here)))
    violations = check(tree)
    for violation in violations:
        print(violation)
    seconds = time.monotonic() - started
    print(f"tidy: {len(tree.sources)} files, {len(violations)} violations, {seconds:.2f} s")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
