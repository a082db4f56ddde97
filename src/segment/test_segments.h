/* SPDX-License-Identifier: MIT */
/*
 * What the tests of this room share: rows with awkward keys, a segment built
 * from them, and the model's answers. Rows are those of format/test_rows.h.
 */
#ifndef ESKER_SEGMENT_TEST_SEGMENTS_H
#define ESKER_SEGMENT_TEST_SEGMENTS_H

#include <malloc.h>

#include "format/test_rows.h"
#include "segment/segment_writer_internal.h"
#include "sync/epoch.h"

static const uint8_t test_segment_uuid[16] = "uuid of a test";

/* ---- Memory ------------------------------------------------------------- */

/* Counts what lives, and fails on demand. */
struct test_mem {
    struct mem base;
    _Atomic uint64_t calls;
    uint64_t fail_at; /* the call with this number (from 1) gets nothing; 0 = none */
    bool fail_on;     /* ... nor does any later one */
    _Atomic uint64_t live_bytes, peak_bytes;
};

static inline bool
test_mem_denied(struct test_mem *mem)
{
    uint64_t call = add_relaxed(&mem->calls, 1) + 1; /* relaxed: a count. */
    return mem->fail_at != 0 && (mem->fail_on ? call >= mem->fail_at : call == mem->fail_at);
}

static inline void *
test_mem_counted(struct test_mem *mem, void *ptr)
{
    size_t size = ptr == NULL ? 0 : malloc_usable_size(ptr);
    /* relaxed: counts; the peak is exact while one thread allocates. */
    uint64_t live = add_relaxed(&mem->live_bytes, size) + size;
    if (live > load_relaxed(&mem->peak_bytes)) {
        store_relaxed(&mem->peak_bytes, live);
    }
    return ptr;
}

static inline void *
test_mem_alloc(void *ctx, size_t size)
{
    return test_mem_denied(ctx) ? NULL : test_mem_counted(ctx, malloc(size));
}

static inline void *
test_mem_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    return test_mem_denied(ctx) ? NULL : test_mem_counted(ctx, aligned_alloc(alignment, size));
}

static inline void
test_mem_free(void *ctx, void *ptr)
{
    struct test_mem *mem = ctx;
    add_relaxed(&mem->live_bytes, -(uint64_t)malloc_usable_size(ptr)); /* relaxed: a count. */
    free(ptr);
}

static inline void
test_mem_init(struct test_mem *mem)
{
    memset(mem, 0, sizeof *mem);
    mem->base.hooks = (esker_allocator){
        .alloc = test_mem_alloc, .aligned_alloc = test_mem_aligned_alloc, .free = test_mem_free, .ctx = mem};
}

/* ---- Rows --------------------------------------------------------------- */

static inline void
test_segment_row(struct test_rows *rows, struct bytes key, uint64_t lsn, size_t value_len)
{
    bool is_delete = value_len == SIZE_MAX;
    uint8_t *value = rows->bytes + rows->used + key.len;
    size_t len = is_delete ? 0 : value_len;
    ASSERT(key.len + len <= rows->room - rows->used);
    struct test_row *row = &rows->at[rows->count++];
    /* The copy is hashed: gcc would say that a caller's array is too short for lengths that do not occur. */
    row->key = test_rows_keep(rows, key.ptr, key.len);
    uint64_t hash = hash_mix(hash64(row->key.ptr, key.len, lsn), len);
    for (size_t i = 0; i < len; i++) {
        /* Half of it random, half of it dull, so that compression has something to do. */
        value[i] = (uint8_t)((i & 64) != 0 ? hash >> (8 * (i % 8)) : 'v');
        hash += i % 8 == 7 ? 0x9e3779b97f4a7c15ULL : 0;
    }
    row->value = bytes_make(value, len);
    rows->used += len;
    row->lsn = lsn;
    row->op = is_delete ? ENTRY_DELETE : ENTRY_PUT;
}

static inline size_t
test_segment_awkward_key(struct rng *rng, uint8_t *key)
{
    size_t len = 1 + (size_t)rng_below(rng, 12);
    switch (rng_below(rng, 5)) {
    case 0: /* few letters: prefixes of one another, zeros and 0xff at the ends */
        for (size_t i = 0; i < len; i++) {
            key[i] = (uint8_t[]){0, 'k', 0xff}[rng_below(rng, 3)];
        }
        return len;
    case 1: /* a long common prefix */
        return (size_t)snprintf((char *)key, 64, "table/users/by-name/%06u", (unsigned)rng_below(rng, 4000));
    case 2: /* one that is longer than anything */
        if (rng_below(rng, 50) == 0) {
            memset(key, 'L', KEY_BYTES_MAX);
            le32_store(key + KEY_BYTES_MAX - 4, (uint32_t)rng_below(rng, 40));
            return KEY_BYTES_MAX - (size_t)rng_below(rng, 2) * 3;
        }
        return (size_t)snprintf((char *)key, 64, "%u", (unsigned)rng_below(rng, 100000));
    case 3:
        return (size_t)snprintf((char *)key, 64, "%016u", (unsigned)rng_below(rng, 100000));
    default:
        for (size_t i = 0; i < len; i++) {
            key[i] = (uint8_t)rng_next(rng);
        }
        return len;
    }
}

/* count rows, some keys with hundreds of versions; sorted, no duplicates. */
static inline void
test_segment_awkward_rows(struct test_rows *rows, uint32_t count, uint64_t seed)
{
    struct rng rng = {seed};
    uint8_t *key = malloc(KEY_BYTES_MAX);
    ASSERT(key != NULL);
    test_rows_init(rows, count, (size_t)count * 2048 + (8 << 20));
    while (rows->count < count) {
        size_t len = test_segment_awkward_key(&rng, key);
        uint64_t versions = rng_below(&rng, 60) == 0 ? 1 + rng_below(&rng, 300) : 1 + rng_below(&rng, 2);
        uint64_t lsn =
            rng_below(&rng, 4) == 0 ? 0 : rng_below(&rng, UINT64_C(1) << (8 + rng_below(&rng, 50)));
        for (; versions > 0 && rows->count < count; versions--) {
            uint64_t kind = rng_below(&rng, 400);
            size_t value_len = kind < 40    ? SIZE_MAX
                               : kind < 60  ? 0
                               : kind == 60 ? 20000
                                            : rng_below(&rng, 200);
            bool room = rows->room - rows->used > KEY_BYTES_MAX + 20000;
            test_segment_row(rows, bytes_make(key, room ? len : MIN(len, (size_t)20)), lsn,
                             room ? value_len : 8);
            lsn += 1 + rng_below(&rng, 3);
        }
    }
    test_rows_settle(rows);
    free(key);
}

/* The first row with row.key >= key, by halving. */
static inline uint32_t
test_segment_lower(const struct test_rows *rows, struct bytes key)
{
    uint32_t from = 0;
    uint32_t to = rows->count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (bytes_compare(rows->at[middle].key, key) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

/* The newest row of key below the snapshot, or NULL. */
static inline const struct test_row *
test_segment_visible(const struct test_rows *rows, struct bytes key, uint64_t snapshot_lsn)
{
    uint32_t at = test_segment_lower(rows, key);
    for (; at < rows->count && bytes_equal(rows->at[at].key, key); at++) {
        if (rows->at[at].lsn < snapshot_lsn) {
            return &rows->at[at];
        }
    }
    return NULL;
}

/* ---- Segments ----------------------------------------------------------- */

struct test_segment {
    struct segment_meta meta;
    uint8_t keys[2 * EDIT_KEY_BYTES_MAX];
};

/* small_index: two levels with tiny leaves, however few blocks there are. */
static inline esker_status
test_segment_write_as(struct io *io, const struct mem *mem, const struct test_rows *rows, uint64_t id,
                      int compression, uint32_t block_bytes, bool small_index, struct test_segment *out)
{
    struct segment_writer_options options = {
        .id = id, .compression = compression, .block_bytes = block_bytes};
    struct segment_writer *writer = NULL;
    memcpy(options.uuid, test_segment_uuid, sizeof options.uuid);
    esker_status status = segment_writer_create(io, mem, &options, &writer);
    if (status == ESKER_OK && small_index) {
        writer->index_root_bytes = 0;
        writer->index_leaf_bytes = 256;
    }
    for (uint32_t i = 0; i < rows->count && status == ESKER_OK; i++) {
        const struct test_row *row = &rows->at[i];
        status = segment_writer_add(writer, row->key, row->lsn, row->op, row->value);
    }
    if (status == ESKER_OK) {
        status = segment_writer_finish(writer, &out->meta, out->keys);
    }
    segment_writer_destroy(writer);
    return status;
}

static inline esker_status
test_segment_write(struct io *io, const struct mem *mem, const struct test_rows *rows, uint64_t id,
                   int compression, uint32_t block_bytes, struct test_segment *out)
{
    return test_segment_write_as(io, mem, rows, id, compression, block_bytes, false, out);
}

static inline struct segment *
test_segment_handle(struct io *io, const struct mem *mem, struct block_cache *cache,
                    const struct segment_meta *meta)
{
    struct segment_open_options options = {.io = io, .mem = mem, .cache = cache};
    struct segment *segment = NULL;
    memcpy(options.uuid, test_segment_uuid, sizeof options.uuid);
    esker_status status = segment_create(&options, meta, &segment);
    ASSERT(status == ESKER_OK || status == ESKER_NO_MEMORY);
    return segment;
}

/* The fast path in a section of its own. hit->value is safe to look at only
 * when nothing is evicted meanwhile; copy: its hash is taken inside. */
static inline enum segment_result
test_segment_get(struct segment *segment, struct bytes key, uint64_t snapshot_lsn, struct segment_hit *hit,
                 uint64_t *value_hash)
{
    struct thread_state *self = thread_state_get();
    ASSERT(self != NULL);
    uint64_t hash = segment_filter_hash(key);
    epoch_enter(self);
    segment_prefetch(segment, hash);
    enum segment_result result = segment_get(segment, key, hash, snapshot_lsn, hit);
    if (result == SEGMENT_FOUND && value_hash != NULL) {
        *value_hash = hash64(hit->value.ptr, hit->value.len, 0);
    }
    epoch_exit(self);
    return result;
}

#endif
