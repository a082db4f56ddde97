/* SPDX-License-Identifier: MIT */
/*
 * Goal: a reader who walks runs sees what a naive reader sees, whatever the blocks are
 * made of, wherever he turns, and with other sources in between.
 * Method: random rows of several shapes (keys and values of one length or of many, prefixes
 * that agree, versions and deletes), cut into blocks that a source gives out as runs, alone
 * and merged with others; random steps, those by the run whenever it takes them, against a
 * list; and a count of those it took, so that the runs are there at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/rng.h"
#include "iter/array_iter.h"
#include "iter/merge_iter.h"
#include "iter/visible_iter.h"

enum { ROWS_MAX = 400, KEY_MAX = 40, PARTS = 3, BLOCK_ROWS = 40 };

struct table {
    struct rng rng;
    struct array_row rows[ROWS_MAX]; /* in order */
    size_t count;
    uint8_t keys[ROWS_MAX][KEY_MAX];
    uint8_t values[256];
    uint64_t lsn_max;
    struct array_row parts[PARTS][ROWS_MAX];
    size_t part_counts[PARTS];
    const struct array_row *view[ROWS_MAX]; /* what a reader sees */
    long view_count;
};

/* ---- A source of blocks ------------------------------------------------- */

struct blocks_iter {
    struct iter base;
    const struct array_row *rows;
    size_t count, at;
    uint64_t lsn_max;
    size_t block_from, block_to; /* rows of the open block */
    struct block block;
    struct buf raw;
    uint8_t key[KEY_MAX + 8 + ITER_RUN_TAIL_BYTES];
};

static struct blocks_iter *
blocks_of(struct iter *it)
{
    return CONTAINER_OF(it, struct blocks_iter, base);
}

/* Blocks of uneven sizes, the same for each walk. */
static size_t
blocks_border(size_t row)
{
    static const size_t SIZES[] = {1, 7, BLOCK_ROWS, 2, 19};
    size_t from = 0;
    for (size_t i = 0;; i = (i + 1) % 5) {
        if (row < from + SIZES[i]) {
            return from;
        }
        from += SIZES[i];
    }
}

static void
blocks_open(struct blocks_iter *blocks)
{
    size_t from = blocks_border(blocks->at);
    size_t to = from;
    struct block_builder *builder;
    assert_int_equal(block_builder_create(&mem_default, BLOCK_DATA, &builder), ESKER_OK);
    for (; to < blocks->count && blocks_border(to) == from; to++) {
        const struct array_row *row = &blocks->rows[to];
        assert_int_equal(block_builder_add(builder, row->key, row->lsn, (enum entry_op)row->op, row->value),
                         ESKER_OK);
    }
    assert_int_equal(block_builder_finish(builder, &blocks->raw), ESKER_OK);
    block_builder_destroy(builder);
    assert_int_equal(block_open(buf_bytes(&blocks->raw), BLOCK_DATA, &blocks->block), ESKER_OK);
    blocks->block_from = from;
    blocks->block_to = to;
}

static bool
blocks_starts_key(const struct blocks_iter *blocks)
{
    size_t from = blocks->block_from;
    return from == 0 || !bytes_equal(blocks->rows[from - 1].key, blocks->rows[from].key);
}

static esker_status
blocks_show(struct blocks_iter *blocks, size_t at)
{
    if (at >= blocks->count) { /* also -1 */
        return ESKER_END;
    }
    blocks->at = at;
    if (at < blocks->block_from || at >= blocks->block_to) {
        blocks_open(blocks);
    }
    const struct array_row *row = &blocks->rows[at];
    memcpy(blocks->key, row->key.ptr, row->key.len);
    blocks->base.key = bytes_make(blocks->key, row->key.len);
    blocks->base.value = block_value(&blocks->block, (uint32_t)(at - blocks->block_from));
    blocks->base.lsn = row->lsn;
    blocks->base.op = row->op;
    blocks->base.only = (at == 0 || !bytes_equal(row[-1].key, row->key)) &&
                        (at + 1 == blocks->count || !bytes_equal(row[1].key, row->key));
    return ESKER_OK;
}

static size_t
blocks_rank(const struct blocks_iter *blocks, struct bytes key)
{
    size_t at = 0;
    while (at < blocks->count && bytes_compare(blocks->rows[at].key, key) < 0) {
        at++;
    }
    return at;
}

static esker_status
blocks_first(struct iter *it)
{
    return blocks_show(blocks_of(it), 0);
}

static esker_status
blocks_last(struct iter *it)
{
    return blocks_show(blocks_of(it), blocks_of(it)->count - 1);
}

static esker_status
blocks_seek(struct iter *it, struct bytes key)
{
    return blocks_show(blocks_of(it), blocks_rank(blocks_of(it), key));
}

static esker_status
blocks_seek_before(struct iter *it, struct bytes key)
{
    return blocks_show(blocks_of(it), blocks_rank(blocks_of(it), key) - 1);
}

static esker_status
blocks_next(struct iter *it)
{
    return blocks_show(blocks_of(it), blocks_of(it)->at + 1);
}

static esker_status
blocks_prev(struct iter *it)
{
    return blocks_show(blocks_of(it), blocks_of(it)->at - 1);
}

static bool
blocks_run(struct iter *it, uint64_t snapshot_lsn, struct iter_run *out)
{
    struct blocks_iter *blocks = blocks_of(it);
    if (blocks->lsn_max >= snapshot_lsn) {
        return false;
    }
    iter_run_init(out, &blocks->block, (uint32_t)(blocks->at - blocks->block_from), blocks->key,
                  blocks_starts_key(blocks));
    return true;
}

/* Whoever reads the fields in between is to see that they are undefined. */
static void
blocks_run_end(struct iter *it, uint32_t row)
{
    struct blocks_iter *blocks = blocks_of(it);
    assert_true(row < blocks->block_to - blocks->block_from);
    (void)blocks_show(blocks, blocks->block_from + row);
}

static void
blocks_destroy(struct iter *it)
{
    buf_fini(&blocks_of(it)->raw);
    free(blocks_of(it));
}

static struct iter *
blocks_new(const struct array_row *rows, size_t count, uint64_t lsn_max)
{
    static const struct iter_ops OPS = {.first = blocks_first,
                                        .last = blocks_last,
                                        .seek = blocks_seek,
                                        .seek_before = blocks_seek_before,
                                        .next = blocks_next,
                                        .prev = blocks_prev,
                                        .destroy = blocks_destroy,
                                        .run = blocks_run,
                                        .run_end = blocks_run_end};
    struct blocks_iter *blocks = calloc(1, sizeof *blocks);
    assert_non_null(blocks);
    blocks->base.ops = &OPS;
    blocks->rows = rows;
    blocks->count = count;
    blocks->lsn_max = lsn_max;
    buf_init(&blocks->raw, &mem_default);
    return &blocks->base;
}

/* ---- Rows and what is seen of them ------------------------------------------ */

static int
table_order(const void *a, const void *b)
{
    return array_row_compare(a, b);
}

/* Shapes: bit 0 keys of many lengths, bit 1 values of many lengths, bit 2 eight bytes and more that agree,
 * bit 3 versions and deletes. */
static struct bytes
table_key(struct table *table, unsigned shape, uint8_t *out)
{
    size_t agree = (shape & 4) != 0 ? 10 + 4 * rng_below(&table->rng, 2) : 1;
    size_t len = agree + ((shape & 1) != 0 ? 1 + rng_below(&table->rng, KEY_MAX - 15) : 13);
    memset(out, 'k', KEY_MAX);
    for (size_t i = agree; i < len; i++) {
        out[i] = (uint8_t)(rng_below(&table->rng, 4) * 0x55);
    }
    return bytes_make(out, len);
}

/* In parts the versions of a key are anywhere; each part has a stretch of keys mostly for itself. */
static void
table_fill(struct table *table, uint64_t seed)
{
    *table = (struct table){.rng = {.state = seed}};
    struct rng *rng = &table->rng;
    unsigned shape = (unsigned)(seed % 16);
    for (size_t i = 0; i < sizeof table->values; i++) {
        table->values[i] = (uint8_t)i;
    }
    size_t wanted = 1 + rng_below(rng, ROWS_MAX);
    while (table->count < wanted) {
        uint8_t *raw = table->keys[table->count];
        struct bytes key = table_key(table, shape, raw);
        size_t versions = (shape & 8) != 0 && rng_below(rng, 6) == 0 ? 1 + rng_below(rng, 20) : 1;
        size_t mostly = raw[1 + rng_below(rng, 3)] % PARTS;
        for (; versions > 0 && table->count < wanted; versions--) {
            size_t at = table->count++;
            size_t part = rng_below(rng, 8) == 0 ? rng_below(rng, PARTS) : mostly;
            bool is_delete = (shape & 8) != 0 && rng_below(rng, 12) == 0;
            size_t len = is_delete ? 0 : (shape & 2) != 0 ? rng_below(rng, 60) : 20;
            table->rows[at] =
                (struct array_row){.key = key,
                                   .value = bytes_make(table->values + rng_below(rng, 190), len),
                                   .lsn = ++table->lsn_max,
                                   .op = is_delete ? ENTRY_DELETE : ENTRY_PUT};
            table->parts[part][table->part_counts[part]++] = table->rows[at];
        }
    }
    qsort(table->rows, table->count, sizeof table->rows[0], table_order);
    for (size_t i = 0; i < PARTS; i++) {
        qsort(table->parts[i], table->part_counts[i], sizeof table->rows[0], table_order);
    }
}

static void
table_look(struct table *table, uint64_t snapshot_lsn, struct visible_bounds bounds)
{
    table->view_count = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct array_row *row = &table->rows[i];
        size_t newer = i;
        while (newer > 0 && bytes_equal(row[-1 - (long)(i - newer)].key, row->key)) {
            newer--;
        }
        bool hidden = row->lsn >= snapshot_lsn || row->op == ENTRY_DELETE;
        for (; newer < i; newer++) {
            hidden = hidden || table->rows[newer].lsn < snapshot_lsn;
        }
        if (!hidden && bytes_compare(row->key, bounds.lower) >= 0 &&
            (bounds.upper.len == 0 || bytes_compare(row->key, bounds.upper) < 0)) {
            table->view[table->view_count++] = row;
        }
    }
}

static struct iter *
table_source(struct table *table, unsigned kind)
{
    struct iter *sources[PARTS];
    struct iter *source;
    if (kind == 0) {
        return blocks_new(table->rows, table->count, table->lsn_max);
    }
    for (size_t i = 0; i < PARTS; i++) {
        if (kind == 1 || i > 0) {
            sources[i] = blocks_new(table->parts[i], table->part_counts[i], table->lsn_max);
        } else {
            assert_int_equal(
                array_iter_create(table->parts[i], table->part_counts[i], &mem_default, &sources[i]),
                ESKER_OK);
            array_iter_hand_out_copies(sources[i]);
        }
    }
    assert_int_equal(merge_iter_create(sources, PARTS, &mem_default, &source), ESKER_OK);
    return source;
}

/* ---- The law ---------------------------------------------------------------- */

static void
table_check(const struct table *table, const struct iter *it, esker_status status, long at)
{
    if (at < 0 || at >= table->view_count) {
        assert_int_equal(status, ESKER_END);
        return;
    }
    assert_int_equal(status, ESKER_OK);
    assert_true(bytes_equal(it->key, table->view[at]->key));
    assert_true(bytes_equal(it->value, table->view[at]->value));
}

static long
table_rank(const struct table *table, struct bytes key)
{
    long rank = 0;
    while (rank < table->view_count && bytes_compare(table->view[rank]->key, key) < 0) {
        rank++;
    }
    return rank;
}

static long
table_jump(struct table *table, struct iter *it, unsigned shape)
{
    uint8_t raw[KEY_MAX];
    struct bytes key = table_key(table, shape, raw);
    long at = table_rank(table, key);
    switch (rng_below(&table->rng, 4)) {
    case 0:
        table_check(table, it, iter_first(it), 0);
        return 0;
    case 1:
        table_check(table, it, iter_last(it), table->view_count - 1);
        return table->view_count - 1;
    case 2:
        table_check(table, it, iter_seek(it, key), at);
        return at;
    default:
        table_check(table, it, iter_seek_before(it, key), at - 1);
        return at - 1;
    }
}

/* So many steps on from `at`, until an end. */
static long
table_walk(const struct table *table, struct iter *it, long at, bool backward, uint64_t steps,
           uint64_t *by_run)
{
    for (; steps > 0; steps--) {
        if (at == (backward ? -1 : table->view_count)) {
            break;
        }
        bool on_row = at >= 0 && at < table->view_count;
        at += backward ? -1 : 1;
        if (backward ? visible_iter_run_prev(it) : visible_iter_run_next(it)) {
            assert_true(on_row);
            *by_run += 1;
            table_check(table, it, ESKER_OK, at);
        } else {
            table_check(table, it, backward ? iter_prev(it) : iter_next(it), at);
        }
    }
    return at;
}

static void
iter_run__walks_as_a_naive_reader(void **state)
{
    (void)state;
    struct table *table = malloc(sizeof *table);
    assert_non_null(table);
    uint64_t by_run[3] = {0};
    for (uint64_t seed = 1; seed <= 480; seed++) {
        unsigned shape = (unsigned)(seed % 16);
        unsigned kind = (unsigned)(seed / 16 % 3);
        table_fill(table, seed);
        for (unsigned round = 0; round < 3; round++) {
            uint8_t raw[2][KEY_MAX];
            struct visible_bounds bounds = {0};
            if (round > 0) {
                bounds = (struct visible_bounds){.lower = table_key(table, shape, raw[0]),
                                                 .upper = table_key(table, shape, raw[1])};
            }
            uint64_t snapshot_lsn = round == 2 ? 1 + rng_below(&table->rng, table->lsn_max) : UINT64_MAX;
            struct iter *it;
            table_look(table, snapshot_lsn, bounds);
            assert_int_equal(
                visible_iter_create(table_source(table, kind), snapshot_lsn, bounds, &mem_default, &it),
                ESKER_OK);
            for (unsigned i = 0; i < 30; i++) {
                long at = table_jump(table, it, shape);
                for (unsigned turn = 0; turn < 4; turn++) {
                    at = table_walk(table, it, at, rng_below(&table->rng, 2) == 0, rng_below(&table->rng, 60),
                                    &by_run[kind]);
                }
            }
            iter_destroy(it);
        }
    }
    for (unsigned kind = 0; kind < 3; kind++) {
        assert_true(by_run[kind] > 20000);
    }
    free(table);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iter_run__walks_as_a_naive_reader),
    };
    return cmocka_run_group_tests_name("iter_run", tests, NULL, NULL);
}
