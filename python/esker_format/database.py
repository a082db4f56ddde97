# SPDX-License-Identifier: MIT
"""A database directory as a whole (format.md, Reading a database)."""
import fcntl
import heapq
import os
import struct
import time

from .base import Directory, FormatError, corrupt
from .logs import DELETE, Recovery, expiry_of, machine_of
from .manifest import manifest_read
from .segments import Segment


class InUse(Exception):
    """A process has the database open."""


class Database:
    """A directory, opened for reading: CURRENT, the manifest and the logs are read and judged at
    once, segments as their rows are asked for. `on_damage` is told what is damaged in segments; without
    it the first damage is raised."""

    def __init__(self, path, on_damage=None):
        self.on_damage = on_damage
        self.directory = Directory(path)
        try:
            self.lock = self._share_lock()
            self.state = manifest_read(self.directory)
            self.recovery = Recovery(self.directory, self.state, machine_of(self.directory))
        except BaseException:
            self.directory.close()
            raise

    def close(self):
        """Gives the lock and the directory back."""
        if self.lock is not None:
            os.close(self.lock)
        self.directory.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _share_lock(self):
        """A read lock where a process that has the database open has a write lock."""
        if "LOCK" not in self.directory.names():
            return None
        fd, _ = self.directory.open("LOCK")
        flock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(fd, getattr(fcntl, "F_OFD_SETLK", 37), flock)
        except OSError as error:
            os.close(fd)
            if error.errno in (11, 13):
                raise InUse("a process has the database open") from error
            raise
        return fd

    def versions(self):
        """Yields (key, -LSN, op, value) of all rows: by key, the newest first."""
        runs = [iter(sorted(self.recovery.rows, key=lambda row: row[:2]))]
        runs += [self._segment_rows(meta) for _, meta in sorted(self.state.segments.items())]
        before = None
        for row in heapq.merge(*runs, key=lambda row: row[:2]):
            if row[:2] == before:
                raise corrupt(".", None, f"two rows of key {row[0]!r} at LSN {-row[1]:#x}")
            before = row[:2]
            yield row

    def rows(self):
        """Yields (key, LSN, value, expiry or None) of what is in the database at the end of its log, now."""
        last = None
        now_ms = time.time_ns() // 1000000
        for key, minus_lsn, operation, value in self.versions():
            if key != last:
                last = key
                put, expires = expiry_of(operation, value)
                if operation != DELETE and (expires is None or expires > now_ms):
                    yield key, -minus_lsn, put, expires

    def _segment_rows(self, meta):
        try:
            segment = Segment(self.directory, meta, self.state.uuid)
            try:
                yield from segment.rows(self.on_damage)
            finally:
                segment.close()
        except FormatError as error:
            if self.on_damage is None:
                raise
            self.on_damage(error)

    def check_levels(self):
        """What the page says a fast reader may rely on: raises if segments of one tier, or of one level
        from 1 on, overlap."""
        levels = {}
        for meta in self.state.segments.values():
            levels.setdefault((meta.level, meta.tier if meta.level == 0 else None), []).append(meta)
        for (level, _), metas in levels.items():
            spans = sorted((self._span(meta), meta.name) for meta in metas)
            for (one, name_one), (two, name_two) in zip(spans, spans[1:]):
                if one[1] >= two[0]:
                    raise corrupt(name_two, None, f"overlaps {name_one} in level {level}")

    def _span(self, meta):
        first = last = None
        for key, _, _, _ in self._segment_rows(meta):
            first = key if first is None else first
            last = key
        return first or b"", last or b""
