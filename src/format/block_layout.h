/* SPDX-License-Identifier: MIT */
/*
 * Private to block_*.c: where the columns of a raw block are, how a key is cut
 * into them, and the hash byte. Builder and reader share one arithmetic, so
 * that they cannot disagree.
 */
#ifndef ESKER_FORMAT_BLOCK_LAYOUT_H
#define ESKER_FORMAT_BLOCK_LAYOUT_H

#include "format/block.h"

enum {
    BLOCK_VERSION = 2,
    BLOCK_FP_STRIDE = 32, /* bytes of the fingerprint column that one step compares */
    BLOCK_PFX_BYTES = 8,
    BLOCK_PLANE_ROWS = 256 /* rows whose pfx bytes stand together in a compressed block */
};

/* Offsets of the header's fields. */
enum {
    BLOCK_AT_KIND = 0,
    BLOCK_AT_VERSION = 1,
    BLOCK_AT_ROWS = 2,
    BLOCK_AT_RAW_LEN = 4,
    BLOCK_AT_COMMON_LEN = 8,
    BLOCK_AT_FLAGS = 10,
    BLOCK_AT_LSN_BYTES = 11,
    BLOCK_AT_KOFF_BYTES = 12,
    BLOCK_AT_VOFF_BYTES = 13,
    BLOCK_AT_TAIL_LEN = 14,
    BLOCK_AT_VALUE_LEN = 16,
    BLOCK_AT_RESERVED = 20,
    BLOCK_AT_LSN_BASE = 24
};

_Static_assert(BLOCK_AT_LSN_BASE + 8 == BLOCK_HEADER_BYTES, "the header's last field ends it");

/* What decides where the columns are, up to the key tails. */
struct block_shape {
    uint32_t row_count;
    uint32_t common_len;
    uint32_t lsn_bytes;  /* per row: 0 to 8 */
    uint32_t koff_bytes; /* per row: 0, 2 or 4 */
    uint32_t voff_bytes;
    bool has_plen;
    bool has_types;
};

/* Where each column starts; it ends, apart from zeros, where its data do.
 * Absent columns are empty: they start where the next one does. */
struct block_layout {
    uint64_t fp, pfx, plen, koff, voff, lsns, types, tails;
};

/* As the header says, nothing checked; it is there. */
static inline struct block_shape
block_shape_of(const uint8_t *raw)
{
    return (struct block_shape){
        .row_count = le16_load(raw + BLOCK_AT_ROWS),
        .common_len = le16_load(raw + BLOCK_AT_COMMON_LEN),
        .lsn_bytes = raw[BLOCK_AT_LSN_BYTES],
        .koff_bytes = raw[BLOCK_AT_KOFF_BYTES],
        .voff_bytes = raw[BLOCK_AT_VOFF_BYTES],
        .has_plen = (raw[BLOCK_AT_FLAGS] & BLOCK_FLAG_PLEN) != 0,
        .has_types = (raw[BLOCK_AT_FLAGS] & BLOCK_FLAG_TYPES) != 0,
    };
}

/* Bytes of the LSN column with the zeros that belong to it. */
static inline uint64_t
block_lsns_bytes(const struct block_shape *shape)
{
    return shape->lsn_bytes == 0 ? 0 : (uint64_t)shape->lsn_bytes * (shape->row_count - 1) + 8;
}

/* Cannot wrap: every count is below 2^17. At least one row. */
static inline struct block_layout
block_layout_of(const struct block_shape *shape)
{
    uint64_t n = shape->row_count;
    struct block_layout at;
    at.fp = align_up(BLOCK_HEADER_BYTES + (uint64_t)shape->common_len, 8);
    at.pfx = at.fp + align_up(n, BLOCK_FP_STRIDE);
    at.plen = at.pfx + 8 * n;
    at.koff = at.plen + (shape->has_plen ? align_up(n, 8) : 0);
    at.voff = at.koff + (shape->koff_bytes != 0 ? align_up(shape->koff_bytes * (n + 1), 8) : 0);
    at.lsns = at.voff + (shape->voff_bytes != 0 ? align_up(shape->voff_bytes * (n + 1), 8) : 0);
    at.types = at.lsns + align_up(block_lsns_bytes(shape), 8);
    at.tails = at.types + (shape->has_types ? align_up(n, 8) : 0);
    return at;
}

/* How many bytes each offset needs where all pieces together are `total` long. */
static inline uint32_t
block_offset_bytes(uint64_t total)
{
    return total <= UINT16_MAX ? 2 : 4;
}

/* One number of an offset column, which has 2 or 4 bytes each. */
static inline uint32_t
block_offset(const uint8_t *offsets, uint32_t bytes, uint32_t row)
{
    return bytes == 2 ? le16_load(offsets + 2 * (size_t)row) : le32_load(offsets + 4 * (size_t)row);
}

static inline void
block_offset_store(uint8_t *offsets, uint32_t bytes, uint32_t row, uint32_t offset)
{
    if (bytes == 2) {
        le16_store(offsets + 2 * (size_t)row, (uint16_t)offset);
    } else {
        le32_store(offsets + 4 * (size_t)row, offset);
    }
}

/* What a row keeps of its key: the bytes behind the common prefix, cut after 8. */
struct block_rest {
    uint64_t pfx;
    uint32_t plen;
    struct bytes tail;
};

static inline struct block_rest
block_rest_of(const uint8_t *ptr, size_t len)
{
    struct block_rest rest = {.pfx = bytes_prefix64(ptr, len)};
    rest.plen = (uint32_t)MIN(len, (size_t)BLOCK_PFX_BYTES);
    rest.tail = bytes_make(ptr + rest.plen, len - rest.plen);
    return rest;
}

ALWAYS_INLINE uint8_t
block_fingerprint(uint64_t pfx, uint32_t plen, const uint8_t *tail, size_t tail_len)
{
    uint64_t hash = hash_mix(pfx, plen);
    if (tail_len != 0) {
        hash = hash64(tail, tail_len, hash);
    }
    return (uint8_t)(hash >> 56);
}

#endif
