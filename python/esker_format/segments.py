# SPDX-License-Identifier: MIT
"""Segments and their blocks (format.md, Segments and Blocks)."""
import os
import struct
from typing import NamedTuple

from .base import (
    KEY_BYTES_MAX,
    MASK64,
    VALUE_BYTES_MAX,
    corrupt,
    mix,
    read_at,
    u16,
    u32,
    u64,
    unpack_lz4,
    unpack_zstd,
    unsupported,
    up,
    xxh3,
)
from .logs import DELETE, KINDS, PUT, kind_fits

DATA, INDEX, FILTER, PROPERTIES = 1, 2, 3, 4
HEADER_BYTES, FOOTER_BYTES, TRAILER_BYTES = 64, 192, 16
BLOCK_HEADER_BYTES = 32
PLANE_ROWS = 256
ROWS_MAX = 4096
ONE_ROW_BYTES_MAX = VALUE_BYTES_MAX + 65536
BLOCK_BYTES_MAX = 64 << 20
INDEX_BYTES_MAX = 1 << 30
_ODD = (0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31)


class Place(NamedTuple):
    """Where a block is stored."""

    offset: int
    stored_len: int
    raw_len: int
    rows: int = 0

    @property
    def end(self):
        """The offset behind it."""
        return self.offset + self.stored_len


def rows_from_planes(raw):
    """Undoes what was done to the pfx column before the block was compressed."""
    if len(raw) < BLOCK_HEADER_BYTES or raw[1] != 2:
        return raw
    rows = u16(raw, 2)
    start = up(BLOCK_HEADER_BYTES + u16(raw, 8), 8) + up(rows, 32)
    out = bytearray(raw)
    for first in range(0, rows, PLANE_ROWS):
        count = min(PLANE_ROWS, rows - first)
        at = start + 8 * first
        for i in range(8):
            plane = raw[at + i * count : at + (i + 1) * count]
            out[at + i : at + i + 8 * len(plane) : 8] = plane
    return bytes(out[: len(raw)])


class Block:
    """A columnar block, validated whole. `rows` is a list of (key, LSN, op, value)."""

    def __init__(self, raw, kind, name, at):
        self.raw, self.name, self.at = raw, name, at
        if len(raw) < BLOCK_HEADER_BYTES:
            raise corrupt(name, at, "a block shorter than its header")
        if raw[0] != kind:
            raise corrupt(name, at, f"a block of kind {raw[0]} where {kind} belongs")
        if raw[1] != 2 or raw[10] & ~3 or u32(raw, 20):
            raise unsupported(name, at, "an unknown block version, flag or reserved field")
        self.count, self.flags, self.lsn_base = u16(raw, 2), raw[10], u64(raw, 24)
        limit = ONE_ROW_BYTES_MAX if self.count == 1 else BLOCK_BYTES_MAX
        if not 1 <= self.count <= ROWS_MAX or u32(raw, 4) != len(raw) or len(raw) > limit:
            raise corrupt(name, at, "a block's sizes make no sense")
        if raw[11] > 8 or raw[12] not in (0, 2, 4) or raw[13] not in (0, 2, 4):
            raise corrupt(name, at, "a block's columns have impossible widths")
        if (raw[12] and u16(raw, 14)) or (raw[13] and u32(raw, 16)) or (raw[11] == 8 and self.lsn_base):
            raise corrupt(name, at, "a block says one thing twice")
        self.prefix = raw[BLOCK_HEADER_BYTES : BLOCK_HEADER_BYTES + u16(raw, 8)]
        self._place_columns()
        self.rows = self._rows()

    def _damage(self, what):
        return corrupt(self.name, self.at, f"a block {what}")

    def _place_columns(self):
        """Finds the columns, each behind the one before, and checks that they fill the block."""
        raw, count = self.raw, self.count
        self.end = BLOCK_HEADER_BYTES + len(self.prefix)
        self.at_fp = self._column("fp", count, 32)
        self.at_pfx = self._column("pfx", 8 * count)
        self.at_plen = self._column("plen", count) if self.flags & 1 else 0
        self.koff = self._offsets("koff", raw[12], u16(raw, 14))
        self.voff = self._offsets("voff", raw[13], u32(raw, 16))
        self.lsns = [self.lsn_base + delta for delta in self._deltas(raw[11])]
        self.at_type = self._column("type", count) if self.flags & 2 else 0
        self.at_tails = self._column("tails", self.koff[count], 1)
        self.at_values = self._column("values", self.voff[count], 1)
        if self.end != len(raw):
            raise self._damage("that its values do not end")
        if max(self.lsns) > MASK64:
            raise self._damage("whose LSNs wrap")

    def _column(self, what, length, multiple=8):
        """Takes a column and the zeros on both sides of it. Returns where it starts."""
        start = up(self.end, 8)
        end = start + (length + multiple - 1) // multiple * multiple
        if end > len(self.raw) or any(self.raw[self.end : start]) or any(self.raw[start + length : end]):
            raise self._damage(f"with a bad {what}")
        self.end = end
        return start

    def _offsets(self, what, width, each):
        """Where pieces start and the last one ends: a column, or equal lengths."""
        if not width:
            return [each * i for i in range(self.count + 1)]
        start = self._column(what, width * (self.count + 1))
        offsets = struct.unpack_from(f"<{self.count + 1}{'H' if width == 2 else 'I'}", self.raw, start)
        if offsets[0] or sorted(offsets) != list(offsets):
            raise self._damage(f"whose {what} does not ascend from 0")
        return offsets

    def _deltas(self, width):
        if not width:
            return [0] * self.count
        start = self._column("LSNs", width * (self.count - 1) + 8)
        if any(self.raw[start + width * self.count : self.end]):
            raise self._damage("with a bad gap behind its LSNs")
        pieces = (self.raw[start + width * i :][:width] for i in range(self.count))
        return [int.from_bytes(piece, "little") for piece in pieces]

    def _rows(self):
        raw, rows, last = self.raw, [], None
        for i in range(self.count):
            pfx = u64(raw, self.at_pfx + 8 * i)
            plen = raw[self.at_plen + i] if self.at_plen else 8
            tail = raw[self.at_tails + self.koff[i] : self.at_tails + self.koff[i + 1]]
            first = pfx.to_bytes(8, "big")
            if plen > 8 or (tail and plen != 8) or any(first[plen:]):
                raise self._damage(f"whose row {i} has a bad key")
            mixed = mix(pfx, plen)
            if raw[self.at_fp + i] != (xxh3(tail, mixed) if tail else mixed) >> 56:
                raise self._damage(f"whose row {i} has a bad hash byte")
            key = self.prefix + first[:plen] + tail
            value = raw[self.at_values + self.voff[i] : self.at_values + self.voff[i + 1]]
            kind = raw[self.at_type + i] if self.at_type else PUT
            if kind not in KINDS:
                raise unsupported(self.name, self.at, f"row type {kind}")
            if not 1 <= len(key) <= KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
                raise self._damage(f"whose row {i} is out of bounds")
            if not kind_fits(kind, len(value)):
                raise self._damage(f"whose row {i} is of a kind that its value does not fit")
            order = (key, -self.lsns[i])
            if last is not None and order <= last:
                raise self._damage(f"whose row {i} is out of order")
            last = order
            rows.append((key, self.lsns[i], kind, value))
        return rows


class Segment:
    """One segment. Reading its rows validates every byte of it."""

    def __init__(self, directory, meta, uuid):
        self.meta, self.name = meta, meta.name
        self.fd, size = directory.open(self.name)
        try:
            if size != meta.size:
                raise corrupt(self.name, min(size, meta.size), f"{size} bytes instead of {meta.size}")
            if size < HEADER_BYTES + FOOTER_BYTES:
                raise corrupt(self.name, 0, "too short for a segment")
            self._header(read_at(self.fd, self.name, 0, HEADER_BYTES), uuid)
            self._footer(read_at(self.fd, self.name, size - FOOTER_BYTES, FOOTER_BYTES), uuid)
            self.filter = b"".join(self._load(self._filter_page(i), FILTER) for i in range(self.filter_pages))
            self.properties = self._properties()
            self.blocks = self._index()
        except BaseException:
            os.close(self.fd)
            raise

    def close(self):
        """Ends it."""
        os.close(self.fd)

    def _header(self, head, uuid):
        if head[0:8] != b"ESKERSEG":
            raise corrupt(self.name, 0, "the magic is wrong")
        if xxh3(head[0:56]) != u64(head, 56):
            raise corrupt(self.name, 56, "the header's checksum fails")
        if u32(head, 8) != 3 or u32(head, 12) != 0:
            raise unsupported(self.name, 8, "an unknown format version or feature bit")
        if head[16:32] != uuid or u64(head, 32) != self.meta.id:
            raise corrupt(self.name, 16, "the file is another database's or another segment")
        if any(head[40:56]):
            raise corrupt(self.name, 40, "bytes that must be zero are not")

    def _footer(self, foot, uuid):
        at = self.meta.size - FOOTER_BYTES
        if foot[184:192] != b"ESKEREND":
            raise corrupt(self.name, at + 184, "the footer's magic is wrong")
        if xxh3(foot[0:176], self.meta.id) != u64(foot, 176):
            raise corrupt(self.name, at + 176, "the footer's checksum fails")
        if foot[144:160] != uuid or u64(foot, 160) != self.meta.id:
            raise corrupt(self.name, at + 144, "the footer is another segment's")
        if u32(foot, 168) != 3 or u32(foot, 172) or u32(foot, 116) > 1 or any(foot[48:80]):
            raise unsupported(self.name, at, "an unknown version, feature, filter or place")
        self.root, self.filter_place, self.props_place = (
            Place(*struct.unpack_from("<QII", foot, i)) for i in (0, 16, 32)
        )
        self.rows_count, self.tombstones, self.min_lsn, self.max_lsn = struct.unpack_from("<4Q", foot, 80)
        self.filter_pages, _, self.data_blocks, self.depth = struct.unpack_from("<4I", foot, 112)
        self.data_raw, self.data_end = struct.unpack_from("<2Q", foot, 128)
        meta, filtered = self.meta, u32(foot, 116) == 1
        if (self.rows_count, self.tombstones, self.min_lsn, self.max_lsn) != meta[2:6]:
            raise corrupt(self.name, at + 80, "the footer does not say what the manifest says")
        if not (
            HEADER_BYTES <= self.data_end <= at
            and self.depth in (1, 2)
            and 1 <= self.data_blocks <= (self.data_end - HEADER_BYTES) // 24
            and self.data_blocks <= self.rows_count <= ROWS_MAX * self.data_blocks
            and self.root.offset != 0
            and filtered == (self.filter_place != (0, 0, 0, 0)) == (self.filter_pages > 0)
            and self.filter_place.raw_len == 4096 * self.filter_pages
            and self.filter_place.stored_len == 4112 * self.filter_pages
        ):
            raise corrupt(self.name, at, "the footer makes no sense")
        self._check_places(at)

    def _check_places(self, footer_at):
        end = None
        for place in (self.root, self.filter_place, self.props_place):
            if place == (0, 0, 0, 0):
                continue
            inside = place.stored_len > TRAILER_BYTES and self.data_end <= place.offset
            if not inside or (end is not None and place.offset != end):
                raise corrupt(self.name, footer_at, "the footer's places do not follow one another")
            end = place.end
        if end != footer_at or self.root.end - self.data_end > INDEX_BYTES_MAX:
            raise corrupt(self.name, footer_at, "the footer's places do not end at it")

    def _load(self, place, kind):
        """The raw bytes of a stored block."""
        stored = read_at(self.fd, self.name, place.offset, place.stored_len)
        payload, trailer = stored[:-TRAILER_BYTES], stored[-TRAILER_BYTES:]
        seed = mix(mix(self.meta.id, place.offset), u64(trailer, 0))
        if xxh3(payload, seed) != u64(trailer, 8):
            raise corrupt(self.name, place.offset, "a block's checksum fails")
        codec, raw_len = trailer[0], u32(trailer, 4)
        if codec > 2 or u16(trailer, 2) != 0:
            raise unsupported(self.name, place.end - TRAILER_BYTES, f"an unknown codec {codec}")
        if trailer[1] != kind or raw_len != place.raw_len:
            raise corrupt(self.name, place.end - TRAILER_BYTES, "a block that is not what points to it says")
        if codec == 0:
            if raw_len != len(payload) or raw_len > ONE_ROW_BYTES_MAX:
                raise corrupt(self.name, place.offset, "a block's length is not its raw length")
            return payload
        if not 1 <= raw_len <= min(64 << 20, max(1 << 20, 256 * len(payload))):
            raise corrupt(self.name, place.offset, "a block's raw length is out of bounds")
        raw = (unpack_lz4 if codec == 1 else unpack_zstd)(payload, raw_len)
        if raw is None:
            raise corrupt(self.name, place.offset, "a block does not unpack to its raw length")
        return rows_from_planes(raw) if kind in (DATA, INDEX) else raw

    def _filter_page(self, i):
        return Place(self.filter_place.offset + 4112 * i, 4112, 4096)

    def _handles(self, block):
        for key, lsn, kind, value in block.rows:
            if kind != PUT or len(value) != 24 or u32(value, 20) != 0:
                raise corrupt(self.name, block.at, "an index row that is not a handle")
            offset, stored_len, rows, raw_len = struct.unpack_from("<QIII", value)
            if not 1 <= rows <= ROWS_MAX or stored_len <= TRAILER_BYTES:
                raise corrupt(self.name, block.at, "a handle that makes no sense")
            yield key, lsn, Place(offset, stored_len, raw_len, rows)

    def _consecutive(self, rows, begin, end, at):
        for _, _, place in rows:
            if place.offset != begin:
                raise corrupt(self.name, at, "handles that do not follow one another")
            begin = place.end
        if begin != end:
            raise corrupt(self.name, at, "handles that do not end where they must")

    def _index(self):
        """The rows of the lowest index: (separator, LSN, Place of a data block)."""
        root_at = self.root.offset
        rows = list(self._handles(Block(self._load(self.root, INDEX), INDEX, self.name, root_at)))
        if self.depth == 2:
            self._consecutive(rows, self.data_end, root_at, root_at)
            rows = [row for upper in rows for row in self._index_block(upper)]
        elif root_at != self.data_end:
            raise corrupt(self.name, root_at, "something stands between the data and the root")
        self._consecutive(rows, HEADER_BYTES, self.data_end, root_at)
        orders = [(key, -lsn) for key, lsn, _ in rows]
        if any(one >= two for one, two in zip(orders, orders[1:])):
            raise corrupt(self.name, root_at, "separators that do not ascend")
        total = (len(rows), sum(row[2].rows for row in rows), sum(row[2].raw_len for row in rows))
        if total != (self.data_blocks, self.rows_count, self.data_raw):
            raise corrupt(self.name, root_at, "the index does not add up to what the footer says")
        return rows

    def _index_block(self, upper):
        key, lsn, place = upper
        block = Block(self._load(place, INDEX), INDEX, self.name, place.offset)
        rows = list(self._handles(block))
        if len(rows) != place.rows or rows[-1][:2] != (key, lsn):
            raise corrupt(self.name, place.offset, "an index block that the root says otherwise of")
        return rows

    def _properties(self):
        properties, offset = {}, 0
        raw = self._load(self.props_place, PROPERTIES) if self.props_place.offset else b""
        while offset + 8 <= len(raw):
            tag, length = u16(raw, offset), u32(raw, offset + 4)
            if tag == 0 or offset + 8 + length > len(raw):
                raise corrupt(self.name, self.props_place.offset, "a property is longer than its block")
            properties[tag] = raw[offset + 8 : offset + 8 + length]
            offset += up(8 + length, 8)
        return properties

    def _in_filter(self, key):
        digest = xxh3(key, 0x657369746C696631)
        high, low = digest >> 32, digest & 0xFFFFFFFF
        line = 4096 * (high * self.filter_pages >> 32) + 32 * (high & 127)
        words = struct.unpack_from("<8I", self.filter, line)
        return all(word >> ((low * odd & 0xFFFFFFFF) >> 27) & 1 for word, odd in zip(words, _ODD))

    def _block_rows(self, i):
        """The rows of data block i, checked against what the index says of it."""
        key, lsn, place = self.blocks[i]
        rows = Block(self._load(place, DATA), DATA, self.name, place.offset).rows
        if len(rows) != place.rows:
            raise corrupt(self.name, place.offset, "a block with another number of rows than its handle")
        bound = (key, -lsn) if lsn else (key, 0)
        if (rows[-1][0], -rows[-1][1]) > bound or (lsn and (rows[-1][0], rows[-1][1]) != (key, lsn)):
            raise corrupt(self.name, place.offset, "a block that goes beyond its separator")
        if i > 0:
            key, lsn, _ = self.blocks[i - 1]
            if rows[0][0] < key or (rows[0][0] == key and not (lsn and rows[0][1] < lsn)):
                raise corrupt(self.name, place.offset, "a block that begins before its place")
        for row in rows:
            self._check_row(row, place)
        return rows

    def _check_row(self, row, place):
        key, lsn, meta = row[0], row[1], self.meta
        if not meta.min_lsn <= lsn <= meta.max_lsn:
            raise corrupt(self.name, place.offset, "a row outside the segment's LSNs")
        if key < meta.min_key or (meta.max_key and key > meta.max_key):
            raise corrupt(self.name, place.offset, "a row outside the segment's keys")
        if self.filter and not self._in_filter(key):
            raise corrupt(self.name, place.offset, "a key that the filter does not know")

    def rows(self, on_damage=None):
        """Yields (key, -LSN, op, value) in order. With on_damage a damaged block is told to it and
        passed over; without, FormatError ends the walk."""
        tombstones = whole = 0
        lsns = set()
        for i in range(len(self.blocks)):
            try:
                rows = self._block_rows(i)
            except Exception as error:
                if on_damage is None or not hasattr(error, "kind"):
                    raise
                on_damage(error)
                continue
            whole += 1
            for key, lsn, kind, value in rows:
                tombstones += kind == DELETE
                lsns = {min(lsns | {lsn}), max(lsns | {lsn})}
                yield key, -lsn, kind, value
        if whole < len(self.blocks):
            return
        if tombstones != self.tombstones or lsns != {self.min_lsn, self.max_lsn}:
            raise corrupt(self.name, self.meta.size - FOOTER_BYTES, "the footer disagrees with the rows")
