# SPDX-License-Identifier: MIT
"""Log files, and where the log ends (format.md, Log files and Recovery)."""
import ctypes
import os
from typing import NamedTuple

from .base import (
    KEY_BYTES_MAX,
    LSN_MAX,
    VALUE_BYTES_MAX,
    corrupt,
    read_at,
    u16,
    u32,
    u64,
    unsupported,
    up,
    xxh3,
)
from .frames import BATCH, NO_CLAIM, PAD, REOPEN, SEAL, SYNCMARK, FrameSpace, file_seed

PAGE = 4096
FRAMES_AT = 2 * PAGE
PUT, DELETE, PUT_EXPIRING = 1, 2, 5
EXPIRY_BYTES = 8
KINDS = (PUT, DELETE, PUT_EXPIRING)


def kind_fits(kind, value_bytes):
    """A row of this kind may have a value of so many bytes."""
    return kind == PUT or (value_bytes == 0 if kind == DELETE else value_bytes >= EXPIRY_BYTES)


def expiry_of(kind, value):
    """(What was put, milliseconds since 1970 at which it expires or None)."""
    if kind != PUT_EXPIRING:
        return value, None
    expiry = u64(value, 0)
    return value[EXPIRY_BYTES:], None if expiry == 2**64 - 1 else expiry


class Header(NamedTuple):
    """A log's header page."""

    uuid: bytes
    gen: int
    base_lsn: int
    cap_bytes: int
    prev_gen: int
    prev_end_lsn: int
    durable_lsn: int
    manifest_no: int
    edit_no: int
    boot_id: bytes
    mount_id: int


class Machine(NamedTuple):
    """This boot and this mount; zeros when they cannot be told."""

    boot_id: bytes
    mount_id: int


def machine_of(directory):
    """The boot of this machine and the mount that the directory is on."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = bytes.fromhex(file.read().strip().replace("-", ""))
    except (OSError, ValueError):
        boot_id = bytes(16)
    return Machine(boot_id, _mount_id(directory.fd))


def _mount_id(fd):
    """statx with STATX_MNT_ID_UNIQUE, which Python has no call for."""
    unique, at_empty_path = 0x4000, 0x1000
    try:
        statx = ctypes.CDLL(None, use_errno=True).statx
    except AttributeError:
        return 0
    buffer = ctypes.create_string_buffer(256)
    if statx(fd, b"", at_empty_path, unique, buffer) != 0 or not u32(buffer.raw, 0) & unique:
        return 0
    return u64(buffer.raw, 144)


def _page(data, name, at):
    """A valid header page, or None."""
    page = data[at : at + 128]
    if len(page) < 128 or page[0:8] != b"ESKERLOG" or xxh3(page[0:120]) != u64(page, 120):
        return None
    if u32(page, 8) != 1 or u32(page, 12) != 0:
        raise unsupported(name, at + 8, "an unknown format version or feature bit")
    header = Header(
        page[16:32], *(u64(page, i) for i in range(32, 96, 8)), page[96:112], u64(page, 112)
    )
    sound = (
        0 < header.gen <= LSN_MAX
        and header.prev_gen < header.gen
        and header.cap_bytes > 0
        and header.cap_bytes % PAGE == 0
        and header.base_lsn % 2 == 0
        and header.prev_end_lsn % 2 == 0
        and header.prev_end_lsn <= header.base_lsn
        and header.durable_lsn <= header.base_lsn
        and header.base_lsn + header.cap_bytes // 8 <= LSN_MAX
    )
    return header if sound else None


class Log:
    """One log file: its header, its bytes and, later, the part of it that counts."""

    def __init__(self, directory, number, uuid):
        self.name = f"log-{number:06}"
        fd, size = directory.open(self.name)
        try:
            pages = read_at(fd, self.name, 0, min(size, FRAMES_AT))
            self.header = self._choose(pages, uuid)
            if size < FRAMES_AT + self.header.cap_bytes:
                raise corrupt(self.name, size, "the file is shorter than its header says")
            self.data = read_at(fd, self.name, 0, FRAMES_AT + self.header.cap_bytes)
        finally:
            os.close(fd)
        self.seed = file_seed(uuid, self.header.gen)
        self.limit_lsn = self.capacity_lsn
        self.cut = False

    def _choose(self, pages, uuid):
        first, second = _page(pages, self.name, 0), _page(pages, self.name, PAGE)
        for page in (first, second):
            if page is not None and page.uuid != uuid:
                raise corrupt(self.name, 16, "the file is another database's")
        if first is None and second is None:
            raise corrupt(self.name, 0, "neither header page is valid")
        if first is not None and second is not None:
            if first.gen == second.gen and pages[0:128] != pages[PAGE : PAGE + 128]:
                raise corrupt(self.name, 0, "the header pages differ")
            return max(first, second, key=lambda header: header.gen)
        return first or second

    @property
    def base_lsn(self):
        """The LSN of its first frame."""
        return self.header.base_lsn

    @property
    def capacity_lsn(self):
        """The LSN behind its frame space."""
        return self.header.base_lsn + self.header.cap_bytes // 8

    def lsn_of(self, offset):
        """The LSN of a file offset."""
        return self.header.base_lsn + (offset - FRAMES_AT) // 8

    def offset_of(self, lsn):
        """The file offset of an LSN."""
        return FRAMES_AT + (lsn - self.header.base_lsn) * 8

    def space(self):
        """Its frame space up to its limit."""
        return FrameSpace(self.data, FRAMES_AT, self.offset_of(self.limit_lsn), self.seed, self.lsn_of)

    def entries(self, frame):
        """Yields (key, LSN, op, value) of a BATCH."""
        offset = 0
        while offset + 8 <= len(frame.body) and frame.body[offset] != 0:
            at = frame.offset + 16 + offset
            op, flags = frame.body[offset], frame.body[offset + 1]
            klen, vlen = u16(frame.body, offset + 2), u32(frame.body, offset + 4)
            if op not in KINDS or flags != 0:
                raise unsupported(self.name, at, f"op {op}, flags {flags}")
            if not 1 <= klen <= KEY_BYTES_MAX or vlen > VALUE_BYTES_MAX or not kind_fits(op, vlen):
                raise corrupt(self.name, at, "an entry's sizes are out of bounds")
            key_at = offset + 8
            end = key_at + klen + vlen
            if end > len(frame.body):
                raise corrupt(self.name, at, "an entry is longer than its batch")
            yield frame.body[key_at : key_at + klen], self.lsn_of(at), op, frame.body[key_at + klen : end]
            offset = up(end, 8)


def chain_of(directory, state):
    """The logs that count, in order, with their limits; and all listed logs."""
    logs = [Log(directory, number, state.uuid) for number in sorted(state.logs)]
    by_gen = {}
    for log in logs:
        if log.header.gen in by_gen:
            raise corrupt(log.name, 32, f"the same gen as {by_gen[log.header.gen].name}")
        by_gen[log.header.gen] = log
        if log.header.edit_no > state.edit_no:
            raise corrupt(f"manifest-{state.manifest_no:08x}", None, f"edit {log.header.edit_no}, "
                          f"durable when {log.name} was begun, is lost")
    if state.wal_min is None:
        if logs:
            raise corrupt(f"manifest-{state.manifest_no:08x}", None, "logs, but no WAL_MIN")
        return [], logs
    chain = [by_gen.get(state.wal_min[0])]
    if chain[0] is None:
        raise corrupt(f"manifest-{state.manifest_no:08x}", None, f"no log has gen {state.wal_min[0]}")
    while True:
        after = [log for log in logs if log.header.prev_gen == chain[-1].header.gen]
        if not after:
            break
        _limit(chain[-1], max(after, key=lambda log: log.header.gen))
        chain.append(max(after, key=lambda log: log.header.gen))
    newest = by_gen[max(by_gen)]
    if newest not in chain and newest.header.prev_gen != 0:
        raise corrupt(newest.name, 56, f"the log before it, gen {newest.header.prev_gen}, is lost")
    return chain, logs


def _limit(log, successor):
    end = successor.header.prev_end_lsn
    if not log.base_lsn <= end <= log.capacity_lsn:
        raise corrupt(successor.name, 64, f"prev_end_lsn is not within {log.name}")
    log.limit_lsn = end
    log.cut = end < log.capacity_lsn or successor.base_lsn > end


class Recovery:
    """The walk over the chain. Afterwards `rows` has every row from WAL_MIN.lsn on, `end_lsn` the
    end of the log, `corrected` the places of frames with one flipped bit."""

    def __init__(self, directory, state, machine):
        self.state, self.machine = state, machine
        self.rows = []
        self.end_lsn = 0
        self.corrected = []
        self.ended = False
        self.chain, self.logs = chain_of(directory, state)
        self.durable = max([state.durable_lsn, *(log.header.durable_lsn for log in self.logs)])
        walk_end = 0
        for index, log in enumerate(self.chain):
            walk_end = log.base_lsn
            frames = self._walk(log, index)
            if frames:
                walk_end = log.lsn_of(frames[-1].end)
            if frames or index == 0:
                self.end_lsn = walk_end
            if self.ended:
                break
        self._check_end(walk_end)

    def _walk(self, log, index):
        """One log: its frames. Sets `ended` when the log as a whole ended in it."""
        space = log.space()
        offset, frames, corrected = space.begin, [], False
        boot = Machine(log.header.boot_id, log.header.mount_id)
        while offset < space.end:
            frame = space.frame(offset)
            if frame is None and not corrected:
                frame = self._bad(space, offset, boot, index)
                corrected = frame is not None
            if frame is None:
                self.ended = True
                break
            self._check_frame(log, frame, frames[-1].type if frames else None)
            if frame.type == REOPEN:
                boot = Machine(frame.body[0:16], u64(frame.body, 16))
            elif frame.type == BATCH:
                self._take(log, frame)
            frames.append(frame)
            offset = frame.end
        return frames

    def _check_frame(self, log, frame, before):
        lsn = log.lsn_of(frame.offset)
        if frame.type not in (BATCH, PAD, SYNCMARK, SEAL, REOPEN) or frame.codec != 0:
            raise unsupported(log.name, frame.offset, f"frame of type {frame.type}, codec {frame.codec}")
        size = {SYNCMARK: 16, SEAL: 16, REOPEN: 32}.get(frame.type)
        if size is not None and len(frame.body) != size:
            raise corrupt(log.name, frame.offset, "a mark of the wrong size")
        if (frame.type == REOPEN) != (before == SEAL):
            raise corrupt(log.name, frame.offset, "REOPEN stands behind SEAL, and nothing else does")
        if frame.type == SYNCMARK:
            if u64(frame.body, 0) > lsn:
                raise corrupt(log.name, frame.offset, "a SYNCMARK that speaks of what comes later")
            self.durable = max(self.durable, u64(frame.body, 0))
        if frame.type == SEAL:
            if u64(frame.body, 0) != lsn:
                raise corrupt(log.name, frame.offset, "a SEAL that names another end")
            self.durable = max(self.durable, lsn)

    def _take(self, log, frame):
        least = self.state.wal_min[1]
        for key, lsn, operation, value in log.entries(frame):
            if lsn >= least:
                self.rows.append((key, -lsn, operation, value))

    def _bad(self, space, offset, boot, index):
        """A bad frame: returns it corrected, or None when the log ends there; raises on damage."""
        log = self.chain[index]
        lsn = log.lsn_of(offset)
        if self.durable > lsn:
            raise corrupt(log.name, offset, f"bad, although everything below LSN {self.durable} was synced")
        fixed = space.corrected(offset)
        if fixed is not None and log.cut and fixed.end == space.end:
            self.corrected.append((log.name, offset))
            return fixed
        if fixed is not None and fixed.type == REOPEN and len(fixed.body) == 32:
            boot = Machine(fixed.body[0:16], u64(fixed.body, 16))
        try:
            alone = self._search(lsn, offset, boot, index)
        except OverflowError:
            raise corrupt(log.name, offset, "a bad frame, and too much behind it looks like frames") from None
        if fixed is None or not alone:
            return None
        self.ended = True
        self.corrected.append((log.name, offset))
        return fixed

    def _search(self, lsn, offset, boot, index):
        """Raises if something behind the bad frame at `lsn` proves that it had been complete.
        True when nothing valid is there at all."""
        alone = True
        bad = self.chain[index]
        budget = 4 * sum(log.header.cap_bytes for log in self.chain[index:])
        for log in self.chain[index:]:
            space, begin = log.space(), offset + 16
            if log is not bad:
                begin, boot = FRAMES_AT, Machine(log.header.boot_id, log.header.mount_id)
            for frame in space.search(begin, budget):
                alone = False
                if frame.type == REOPEN and len(frame.body) == 32:
                    boot = Machine(frame.body[0:16], u64(frame.body, 16))
                if self._proves(frame, log.lsn_of(frame.offset), lsn, boot):
                    raise corrupt(bad.name, offset, f"bad, although {log.name} proves at offset"
                                  f" {frame.offset} that it had been complete")
            budget -= space.hashed
        return alone

    def _proves(self, frame, where, lsn, boot):
        if frame.type == SEAL or (frame.type == SYNCMARK and u64(frame.body, 0) > lsn):
            return True
        same = boot.mount_id != 0 and boot == self.machine
        return same and frame.back != NO_CLAIM and where - 2 * frame.back > lsn

    def _check_end(self, walk_end):
        least = self.state.wal_min[1] if self.state.wal_min else 0
        for what, lsn in (("rows below it are in segments", least), ("it was synced", self.durable)):
            if self.chain and lsn > walk_end:
                raise corrupt(
                    self.chain[-1].name, None, f"the log ends at LSN {walk_end}, below {lsn}: {what}"
                )
