#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints what is in an esker database, without the engine.

Every checksum is verified on the way. The formats are those of `esker dump`, so that `esker load`
brings the rows back; with --all each line also has the LSN and whether it is a put or a delete.

Exit codes: 0 done; 2 wrong command line; 3 something is damaged, unknown or in use, named on stderr.
"""
import argparse
import base64
import json
import os
import re
import sys

from esker_format.base import FormatError
from esker_format.database import Database, InUse
from esker_format.logs import DELETE, expiry_of

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\\\\\udc80-\udcff]")
_NAMED = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\"}


def _escape_one(match):
    char = match.group()
    if char in _NAMED:
        return _NAMED[char]
    raw = char.encode("utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in raw)


def tsv(raw):
    """Bytes as text: tabs, newlines, backslashes, control characters and what is not UTF-8 escaped."""
    return _CONTROL.sub(_escape_one, raw.decode("utf-8", "surrogateescape"))


def _json_field(name, raw):
    try:
        return {name: raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {name + "_b64": base64.b64encode(raw).decode("ascii")}


def line_tsv(key, value, version, _expires):
    """One line: key, tab, value; in front, with --all, the LSN and the kind."""
    start = "" if version is None else f"{version[0]}\t{version[1]}\t"
    return f"{start}{tsv(key)}\t{tsv(value)}\n"


def line_jsonl(key, value, version, expires):
    """One JSON object."""
    record = {} if version is None else {"lsn": version[0], "op": version[1]}
    record.update(_json_field("key", key))
    if version is None or version[1] == "put":
        record.update(_json_field("value", value))
    if expires is not None:
        record["expires_ms"] = expires
    return json.dumps(record, ensure_ascii=False).replace("\x7f", "\\u007f") + "\n"


def _lines(database, arguments):
    line = line_jsonl if arguments.format == "jsonl" else line_tsv
    if arguments.all:
        for key, minus_lsn, operation, value in database.versions():
            value, expires = expiry_of(operation, value)
            yield line(key, value, (-minus_lsn, "delete" if operation == DELETE else "put"), expires)
    else:
        for key, _, value, expires in database.rows():
            yield line(key, value, None, expires)


def _check(arguments):
    """Reads everything and lists all damage that does not hide the rest."""
    found, rows = [], 0
    with Database(arguments.directory, found.append) as database:
        for _ in database.versions():
            rows += 1
        if not found:
            database.check_levels()
        recovery, state = database.recovery, database.state
    for error in found:
        print(f"esker_dump: {error}", file=sys.stderr)
    for name, offset in recovery.corrected:
        print(f"esker_dump: {name}: offset {offset}: one flipped bit, corrected", file=sys.stderr)
    print(f"{rows} rows in {len(state.segments)} segments and {len(recovery.chain)} logs; the"
          f" log ends at LSN {recovery.end_lsn}; {len(found)} damaged places")
    return 3 if found else 0


def _dump(arguments):
    sys.stdout.reconfigure(encoding="utf-8", newline="")
    with Database(arguments.directory) as database:
        for line in _lines(database, arguments):
            sys.stdout.write(line)
    sys.stdout.flush()
    return 0


def main():
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("directory", metavar="DIR", help="the database")
    parser.add_argument("--format", choices=("tsv", "jsonl"), default="tsv")
    parser.add_argument("--all", action="store_true", help="every version of every key, the newest first")
    parser.add_argument("--check", action="store_true", help="print no rows; list everything that is damaged")
    arguments = parser.parse_args()
    try:
        return _check(arguments) if arguments.check else _dump(arguments)
    except (FormatError, InUse) as error:
        print(f"esker_dump: {error}", file=sys.stderr)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"esker_dump: {error.filename or arguments.directory}: {error.strerror}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
