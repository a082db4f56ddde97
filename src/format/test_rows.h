/* SPDX-License-Identifier: MIT */
/*
 * Rows for tests of blocks: a sorted array as the model, awkward keys to fill
 * it with, and the naive answers that a block has to give too. Included by
 * tests and fuzz targets only.
 */
#ifndef ESKER_FORMAT_TEST_ROWS_H
#define ESKER_FORMAT_TEST_ROWS_H

#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"
#include "format/block.h"

struct test_row {
    struct bytes key;
    uint64_t lsn;
    enum entry_op op;
    struct bytes value;
};

struct test_rows {
    struct test_row *at;
    uint32_t count;
    uint8_t *bytes; /* keys and values */
    size_t used, room;
};

static inline void
test_rows_init(struct test_rows *rows, uint32_t row_room, size_t byte_room)
{
    *rows = (struct test_rows){.room = byte_room};
    rows->at = calloc(row_room, sizeof *rows->at);
    rows->bytes = malloc(byte_room);
    ASSERT(rows->at != NULL && rows->bytes != NULL);
}

static inline void
test_rows_fini(struct test_rows *rows)
{
    free(rows->at);
    free(rows->bytes);
}

static inline struct bytes
test_rows_keep(struct test_rows *rows, const void *ptr, size_t len)
{
    ASSERT(len <= rows->room - rows->used);
    uint8_t *at = rows->bytes + rows->used;
    if (len > 0) {
        memcpy(at, ptr, len);
    }
    rows->used += len;
    return bytes_make(at, len);
}

static inline int
test_row_compare(const void *a, const void *b)
{
    const struct test_row *left = a, *right = b;
    int order = bytes_compare(left->key, right->key);
    return order != 0 ? order : (left->lsn < right->lsn) - (left->lsn > right->lsn);
}

/* Sorts and drops rows that are equal in key and LSN. */
static inline void
test_rows_settle(struct test_rows *rows)
{
    qsort(rows->at, rows->count, sizeof *rows->at, test_row_compare);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rows->count; i++) {
        if (kept == 0 || test_row_compare(&rows->at[kept - 1], &rows->at[i]) != 0) {
            rows->at[kept++] = rows->at[i];
        }
    }
    rows->count = kept;
}

static inline uint32_t
test_rows_seek(const struct test_rows *rows, struct bytes key)
{
    uint32_t row = 0;
    while (row < rows->count && bytes_compare(rows->at[row].key, key) < 0) {
        row++;
    }
    return row;
}

static inline uint32_t
test_rows_find(const struct test_rows *rows, struct bytes key, uint64_t snapshot_lsn, bool *last_row_out)
{
    uint32_t row = test_rows_seek(rows, key);
    bool any = false;
    *last_row_out = false;
    for (; row < rows->count && bytes_equal(rows->at[row].key, key); row++) {
        any = true;
        if (rows->at[row].lsn < snapshot_lsn) {
            return row;
        }
    }
    *last_row_out = any && row == rows->count;
    return rows->count;
}

/* The rows as one raw block. They fit. */
static inline void
test_rows_build(const struct test_rows *rows, enum block_kind kind, struct buf *raw)
{
    struct block_builder *builder = NULL;
    esker_status status = block_builder_create(&mem_default, kind, &builder);
    ASSERT(status == ESKER_OK);
    for (uint32_t i = 0; i < rows->count; i++) {
        const struct test_row *row = &rows->at[i];
        ASSERT(block_builder_fits(builder, row->key, row->lsn, row->op, row->value.len, BLOCK_RAW_MAX));
        status = block_builder_add(builder, row->key, row->lsn, row->op, row->value);
        ASSERT(status == ESKER_OK);
    }
    ASSERT(block_builder_row_count(builder) == rows->count);
    size_t bound = block_builder_raw_bytes(builder);
    status = block_builder_finish(builder, raw);
    ASSERT(status == ESKER_OK && raw->len <= bound);
    block_builder_destroy(builder);
}

/* Every accessor of every row agrees with the model. */
static inline void
test_rows_equal(const struct test_rows *rows, const struct block *block)
{
    uint8_t *key = malloc(KEY_BYTES_MAX);
    ASSERT(key != NULL && block->row_count == rows->count);
    for (uint32_t i = 0; i < rows->count; i++) {
        const struct test_row *row = &rows->at[i];
        ASSERT(block_key_len(block, i) == row->key.len);
        size_t len = block_key(block, i, key);
        ASSERT(bytes_equal(bytes_make(key, len), row->key));
        ASSERT(block_lsn(block, i) == row->lsn);
        ASSERT(block_op(block, i) == row->op);
        ASSERT(bytes_equal(block_value(block, i), row->value));
    }
    free(key);
}

/* A key that the block may or may not hold gets the model's answers. */
static inline void
test_rows_probe(const struct test_rows *rows, const struct block *block, struct bytes key,
                uint64_t snapshot_lsn)
{
    uint32_t seek = test_rows_seek(rows, key);
    ASSERT(block_seek(block, key) == seek);
    bool last_model, last_fast = true, last_portable = true;
    uint32_t found = test_rows_find(rows, key, snapshot_lsn, &last_model);
    ASSERT(block_find(block, key, snapshot_lsn, &last_fast) == found);
    ASSERT(block_find_portable(block, key, snapshot_lsn, &last_portable) == found);
    ASSERT(last_fast == last_model && last_portable == last_model);
    ASSERT(block_find(block, key, snapshot_lsn, NULL) == found);
    for (uint32_t i = seek < 2 ? 0 : seek - 2; i < rows->count && i < seek + 2; i++) {
        int got = block_key_compare(block, i, key), want = bytes_compare(rows->at[i].key, key);
        ASSERT((got > 0) == (want > 0) && (got < 0) == (want < 0));
    }
}

/* The key and its neighbours: cut, grown, changed in one byte. */
static inline void
test_rows_probe_around(const struct test_rows *rows, const struct block *block, struct bytes key,
                       uint64_t lsn, struct rng *rng)
{
    uint8_t *near = malloc(key.len + 2);
    ASSERT(near != NULL);
    memcpy(near, key.ptr, key.len);
    test_rows_probe(rows, block, key, lsn);
    test_rows_probe(rows, block, key, lsn + 1);
    test_rows_probe(rows, block, key, lsn - 1);
    test_rows_probe(rows, block, key, 0);
    test_rows_probe(rows, block, key, UINT64_MAX);
    near[key.len] = 0;
    test_rows_probe(rows, block, bytes_make(near, key.len + 1), UINT64_MAX);
    near[key.len] = 0xff;
    test_rows_probe(rows, block, bytes_make(near, key.len + 1), UINT64_MAX);
    test_rows_probe(rows, block, bytes_make(near, key.len - 1), UINT64_MAX);
    test_rows_probe(rows, block, bytes_make(near, (size_t)rng_below(rng, key.len + 1)), UINT64_MAX);
    size_t at = (size_t)rng_below(rng, key.len);
    near[at]++;
    test_rows_probe(rows, block, bytes_make(near, key.len), UINT64_MAX);
    near[at] = (uint8_t)(near[at] - 2);
    test_rows_probe(rows, block, bytes_make(near, key.len), UINT64_MAX);
    free(near);
}

/* For a block of unknown contents that block_open let pass: what rules 3 to 6
 * promise, seen through the accessors; and every row is found and sought. */
static inline void
test_block_sound(const struct block *block)
{
    uint8_t *keys[2] = {malloc(KEY_BYTES_MAX), malloc(KEY_BYTES_MAX)};
    ASSERT(keys[0] != NULL && keys[1] != NULL);
    size_t len[2] = {0, 0};
    uint64_t sum = 0;
    for (uint32_t i = 0; i < block->row_count; i++) {
        uint32_t now = i & 1, before = now ^ 1;
        len[now] = block_key(block, i, keys[now]);
        ASSERT(len[now] == block_key_len(block, i) && len[now] >= 1 && len[now] <= KEY_BYTES_MAX);
        struct bytes key = bytes_make(keys[now], len[now]), value = block_value(block, i);
        ASSERT(value.ptr >= block->raw && value.len <= (size_t)(block->raw + block->raw_len - value.ptr));
        sum += hash64(value.ptr, value.len, 0);
        bool same = i > 0 && bytes_equal(key, bytes_make(keys[before], len[before]));
        if (i > 0) {
            ASSERT(same ? block_lsn(block, i - 1) > block_lsn(block, i)
                        : bytes_compare(bytes_make(keys[before], len[before]), key) < 0);
        }
        ASSERT(entry_op_is_known(block_op(block, i)));
        ASSERT(block_op(block, i) != ENTRY_PUT_EXPIRING || value.len >= EXPIRY_BYTES);
        ASSERT(block_key_compare(block, i, key) == 0);
        uint64_t lsn = block_lsn(block, i);
        if (lsn != UINT64_MAX) {
            ASSERT(block_find(block, key, lsn + 1, NULL) == i);
            ASSERT(block_find_portable(block, key, lsn + 1, NULL) == i);
        }
        uint32_t seek = block_seek(block, key);
        ASSERT(same ? seek < i : seek == i);
    }
    volatile uint64_t sink = sum;
    (void)sink;
    free(keys[0]);
    free(keys[1]);
}

/* ---- Random rows ------------------------------------------------------------ */

enum { TEST_ROWS_ROOM = 5000, TEST_BYTES_ROOM = 8 << 20 };

/* Keys of a style: how they start, which bytes they are made of, how long they get. */
struct test_key_style {
    size_t common_len;
    size_t len_max;       /* behind the common part */
    const char *alphabet; /* NULL: any byte */
    size_t alphabet_len;
    uint64_t lsn_range;
    uint32_t versions_max;
    bool fixed_len, deletes;
};

static const struct test_key_style test_key_styles[] = {
    {.common_len = 0, .len_max = 16, .lsn_range = 1, .versions_max = 1, .fixed_len = true},
    {.common_len = 5, .len_max = 20, .lsn_range = 1000, .versions_max = 1, .deletes = true},
    {.common_len = 0,
     .len_max = 4,
     .alphabet = "\0\1\377k",
     .alphabet_len = 4,
     .lsn_range = 50,
     .versions_max = 4},
    {.common_len = 0,
     .len_max = 12,
     .alphabet = "\0\377",
     .alphabet_len = 2,
     .lsn_range = 1,
     .versions_max = 1},
    {.common_len = 3,
     .len_max = 18,
     .alphabet = "\0k",
     .alphabet_len = 2,
     .lsn_range = 9,
     .versions_max = 6,
     .deletes = true},
    {.common_len = 40,
     .len_max = 12,
     .alphabet = "\0",
     .alphabet_len = 1,
     .lsn_range = UINT64_MAX,
     .versions_max = 40},
    {.common_len = 8, .len_max = 24, .alphabet = "a", .alphabet_len = 1, .lsn_range = 3, .versions_max = 2},
    {.common_len = 8, .len_max = 8, .lsn_range = 1ULL << 40, .versions_max = 2, .fixed_len = true},
};

static inline struct bytes
test_random_key(struct test_rows *rows, const struct test_key_style *style, struct rng *rng)
{
    uint8_t key[128];
    for (size_t i = 0; i < style->common_len; i++) {
        key[i] = (uint8_t)(i * 37);
    }
    size_t least = style->common_len == 0 ? 1 : 0;
    size_t more =
        style->fixed_len ? style->len_max : least + (size_t)rng_below(rng, style->len_max + 1 - least);
    for (size_t i = 0; i < more; i++) {
        key[style->common_len + i] = style->alphabet == NULL
                                         ? (uint8_t)rng_next(rng)
                                         : (uint8_t)style->alphabet[rng_below(rng, style->alphabet_len)];
    }
    return test_rows_keep(rows, key, style->common_len + more);
}

static inline void
test_random_rows(struct test_rows *rows, const struct test_key_style *style, uint32_t count, struct rng *rng)
{
    uint8_t value[64];
    test_rows_init(rows, TEST_ROWS_ROOM, TEST_BYTES_ROOM);
    while (rows->count < count) {
        struct bytes key = test_random_key(rows, style, rng);
        uint32_t versions = 1 + (uint32_t)rng_below(rng, style->versions_max);
        for (uint32_t i = 0; i < versions && rows->count < count; i++) {
            struct test_row *row = &rows->at[rows->count++];
            *row = (struct test_row){.key = key, .lsn = rng_below(rng, style->lsn_range), .op = ENTRY_PUT};
            size_t len = (size_t)rng_below(rng, sizeof value);
            memset(value, (int)rows->count, len);
            row->value = test_rows_keep(rows, value, len);
            if (style->deletes && rng_below(rng, 4) == 0) {
                row->op = ENTRY_DELETE;
                row->value.len = 0;
            } else if (style->deletes && len >= EXPIRY_BYTES && rng_below(rng, 4) == 0) {
                row->op = ENTRY_PUT_EXPIRING;
            }
        }
    }
    test_rows_settle(rows);
}

/* A copy at an odd address, with nothing allocated behind it. */
static inline uint8_t *
test_exact_copy(struct bytes bytes, struct bytes *out)
{
    uint8_t *ptr = malloc(bytes.len + 1);
    ASSERT(ptr != NULL);
    memcpy(ptr + 1, bytes.ptr, bytes.len);
    *out = bytes_make(ptr + 1, bytes.len);
    return ptr;
}

static inline struct test_row
test_row_of(const void *key, size_t klen, uint64_t lsn, enum entry_op op, const char *value)
{
    return (struct test_row){
        .key = bytes_make(key, klen), .lsn = lsn, .op = op, .value = bytes_make(value, strlen(value))};
}

#endif
