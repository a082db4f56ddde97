# SPDX-License-Identifier: MIT
"""CURRENT, the manifest and its edits (format.md, CURRENT and the manifest)."""
from typing import NamedTuple

from .base import LSN_MAX, corrupt, u16, u32, u64, unsupported, up, xxh3
from .frames import EDIT, FrameSpace, file_seed

MANIFEST_BYTES_MAX = 1 << 32
LEVELS = 7
BOUND_BYTES_MAX = 256

EDIT_NO, PREV_HASH, NEXT_FILE_ID, WAL_MIN, DURABLE_LSN = 1, 2, 3, 4, 5
ADD_SEGMENT, DROP_SEGMENT, ADD_LOG, DROP_LOG, SNAPSHOT = 6, 7, 8, 9, 10
_ONCE = {EDIT_NO, PREV_HASH, NEXT_FILE_ID, WAL_MIN, DURABLE_LSN, SNAPSHOT}
_NUMBER = {EDIT_NO, NEXT_FILE_ID, DURABLE_LSN, DROP_SEGMENT, ADD_LOG, DROP_LOG}
SEGMENT_EXPIRY, SEGMENT_TIER = 0x8001, 0x8002
_OPTIONAL = 0x8000


class SegmentMeta(NamedTuple):
    """What ADD_SEGMENT says of a segment. An empty max_key is no upper bound."""

    id: int
    size: int
    rows: int
    tombstones: int
    min_lsn: int
    max_lsn: int
    level: int
    min_key: bytes
    max_key: bytes
    tier: tuple  # (LSN, id), in level 0

    @property
    def name(self):
        """The file's name."""
        return f"{self.id:016x}.seg"


class State:
    """What the edits of a manifest come to."""

    def __init__(self):
        self.segments = {}  # id: SegmentMeta
        self.logs = set()  # file numbers
        self.next_file_id = 0
        self.wal_min = None  # (gen, lsn)
        self.durable_lsn = 0
        self.edit_no = 0
        self.manifest_no = 0
        self.uuid = b""
        self.torn_at = None  # the offset of a torn edit, if the manifest ends with one


def header_parse(data, name, magic):
    """The 64 bytes that CURRENT and manifests begin with: (uuid, number)."""
    if len(data) < 64:
        raise corrupt(name, len(data), "the file is shorter than its header")
    if data[0:8] != magic:
        raise corrupt(name, 0, "the magic is wrong")
    if xxh3(data[0:56]) != u64(data, 56):
        raise corrupt(name, 56, "the header's checksum fails")
    if u32(data, 8) != 2 or u32(data, 12) != 0:
        raise unsupported(name, 8, "an unknown format version or feature bit")
    if any(data[40:56]):
        raise corrupt(name, 40, "bytes that must be zero are not")
    number = u64(data, 32)
    if not 1 <= number < 1 << 32:
        raise corrupt(name, 32, f"manifest number {number}")
    return data[16:32], number


def _fields(body, name, at):
    """Yields (tag, value, offset in the file) of an edit's body, which starts at `at`."""
    offset = 0
    while offset + 8 <= len(body) and u16(body, offset) != 0:
        tag, length = u16(body, offset), u32(body, offset + 4)
        if u16(body, offset + 2) != 0:
            raise corrupt(name, at + offset + 2, "a field's zero is not zero")
        end = up(offset + 8 + length, 8)
        if end > len(body):
            raise corrupt(name, at + offset + 4, "a field is longer than its edit")
        if any(body[offset + 8 + length : end]):
            raise corrupt(name, at + offset + 8 + length, "padding is not zero")
        yield tag, body[offset + 8 : offset + 8 + length], at + offset
        offset = end
    if len(body) - offset > 8 or any(body[offset:]):
        raise corrupt(name, at + offset, "what follows the last field is not zero")


def _number(value, name, at):
    if len(value) != 8:
        raise corrupt(name, at, f"a number of {len(value)} bytes")
    number = u64(value, 0)
    if not 1 <= number <= LSN_MAX:
        raise corrupt(name, at, f"the number {number} is out of bounds")
    return number


def _segment(value, name, at):
    if len(value) < 64:
        raise corrupt(name, at, "ADD_SEGMENT is too short")
    numbers = [u64(value, i) for i in range(0, 48, 8)]
    ident, size, rows, tombstones, min_lsn, max_lsn = numbers
    level, flags = u32(value, 48), u32(value, 52)
    klen_min, klen_max = u16(value, 56), u16(value, 58)
    if flags != 0:
        raise unsupported(name, at, "unknown segment flags")
    if (
        max(numbers) > LSN_MAX
        or min(ident, size, rows) == 0
        or tombstones > rows
        or max_lsn < min_lsn
        or level >= LEVELS
        or klen_min > BOUND_BYTES_MAX
        or klen_max > BOUND_BYTES_MAX
        or u32(value, 60) != 0
        or len(value) != 64 + klen_min + klen_max
    ):
        raise corrupt(name, at, "ADD_SEGMENT makes no sense")
    min_key, max_key = value[64 : 64 + klen_min], value[64 + klen_min :]
    if max_key and max_key < min_key:
        raise corrupt(name, at, "the max key is below the min key")
    tier = (max_lsn, ident)
    return SegmentMeta(ident, size, rows, tombstones, min_lsn, max_lsn, level, min_key, max_key, tier)


def _tier(value, meta, name, at):
    """The segment with its tier."""
    if meta is None or meta.level != 0 or len(value) != 16:
        raise corrupt(name, at, "SEGMENT_TIER makes no sense here")
    tier = u64(value, 0), u64(value, 8)
    if max(tier) > LSN_MAX or tier[0] < meta.max_lsn or tier[1] == 0:
        raise corrupt(name, at, "SEGMENT_TIER makes no sense")
    return meta._replace(tier=tier)


class Edit:
    """One edit: what it says once, and lists of what it may say often."""

    def __init__(self, body, name, at):
        self.once = {}
        self.first_tag = None
        self.many = {ADD_SEGMENT: [], DROP_SEGMENT: [], ADD_LOG: [], DROP_LOG: []}
        before = []
        for tag, value, offset in _fields(body, name, at):
            self.first_tag = self.first_tag or tag
            if tag in self.once:
                raise corrupt(name, offset, f"tag {tag} stands twice")
            if tag == SEGMENT_TIER:
                added = self.many[ADD_SEGMENT]
                behind = before[-1:] == [ADD_SEGMENT] or before[-2:] == [ADD_SEGMENT, SEGMENT_EXPIRY]
                meta = _tier(value, added[-1] if behind else None, name, offset)
                added[-1] = meta
            else:
                self._take(tag, value, name, offset)
            before.append(tag)
        for tag in (EDIT_NO, PREV_HASH):
            if tag not in self.once:
                raise corrupt(name, at, f"tag {tag} is missing")

    def _take(self, tag, value, name, offset):
        if tag == ADD_SEGMENT:
            parsed = _segment(value, name, offset)
        elif tag == PREV_HASH:
            if len(value) != 8:
                raise corrupt(name, offset, "PREV_HASH is not 8 bytes")
            parsed = u64(value, 0)
        elif tag == WAL_MIN:
            if len(value) != 16:
                raise corrupt(name, offset, "WAL_MIN is not 16 bytes")
            parsed = u64(value, 0), u64(value, 8)
            if parsed[0] == 0 or max(parsed) > LSN_MAX:
                raise corrupt(name, offset, "WAL_MIN is out of bounds")
        elif tag == SNAPSHOT:
            if value:
                raise corrupt(name, offset, "SNAPSHOT is not empty")
            parsed = True
        elif tag in _NUMBER:
            parsed = _number(value, name, offset)
        elif tag & _OPTIONAL:
            return
        else:
            raise unsupported(name, offset, f"unknown edit tag {tag}")
        if tag in _ONCE:
            self.once[tag] = parsed
        else:
            self.many[tag].append(parsed)


def _apply(state, edit, name, at):
    for ident in edit.many[DROP_SEGMENT]:
        if state.segments.pop(ident, None) is None:
            raise corrupt(name, at, f"segment {ident} is dropped and is not there")
    for meta in edit.many[ADD_SEGMENT]:
        if meta.id in state.segments:
            raise corrupt(name, at, f"segment {meta.id} is added twice")
        state.segments[meta.id] = meta
    for number in edit.many[ADD_LOG]:
        if number in state.logs:
            raise corrupt(name, at, f"log {number} is added twice")
        state.logs.add(number)
    for number in edit.many[DROP_LOG]:
        if number not in state.logs:
            raise corrupt(name, at, f"log {number} is dropped and is not there")
        state.logs.remove(number)
    state.next_file_id = max(state.next_file_id, edit.once.get(NEXT_FILE_ID, 0))
    state.durable_lsn = max(state.durable_lsn, edit.once.get(DURABLE_LSN, 0))
    state.wal_min = edit.once.get(WAL_MIN, state.wal_min)
    if max([*state.segments, *state.logs], default=0) >= state.next_file_id:
        raise corrupt(name, at, "a file number at or above NEXT_FILE_ID")


def _end_or_damage(space, name, offset, first):
    """A bad frame at offset: raises unless it may be a torn edit."""
    if first:
        raise corrupt(name, offset, "the first edit is bad")
    try:
        behind = next(space.search(offset + 16, 4 * len(space.data)), None)
    except OverflowError:
        raise corrupt(name, offset, "a bad edit, and too much behind it looks like edits") from None
    if behind is not None:
        raise corrupt(name, offset, f"a bad edit with a valid one behind it at {behind.offset}")


def manifest_read(directory):
    """Reads CURRENT and the manifest that it names. Returns a State."""
    current = directory.read("CURRENT", 4096)
    if len(current) != 64:
        raise corrupt("CURRENT", min(len(current), 64), f"{len(current)} bytes instead of 64")
    state = State()
    state.uuid, state.manifest_no = header_parse(current, "CURRENT", b"ESKERCUR")
    name = f"manifest-{state.manifest_no:08x}"
    data = directory.read(name, MANIFEST_BYTES_MAX)
    uuid, number = header_parse(data, name, b"ESKERMAN")
    if uuid != state.uuid or number != state.manifest_no:
        raise corrupt(name, 16, "not the manifest that CURRENT names")
    space = FrameSpace(data, 64, len(data), file_seed(uuid, number), lambda offset: offset)
    offset, before = 64, None
    while offset < len(data) or before is None:
        frame = space.frame(offset)
        if frame is None:
            _end_or_damage(space, name, offset, before is None)
            state.torn_at = offset
            break
        if frame.type != EDIT or frame.codec != 0:
            raise unsupported(name, offset, f"frame of type {frame.type}, codec {frame.codec}")
        if frame.back != 0xFFFF:
            raise corrupt(name, offset + 6, "an edit with a claim")
        edit = Edit(frame.body, name, offset + 16)
        _check_place(edit, state, data, before, name, offset)
        _apply(state, edit, name, offset)
        state.edit_no = edit.once[EDIT_NO]
        before, offset = frame, frame.end
    return state


def _check_place(edit, state, data, before, name, offset):
    """That an edit continues the one before."""
    want = 0 if before is None else xxh3(data[before.offset : before.end])
    if edit.once[PREV_HASH] != want:
        raise corrupt(name, offset, "PREV_HASH is not the hash of the edit before")
    if before is not None and edit.once[EDIT_NO] != state.edit_no + 1:
        raise corrupt(name, offset, "EDIT_NO does not follow the one before")
    if (SNAPSHOT in edit.once) != (before is None) or (before is None and edit.first_tag != SNAPSHOT):
        raise corrupt(name, offset, "SNAPSHOT stands where it may not, or not where it must")
