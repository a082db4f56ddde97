# SPDX-License-Identifier: MIT
"""Frames: the unit of logs and manifests (format.md, Frames)."""
import struct
from typing import NamedTuple

from .base import MASK64, mix, u64, xxh3

GRANULE = 16
BATCH, PAD, SYNCMARK, SEAL, REOPEN, EDIT = 1, 2, 3, 8, 9, 16
NO_CLAIM = 0xFFFF
FIXABLE_BYTES_MAX = 4096
HEAD_CHECK = 0xFFFFFF


class Frame(NamedTuple):
    """A valid frame. `offset` is where it starts in the bytes it was found in."""

    offset: int
    length: int
    type: int
    codec: int
    back: int
    body: bytes

    @property
    def end(self):
        """The offset behind it."""
        return self.offset + self.length


def file_seed(uuid, number):
    """What makes a file's checksums its own."""
    return mix(u64(uuid, 0) ^ u64(uuid, 8), number)


def checksum(head, body, seed, position):
    """The checksum that a frame with these 8 first bytes and this body must carry."""
    seed = mix(mix(seed, position), head)
    kind = head >> 32 & 0xFF
    total = xxh3(b"" if kind == PAD else body, seed)
    return (total & (MASK64 ^ HEAD_CHECK)) | (seed & HEAD_CHECK)


def head_agrees(head, check, seed, position):
    """Whether the low 24 bits, which need the header alone, agree."""
    return (mix(mix(seed, position), head) ^ check) & HEAD_CHECK == 0


class FrameSpace:
    """Bytes [begin, end) of a file that hold frames. `position_of` turns an offset into what the
    checksum binds the frame to: the LSN in a log, the offset itself in a manifest."""

    def __init__(self, data, begin, end, seed, position_of):
        self.data, self.begin, self.end = data, begin, end
        self.seed, self.position_of = seed, position_of
        self.hashed = 0

    def frame(self, offset):
        """The valid frame at offset, or None."""
        if offset + GRANULE > self.end:
            return None
        return self._judge(offset, self.data[offset : offset + GRANULE], None)

    def _judge(self, offset, header, body):
        head, check = struct.unpack("<QQ", header)
        length = GRANULE * (head & 0xFFFFFFFF)
        if length == 0 or offset + length > self.end:
            return None
        position = self.position_of(offset)
        if not head_agrees(head, check, self.seed, position):
            return None
        if body is None:
            body = self.data[offset + GRANULE : offset + length]
        self.hashed += len(body)
        if checksum(head, body, self.seed, position) != check:
            return None
        return Frame(offset, length, head >> 32 & 0xFF, head >> 40 & 0xFF, head >> 48, body)

    def search(self, offset, budget):
        """Yields every valid frame at or behind offset; what one holds is not searched. Stops with
        OverflowError when more than `budget` bytes were hashed."""
        zeros = bytes(4096)
        self.hashed = 0
        while offset + GRANULE <= self.end:
            if self.data[offset : offset + 4096] == zeros:
                offset += 4096
                continue
            found = self.frame(offset)
            if self.hashed > budget:
                raise OverflowError
            if found is None:
                offset += GRANULE
            else:
                yield found
                offset = found.end

    def corrected(self, offset):
        """The frame that one flipped bit makes of the bad one at offset, or None."""
        if offset + GRANULE > self.end:
            return None
        header = self.data[offset : offset + GRANULE]
        if not any(header):
            return None
        for bit in range(GRANULE * 8):
            flipped = _flip(header, bit)
            if struct.unpack_from("<I", flipped)[0] * GRANULE <= FIXABLE_BYTES_MAX:
                found = self._judge(offset, flipped, None)
                if found is not None:
                    return found
        return self._corrected_body(offset, header)

    def _corrected_body(self, offset, header):
        head, check = struct.unpack("<QQ", header)
        length = GRANULE * (head & 0xFFFFFFFF)
        if length == 0 or length > FIXABLE_BYTES_MAX or offset + length > self.end:
            return None
        if not head_agrees(head, check, self.seed, self.position_of(offset)):
            return None
        body = self.data[offset + GRANULE : offset + length]
        for bit in range(len(body) * 8):
            found = self._judge(offset, header, _flip(body, bit))
            if found is not None:
                return found
        return None


def _flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
