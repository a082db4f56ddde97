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
    BLOCK_VERSION = 1,
    BLOCK_FP_STRIDE = 32, /* bytes of the fingerprint column that one step compares */
    BLOCK_PFX_BYTES = 8
};

/* Offsets of the header's fields. */
enum {
    BLOCK_AT_KIND = 0,
    BLOCK_AT_VERSION = 1,
    BLOCK_AT_ROWS = 2,
    BLOCK_AT_RAW_LEN = 4,
    BLOCK_AT_COMMON_LEN = 8,
    BLOCK_AT_FLAGS = 10,
    BLOCK_AT_FP = 12,
    BLOCK_AT_PFX = 16,
    BLOCK_AT_KOFF = 20,
    BLOCK_AT_VOFF = 24,
    BLOCK_AT_LSNS = 28,
    BLOCK_AT_TAILS = 32,
    BLOCK_AT_VALUES = 36,
    BLOCK_AT_LSN_BASE = 40,
    BLOCK_AT_PLEN = 48,
    BLOCK_AT_TYPES = 52
};

_Static_assert(BLOCK_AT_TYPES + 4 == BLOCK_HEADER_BYTES, "the header's last field ends it");

/* What decides where the columns are, up to the key tails. */
struct block_shape {
    uint32_t row_count;
    uint32_t common_len;
    uint32_t lsn_bytes; /* per row: 0, 4 or 8 */
    bool has_plen;
    bool has_types;
};

/* Where each column starts; it ends, apart from zeros, where its data do.
 * Absent columns are empty: they start where the next one does. */
struct block_layout {
    uint64_t fp, pfx, plen, koff, voff, lsns, types, tails;
};

/* Cannot wrap: every count is below 2^17. */
static inline struct block_layout
block_layout_of(const struct block_shape *shape)
{
    uint64_t n = shape->row_count;
    struct block_layout at;
    at.fp = align_up(BLOCK_HEADER_BYTES + (uint64_t)shape->common_len, 8);
    at.pfx = at.fp + align_up(n, BLOCK_FP_STRIDE);
    at.plen = at.pfx + 8 * n;
    at.koff = at.plen + (shape->has_plen ? align_up(n, 8) : 0);
    at.voff = at.koff + align_up(4 * (n + 1), 8);
    at.lsns = at.voff + align_up(4 * (n + 1), 8);
    at.types = at.lsns + align_up(shape->lsn_bytes * n, 8);
    at.tails = at.types + (shape->has_types ? align_up(n, 8) : 0);
    return at;
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
