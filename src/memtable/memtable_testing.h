/* SPDX-License-Identifier: MIT */
/*
 * For this room's tests and stress programs only: page memory from the heap
 * (so that the address sanitizer sees its edges), windows filled by hand, keys
 * that are hard on a radix tree, and the sorted array that a memtable is
 * compared with.
 */
#ifndef ESKER_MEMTABLE_MEMTABLE_TESTING_H
#define ESKER_MEMTABLE_MEMTABLE_TESTING_H

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"
#include "memtable/memtable_priv.h"

static inline void
testing_insert(struct memtable *table, uint64_t offset)
{
    struct bytes key = entry_key_trusted(table->vnodes.data + offset);
    struct memtable_way way = memtable_approach(table, key, true);
    (void)memtable_insert(table, offset, &way, 0);
}

/* ---- Page memory and windows ------------------------------------------------ */

static inline int
testing_map_memory(struct io *io, uint64_t len, void **out)
{
    void *ptr = mem_alloc_aligned(io->mem, 4096, len);
    if (ptr == NULL) {
        return -12; /* ENOMEM */
    }
    memset(ptr, 0, len);
    *out = ptr;
    return 0;
}

static inline void
testing_unmap_memory(struct io *io, void *ptr, uint64_t len)
{
    (void)len;
    mem_free(io->mem, ptr);
}

static const struct io_ops testing_io_ops = {
    .label = "testing", .map_memory = testing_map_memory, .unmap_memory = testing_unmap_memory};

static inline struct io
testing_io(const struct mem *mem)
{
    return (struct io){.ops = &testing_io_ops, .mem = mem};
}

struct testing_window {
    uint8_t *data;
    uint64_t cap;
    uint64_t end;
};

static inline struct testing_window
testing_window_make(uint64_t cap)
{
    struct testing_window window = {.data = calloc(1, cap), .cap = cap, .end = FRAME_HEADER_BYTES};
    ASSERT(window.data != NULL);
    return window;
}

/* Appends an entry; returns its byte offset. */
static inline uint64_t
testing_window_add(struct testing_window *window, enum entry_op op, struct bytes key, struct bytes value)
{
    uint64_t offset = window->end;
    uint8_t *at = window->data + offset;
    uint64_t size = entry_size_bytes(key.len, value.len);
    ASSERT(key.len >= 1 && key.len <= KEY_BYTES_MAX && offset + size <= window->cap);
    at[0] = (uint8_t)op;
    at[1] = 0;
    le16_store(at + 2, (uint16_t)key.len);
    le32_store(at + 4, (uint32_t)value.len);
    memcpy(at + ENTRY_HEADER_BYTES, key.ptr, key.len);
    if (value.len > 0) {
        memcpy(at + ENTRY_HEADER_BYTES + key.len, value.ptr, value.len);
    }
    window->end += size;
    return offset;
}

/* ---- Keys -------------------------------------------------------------------- */

enum { TESTING_KEY_BYTES = 1024, TESTING_KEY_SORTS = 7 };

/* One of `variety` keys of the given sort; few for a small variety, so that keys come again. */
static inline struct bytes
testing_key(struct rng *rng, uint32_t sort, uint64_t variety, uint8_t room[TESTING_KEY_BYTES])
{
    struct rng own = {.state = rng_below(rng, variety) * 7919 + sort};
    size_t len = 0;
    switch (sort % TESTING_KEY_SORTS) {
    case 0: /* a long shared prefix, then a few bytes of a small alphabet */
        len = 1 + rng_below(&own, 200);
        memset(room, 'p', len);
        for (uint64_t extra = rng_below(&own, 5); extra > 0; extra--) {
            room[len++] = (uint8_t)(rng_below(&own, 3) * 127);
        }
        break;
    case 1: /* keys that are prefixes of one another */
        len = 1 + rng_below(&own, 400);
        memset(room, 'x', len);
        break;
    case 2: /* every branch byte, behind prefixes of a few lengths */
        len = rng_below(&own, 12);
        memset(room, 'b', len);
        room[len++] = (uint8_t)rng_next(&own);
        break;
    case 3: /* random bytes */
        for (len = 0; len < 16; len += 8) {
            le64_store(room + len, rng_next(&own));
        }
        len = 1 + rng_below(&own, 16);
        break;
    case 4: /* decimal numbers of fixed width */
        len = (size_t)snprintf((char *)room, TESTING_KEY_BYTES, "%016llu",
                               (unsigned long long)rng_below(&own, variety));
        break;
    case 5: /* zeros and ones: deep and narrow */
        len = 1 + rng_below(&own, 40);
        for (size_t i = 0; i < len; i++) {
            room[i] = (uint8_t)(rng_below(&own, 8) == 0);
        }
        break;
    default: /* addresses: long common parts at several depths */
        len = (size_t)snprintf(
            (char *)room, TESTING_KEY_BYTES, "https://example.org/%u/section/with/a/name/%u/%u",
            (unsigned)rng_below(&own, 4), (unsigned)rng_below(&own, 8), (unsigned)rng_below(&own, variety));
        break;
    }
    return bytes_make(room, len);
}

/* ---- The model ---------------------------------------------------------------- */

struct testing_row {
    struct bytes key;
    uint64_t lsn;
    const uint8_t *entry;
};

struct testing_model {
    struct testing_row *rows;
    size_t count;
};

static inline int
testing_row_order(const void *a, const void *b)
{
    const struct testing_row *left = a;
    const struct testing_row *right = b;
    int order = bytes_compare(left->key, right->key);
    return order != 0 ? order : (left->lsn < right->lsn) - (left->lsn > right->lsn);
}

/* All entries at `offsets` with LSN < limit, in iterator order. */
static inline struct testing_model
testing_model_make(const struct testing_window *window, uint64_t base_lsn, const uint64_t *offsets,
                   size_t count, uint64_t limit)
{
    struct testing_model model = {.rows = malloc((count + 1) * sizeof *model.rows), .count = 0};
    ASSERT(model.rows != NULL);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *entry = window->data + offsets[i];
        uint64_t lsn = base_lsn + offsets[i] / LSN_BYTES;
        if (lsn < limit) {
            model.rows[model.count++] = (struct testing_row){entry_key_trusted(entry), lsn, entry};
        }
    }
    qsort(model.rows, model.count, sizeof *model.rows, testing_row_order);
    return model;
}

/* The first row with key >= `key`. */
static inline size_t
testing_model_seek(const struct testing_model *model, struct bytes key)
{
    size_t low = 0;
    size_t high = model->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (bytes_compare(model->rows[middle].key, key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

#endif
