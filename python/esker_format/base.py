# SPDX-License-Identifier: MIT
"""Hashes, unpacking, files, and how damage is told.

The three libraries (libxxhash0, liblz4-1 and libzstd1 in Debian) are called through ctypes, so
that any Python 3.9 or later will do without further packages.
"""
import ctypes
import ctypes.util
import os
import stat

MASK64 = (1 << 64) - 1
LSN_MAX = 1 << 56
KEY_BYTES_MAX = 32768
VALUE_BYTES_MAX = 1 << 28

CORRUPT = "CORRUPT"
UNSUPPORTED = "UNSUPPORTED"


class FormatError(Exception):
    """Something that a reader refuses. `kind` is CORRUPT or UNSUPPORTED; `file` is the name within
    the directory, `offset` a byte in it, or None when the file as a whole is meant."""

    def __init__(self, kind, file, offset, what):
        place = file if offset is None else f"{file}: offset {offset}"
        super().__init__(f"{kind}: {place}: {what}")
        self.kind, self.file, self.offset, self.what = kind, file, offset, what


def corrupt(file, offset, what):
    """The exception for bytes that are not what was written."""
    return FormatError(CORRUPT, file, offset, what)


def unsupported(file, offset, what):
    """The exception for what a later version of the format may have written."""
    return FormatError(UNSUPPORTED, file, offset, what)


def _library(soname, name, package):
    try:
        return ctypes.CDLL(soname)
    except OSError:
        found = ctypes.util.find_library(name)
        if found is None:
            raise ImportError(f"{soname} is not here (Debian: apt install {package})") from None
        return ctypes.CDLL(found)


_XXHASH = _library("libxxhash.so.0", "xxhash", "libxxhash0")
_XXHASH.XXH3_64bits_withSeed.restype = ctypes.c_uint64
_XXHASH.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
_LZ4 = _library("liblz4.so.1", "lz4", "liblz4-1")
_LZ4.LZ4_decompress_safe.restype = ctypes.c_int
_LZ4.LZ4_decompress_safe.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
_ZSTD = _library("libzstd.so.1", "zstd", "libzstd1")
_ZSTD.ZSTD_decompress.restype = ctypes.c_size_t
_ZSTD.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
_ZSTD.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
_ZSTD.ZSTD_findFrameCompressedSize.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def xxh3(data, seed=0):
    """XXH3_64bits_withSeed of `data`, which must be bytes."""
    return _XXHASH.XXH3_64bits_withSeed(data, len(data), seed)


def mix(a, b):
    """The format's mixing of two numbers into one."""
    z = (a + 0x9E3779B97F4A7C15 * (b + 1)) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def unpack_lz4(payload, raw_len):
    """The raw_len bytes that an lz4 block unpacks to, or None."""
    raw = ctypes.create_string_buffer(raw_len)
    return raw.raw if _LZ4.LZ4_decompress_safe(payload, raw, len(payload), raw_len) == raw_len else None


def unpack_zstd(payload, raw_len):
    """The raw_len bytes that one zstd frame unpacks to, or None."""
    if _ZSTD.ZSTD_findFrameCompressedSize(payload, len(payload)) != len(payload):
        return None
    raw = ctypes.create_string_buffer(raw_len)
    return raw.raw if _ZSTD.ZSTD_decompress(raw, raw_len, payload, len(payload)) == raw_len else None


def u16(data, at):
    """Two bytes, little endian."""
    return int.from_bytes(data[at : at + 2], "little")


def u32(data, at):
    """Four bytes, little endian."""
    return int.from_bytes(data[at : at + 4], "little")


def u64(data, at):
    """Eight bytes, little endian."""
    return int.from_bytes(data[at : at + 8], "little")


def up(number, granule):
    """The next multiple of granule at or above number."""
    return -(-number // granule) * granule


class Directory:
    """The files of a database. Links are not followed and only regular files are opened."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def names(self):
        """What is there."""
        return os.listdir(self.fd)

    def open(self, name):
        """A descriptor and the size of a regular file; FormatError if there is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.fd)
        except OSError as error:
            raise corrupt(name, None, f"cannot be opened: {os.strerror(error.errno)}") from error
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            raise corrupt(name, None, "is not a regular file")
        return fd, info.st_size

    def read(self, name, limit):
        """All bytes of a file of at most `limit`."""
        fd, size = self.open(name)
        try:
            if size > limit:
                raise corrupt(name, limit, f"the file has {size} bytes, more than {limit}")
            return read_at(fd, name, 0, size)
        finally:
            os.close(fd)

    def close(self):
        """Ends it."""
        os.close(self.fd)


def read_at(fd, name, offset, count):
    """Exactly `count` bytes of a file."""
    parts = []
    while count > 0:
        part = os.pread(fd, count, offset)
        if not part:
            raise corrupt(name, offset, "the file ends here")
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return b"".join(parts)
