/* SPDX-License-Identifier: MIT */
/* Borrowed bytes and their order: memcmp, then length. */
#ifndef ESKER_BASE_BYTES_H
#define ESKER_BASE_BYTES_H

#include <stdbool.h>
#include <string.h>

#include "base/compiler.h"
#include "esker/esker.h"

struct bytes {
    const uint8_t *ptr;
    size_t len;
};

static inline struct bytes
bytes_make(const void *ptr, size_t len)
{
    return (struct bytes){.ptr = (const uint8_t *)ptr, .len = len};
}

static inline struct bytes
bytes_of_slice(esker_slice slice)
{
    return bytes_make(slice.data, slice.size);
}

static inline esker_slice
bytes_to_slice(struct bytes bytes)
{
    return (esker_slice){.data = bytes.ptr, .size = bytes.len};
}

static inline int
bytes_compare(struct bytes a, struct bytes b)
{
    size_t shared = MIN(a.len, b.len);
    int order = shared == 0 ? 0 : memcmp(a.ptr, b.ptr, shared);
    if (order != 0) {
        return order;
    }
    return (a.len > b.len) - (a.len < b.len);
}

static inline bool
bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool
bytes_start_with(struct bytes bytes, struct bytes prefix)
{
    return bytes.len >= prefix.len && (prefix.len == 0 || memcmp(bytes.ptr, prefix.ptr, prefix.len) == 0);
}

/* The first 8 bytes as a big-endian number, zero-padded: compares like the
 * bytes do, up to ties. Never reads beyond len. */
static inline uint64_t
bytes_prefix64(const uint8_t *ptr, size_t len)
{
    uint64_t word = 0;
    if (LIKELY(len >= 8)) {
        memcpy(&word, ptr, 8);
        return __builtin_bswap64(word);
    }
    if (len > 0) {
        memcpy(&word, ptr, len);
    }
    return __builtin_bswap64(word);
}

#endif
