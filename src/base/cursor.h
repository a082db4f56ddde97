/* SPDX-License-Identifier: MIT */
/*
 * A bounded reader over untrusted bytes, and the only place where lengths
 * that came from a disk enter arithmetic. It is sticky: after the first read
 * beyond the end every read yields zero and `ok` stays false, so a decoder
 * reads a whole structure and checks once, before it believes any of it.
 */
#ifndef ESKER_BASE_CURSOR_H
#define ESKER_BASE_CURSOR_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/endian.h"

struct cursor {
    const uint8_t *start;
    const uint8_t *at;
    const uint8_t *end;
    bool ok;
};

static inline struct cursor
cursor_make(const void *ptr, size_t len)
{
    const uint8_t *start = (const uint8_t *)ptr;
    /* No arithmetic on a NULL that stands for "nothing". */
    return (struct cursor){.start = start, .at = start, .end = len == 0 ? start : start + len, .ok = true};
}

static inline size_t
cursor_left(const struct cursor *cursor)
{
    return cursor->ok ? (size_t)(cursor->end - cursor->at) : 0;
}

static inline size_t
cursor_offset(const struct cursor *cursor)
{
    return (size_t)(cursor->at - cursor->start);
}

/* The next len bytes, or an empty run and ok = false. */
static inline struct bytes
cursor_bytes(struct cursor *cursor, uint64_t len)
{
    if (UNLIKELY(!cursor->ok || len > (uint64_t)(cursor->end - cursor->at))) {
        cursor->ok = false;
        return bytes_make(NULL, 0);
    }
    struct bytes taken = bytes_make(cursor->at, (size_t)len);
    cursor->at += len;
    return taken;
}

static inline void
cursor_skip(struct cursor *cursor, uint64_t len)
{
    (void)cursor_bytes(cursor, len);
}

/* Skips to the next multiple of `power` counted from the start. */
static inline void
cursor_align(struct cursor *cursor, size_t power)
{
    size_t past = cursor_offset(cursor) & (power - 1);
    if (past != 0) {
        cursor_skip(cursor, power - past);
    }
}

static inline uint8_t
cursor_u8(struct cursor *cursor)
{
    struct bytes raw = cursor_bytes(cursor, 1);
    return cursor->ok ? raw.ptr[0] : 0;
}

static inline uint16_t
cursor_u16(struct cursor *cursor)
{
    struct bytes raw = cursor_bytes(cursor, 2);
    return cursor->ok ? le16_load(raw.ptr) : 0;
}

static inline uint32_t
cursor_u32(struct cursor *cursor)
{
    struct bytes raw = cursor_bytes(cursor, 4);
    return cursor->ok ? le32_load(raw.ptr) : 0;
}

static inline uint64_t
cursor_u64(struct cursor *cursor)
{
    struct bytes raw = cursor_bytes(cursor, 8);
    return cursor->ok ? le64_load(raw.ptr) : 0;
}

#endif
