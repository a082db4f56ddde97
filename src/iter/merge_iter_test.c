/* SPDX-License-Identifier: MIT */
/*
 * Goal: a merge is the sorted union of its children, wherever one walks, and
 * survives children that fail or grow.
 * Method: random children (shared keys, many versions, the same row in several
 * children, long shared prefixes) against one sorted array, in random walks
 * that mix all six operations; children hand out copies, so that a row kept
 * too long is a use after free.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/rng.h"
#include "format/log_format.h"
#include "iter/array_iter.h"
#include "iter/merge_iter.h"

enum { CHILDREN_MAX = 20, ROWS_MAX = 400, KEY_MAX = 120 };

struct world {
    struct rng rng;
    size_t child_count;
    struct array_row rows[CHILDREN_MAX][ROWS_MAX];
    size_t row_counts[CHILDREN_MAX];
    struct array_row all[CHILDREN_MAX * ROWS_MAX]; /* the model; value = {child, row index} */
    size_t all_count;
    uint8_t keys[CHILDREN_MAX * ROWS_MAX][KEY_MAX];
    uint8_t values[CHILDREN_MAX * ROWS_MAX][2];
    size_t used;
};

static int
compare_rows(const void *a, const void *b)
{
    return array_row_compare(a, b);
}

static int
compare_model(const void *a, const void *b)
{
    const struct array_row *left = a;
    const struct array_row *right = b;
    int order = array_row_compare(left, right);
    return order != 0 ? order : left->value.ptr[0] - right->value.ptr[0];
}

/* A key of a small alphabet behind one of a few prefixes: some long, some empty. */
static size_t
make_key(struct rng *rng, unsigned style, uint8_t *out)
{
    size_t prefix = style == 0 ? 0 : style == 1 ? 9 : style == 2 ? 70 : rng_below(rng, 4) * 5;
    memset(out, 'p', prefix);
    if (style == 3 && prefix > 0) {
        out[prefix - 1] = (uint8_t)(rng_below(rng, 2) ? 'p' : 0xff);
    }
    size_t tail = 1 + rng_below(rng, 12);
    for (size_t i = 0; i < tail; i++) {
        static const uint8_t alphabet[] = {0, 'a', 'b', 0xff};
        out[prefix + i] = alphabet[rng_below(rng, sizeof alphabet)];
    }
    return prefix + tail;
}

static bool
row_is_taken(const struct world *world, size_t child, struct bytes key, uint64_t lsn)
{
    for (size_t i = 0; i < world->row_counts[child]; i++) {
        const struct array_row *row = &world->rows[child][i];
        if (row->lsn == lsn && bytes_equal(row->key, key)) {
            return true;
        }
    }
    return false;
}

static void
world_fill(struct world *world, uint64_t seed, size_t child_count, size_t rows_max)
{
    memset(world, 0, sizeof *world);
    world->rng.state = seed;
    world->child_count = child_count;
    unsigned style = (unsigned)rng_below(&world->rng, 4);
    uint64_t lsns = 1 + rng_below(&world->rng, 40);
    for (size_t child = 0; child < child_count; child++) {
        size_t wanted = rng_below(&world->rng, rows_max + 1);
        for (size_t i = 0; i < wanted; i++) {
            size_t at = world->used;
            struct bytes key;
            if (at > 0 && rng_below(&world->rng, 3) == 0) { /* another version, or the same row again */
                key = world->all[rng_below(&world->rng, world->all_count)].key;
            } else {
                key = bytes_make(world->keys[at], make_key(&world->rng, style, world->keys[at]));
            }
            uint64_t lsn = rng_below(&world->rng, lsns);
            if (row_is_taken(world, child, key, lsn)) {
                continue;
            }
            world->used++;
            world->values[at][0] = (uint8_t)child;
            world->values[at][1] = (uint8_t)at;
            struct array_row row = {.key = key,
                                    .value = bytes_make(world->values[at], 2),
                                    .lsn = lsn,
                                    .op = at % 3 == 0 ? ENTRY_DELETE : ENTRY_PUT};
            world->rows[child][world->row_counts[child]++] = row;
            world->all[world->all_count++] = row;
        }
        qsort(world->rows[child], world->row_counts[child], sizeof(struct array_row), compare_rows);
    }
    qsort(world->all, world->all_count, sizeof(struct array_row), compare_model);
}

static struct iter *
world_merge(const struct world *world, struct iter *children[CHILDREN_MAX])
{
    for (size_t i = 0; i < world->child_count; i++) {
        assert_int_equal(array_iter_create(world->rows[i], world->row_counts[i], &mem_default, &children[i]),
                         ESKER_OK);
        array_iter_hand_out_copies(children[i]);
    }
    struct iter *merge;
    assert_int_equal(merge_iter_create(children, world->child_count, &mem_default, &merge), ESKER_OK);
    return merge;
}

static void
assert_stands_at(const struct world *world, const struct iter *merge, esker_status status, size_t at)
{
    if (at >= world->all_count) {
        assert_int_equal(status, ESKER_END);
        return;
    }
    const struct array_row *row = &world->all[at];
    assert_int_equal(status, ESKER_OK);
    assert_true(bytes_equal(merge->key, row->key));
    assert_int_equal(merge->lsn, row->lsn);
    assert_int_equal(merge->op, row->op);
    assert_true(bytes_equal(merge->value, row->value));
}

static size_t
model_rank(const struct world *world, struct bytes key)
{
    size_t rank = 0;
    while (rank < world->all_count && bytes_compare(world->all[rank].key, key) < 0) {
        rank++;
    }
    return rank;
}

/* One random operation; at: where the model stands, all_count = nowhere. */
static size_t
random_step(struct world *world, struct iter *merge, size_t at)
{
    uint8_t raw[KEY_MAX];
    struct bytes key = bytes_make(raw, make_key(&world->rng, (unsigned)rng_below(&world->rng, 4), raw));
    if (world->all_count > 0 && rng_below(&world->rng, 2) == 0) {
        key = world->all[rng_below(&world->rng, world->all_count)].key;
    }
    uint64_t choice = rng_below(&world->rng, 20);
    bool standing = at < world->all_count;
    esker_status status;
    if (choice == 0) {
        status = iter_first(merge);
        at = 0;
    } else if (choice == 1) {
        status = iter_last(merge);
        at = world->all_count - 1;
    } else if (choice == 2 || (!standing && choice < 11)) {
        status = iter_seek(merge, key);
        at = model_rank(world, key);
    } else if (choice == 3 || !standing) {
        status = iter_seek_before(merge, key);
        at = model_rank(world, key) - 1;
    } else if (choice < 12) {
        status = iter_next(merge);
        at++;
    } else {
        status = iter_prev(merge);
        at--;
    }
    assert_stands_at(world, merge, status, at);
    return at < world->all_count ? at : world->all_count;
}

static void
merge_iter__walks_like_the_sorted_union(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct rng rng = {.state = seed * 77};
        size_t child_count = rng_below(&rng, CHILDREN_MAX + 1);
        world_fill(world, seed, child_count, seed % 3 == 0 ? 4 : seed % 3 == 1 ? 40 : 120);
        struct iter *children[CHILDREN_MAX];
        struct iter *merge = world_merge(world, children);
        size_t at = world->all_count;
        for (size_t i = 0; i < 600; i++) {
            at = random_step(world, merge, at);
        }
        iter_destroy(merge);
    }
    free(world);
}

static void
merge_iter__whole_scans_both_ways(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        world_fill(world, seed * 1001, 2 + seed % (CHILDREN_MAX - 2), ROWS_MAX);
        struct iter *children[CHILDREN_MAX];
        struct iter *merge = world_merge(world, children);
        esker_status status = iter_first(merge);
        for (size_t at = 0; at <= world->all_count; at++) {
            assert_stands_at(world, merge, status, at);
            status = status == ESKER_OK ? iter_next(merge) : status;
        }
        status = iter_last(merge);
        for (size_t at = world->all_count; at-- > 0;) {
            assert_stands_at(world, merge, status, at);
            status = iter_prev(merge);
        }
        assert_int_equal(status, ESKER_END);
        iter_destroy(merge);
    }
    free(world);
}

/* Runs of one child long enough for the shortcut past the tournament, with
 * prefixes that come and go. */
static void
merge_iter__long_runs_of_one_child(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof *world);
    struct rng rng = {.state = 5};
    for (unsigned round = 0; round < 20; round++) {
        memset(world, 0, sizeof *world);
        world->rng.state = round;
        world->child_count = 2 + round % 6;
        size_t run = 0;
        size_t child = 0;
        for (size_t i = 0; i < 2000; i++) {
            if (run == 0) {
                child = rng_below(&rng, world->child_count);
                run = 1 + rng_below(&rng, 50);
            }
            run--;
            if (world->row_counts[child] == ROWS_MAX) {
                continue;
            }
            int len = snprintf((char *)world->keys[i], KEY_MAX, "%s/object-%08zu",
                               round % 2 ? "tenant-of-some-length" : "t", i / 3);
            world->values[i][0] = (uint8_t)child;
            struct array_row row = {.key = bytes_make(world->keys[i], (size_t)len),
                                    .value = bytes_make(world->values[i], 2),
                                    .lsn = 10000 - i,
                                    .op = ENTRY_PUT};
            world->rows[child][world->row_counts[child]++] = row;
            world->all[world->all_count++] = row;
        }
        struct iter *children[CHILDREN_MAX];
        struct iter *merge = world_merge(world, children);
        size_t at = world->all_count;
        for (size_t i = 0; i < 5; i++) {
            esker_status status = i % 2 ? iter_last(merge) : iter_first(merge);
            at = i % 2 ? world->all_count - 1 : 0;
            while (at < world->all_count) {
                assert_stands_at(world, merge, status, at);
                status = i % 2 ? iter_prev(merge) : iter_next(merge);
                at = i % 2 ? at - 1 : at + 1;
            }
            assert_int_equal(status, ESKER_END);
        }
        iter_destroy(merge);
    }
    free(world);
}

static void
merge_iter__a_failing_child_is_reported_and_left_behind(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        world_fill(world, seed, 2 + seed % 5, 30);
        struct iter *children[CHILDREN_MAX];
        struct iter *merge = world_merge(world, children);
        size_t failing = seed % world->child_count;
        size_t at = world->all_count;
        unsigned failures = 0;
        for (size_t i = 0; i < 400; i++) {
            if (i % 40 == 0) {
                array_iter_fail_after(children[failing], rng_below(&world->rng, 12), ESKER_CORRUPT);
            }
            bool standing = at < world->all_count;
            esker_status status;
            if (!standing) {
                status = i % 2 ? iter_first(merge) : iter_last(merge);
                at = i % 2 ? 0 : world->all_count - 1;
            } else if (rng_below(&world->rng, 3) > 0) {
                status = iter_next(merge);
                at++;
            } else {
                status = iter_prev(merge);
                at--;
            }
            if (status == ESKER_CORRUPT) {
                assert_int_equal(status_last()->status, ESKER_CORRUPT);
                failures++;
                at = world->all_count;
                continue;
            }
            assert_stands_at(world, merge, status, at);
            at = at < world->all_count ? at : world->all_count;
        }
        assert_true(failures > 0);
        iter_destroy(merge);
    }
    free(world);
}

/* A source that takes in rows while it is read, as a live memtable does. */
struct growing_iter {
    struct iter base;
    const struct array_row *rows;
    const bool *there;
    size_t count, at;
};

static esker_status
growing_stand(struct growing_iter *growing, size_t at, bool backward)
{
    while (at < growing->count && !growing->there[at]) {
        at += backward ? SIZE_MAX : 1;
    }
    growing->at = at;
    if (at >= growing->count) {
        return ESKER_END;
    }
    growing->base.key = growing->rows[at].key;
    growing->base.value = growing->rows[at].value;
    growing->base.lsn = growing->rows[at].lsn;
    growing->base.op = growing->rows[at].op;
    return ESKER_OK;
}

static esker_status
growing_first(struct iter *it)
{
    return growing_stand((struct growing_iter *)it, 0, false);
}

static esker_status
growing_last(struct iter *it)
{
    struct growing_iter *growing = (struct growing_iter *)it;
    return growing_stand(growing, growing->count - 1, true);
}

static esker_status
growing_next(struct iter *it)
{
    struct growing_iter *growing = (struct growing_iter *)it;
    return growing_stand(growing, growing->at + 1, false);
}

static esker_status
growing_prev(struct iter *it)
{
    struct growing_iter *growing = (struct growing_iter *)it;
    return growing_stand(growing, growing->at - 1, true);
}

static void
growing_destroy(struct iter *it)
{
    (void)it;
}

static const struct iter_ops growing_ops = {
    .first = growing_first,
    .last = growing_last,
    .next = growing_next,
    .prev = growing_prev,
    .destroy = growing_destroy,
};

/* Rows that were there from the start come out each time, in order; newcomers
 * may or may not be seen, but never break the order. */
static void
merge_iter__growing_children_keep_the_order(void **state)
{
    (void)state;
    struct world *world = malloc(sizeof *world);
    for (uint64_t seed = 1; seed <= 100; seed++) {
        world_fill(world, seed, 2 + seed % 4, 40);
        static bool there[CHILDREN_MAX][ROWS_MAX];
        struct growing_iter growing[CHILDREN_MAX];
        struct iter *children[CHILDREN_MAX];
        for (size_t i = 0; i < world->child_count; i++) {
            for (size_t j = 0; j < world->row_counts[i]; j++) {
                there[i][j] = rng_below(&world->rng, 3) == 0;
            }
            growing[i] = (struct growing_iter){.base.ops = &growing_ops,
                                               .rows = world->rows[i],
                                               .there = there[i],
                                               .count = world->row_counts[i]};
            children[i] = &growing[i].base;
        }
        struct iter *merge;
        assert_int_equal(merge_iter_create(children, world->child_count, &mem_default, &merge), ESKER_OK);
        esker_status status = iter_first(merge);
        struct array_row last = {0};
        int direction = 0; /* of the step that led here */
        while (status == ESKER_OK) {
            struct array_row row = {.key = merge->key, .value = merge->value, .lsn = merge->lsn};
            if (direction != 0) {
                assert_true(compare_model(&row, &last) * direction > 0);
            }
            last = row;
            for (unsigned n = 0; n < 2; n++) {
                size_t child = rng_below(&world->rng, world->child_count);
                if (world->row_counts[child] > 0) {
                    there[child][rng_below(&world->rng, world->row_counts[child])] = true;
                }
            }
            direction = rng_below(&world->rng, 3) == 0 ? -1 : 1;
            status = direction > 0 ? iter_next(merge) : iter_prev(merge);
        }
        assert_int_equal(status, ESKER_END);
        iter_destroy(merge);
    }
    free(world);
}

static void
merge_iter__no_source_and_one_source(void **state)
{
    (void)state;
    struct iter *merge;
    assert_int_equal(merge_iter_create(NULL, 0, &mem_default, &merge), ESKER_OK);
    assert_int_equal(iter_first(merge), ESKER_END);
    assert_int_equal(iter_last(merge), ESKER_END);
    assert_int_equal(iter_seek(merge, bytes_make("a", 1)), ESKER_END);
    assert_int_equal(iter_seek_before(merge, bytes_make("a", 1)), ESKER_END);
    iter_destroy(merge);

    struct array_row row = {.key = bytes_make("k", 1), .lsn = 1, .op = ENTRY_PUT};
    struct iter *child;
    assert_int_equal(array_iter_create(&row, 1, &mem_default, &child), ESKER_OK);
    assert_int_equal(merge_iter_create(&child, 1, &mem_default, &merge), ESKER_OK);
    assert_ptr_equal(merge, child);
    iter_destroy(merge);
}

/* Fails the allocation after `left` more. */
struct scarce {
    unsigned left;
};

static void *
scarce_alloc(void *ctx, size_t size)
{
    struct scarce *scarce = ctx;
    return scarce->left-- == 0 ? NULL : malloc(size);
}

static void *
scarce_aligned(void *ctx, size_t alignment, size_t size)
{
    struct scarce *scarce = ctx;
    return scarce->left-- == 0 ? NULL : aligned_alloc(alignment, align_up(size, alignment));
}

static void
scarce_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static void
merge_iter__children_are_destroyed_when_memory_ends(void **state)
{
    (void)state;
    struct array_row row = {.key = bytes_make("k", 1), .lsn = 1, .op = ENTRY_PUT};
    unsigned failures = 0;
    for (unsigned left = 0; left < 8; left++) {
        struct scarce scarce = {.left = left};
        esker_allocator allocator = {scarce_alloc, scarce_aligned, scarce_free, &scarce};
        struct mem mem;
        mem_init(&mem, &allocator);
        struct iter *children[3];
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(array_iter_create(&row, 1, &mem_default, &children[i]), ESKER_OK);
        }
        struct iter *merge = NULL;
        esker_status status = merge_iter_create(children, 3, &mem, &merge);
        if (status == ESKER_OK) {
            iter_destroy(merge);
            continue;
        }
        assert_int_equal(status, ESKER_NO_MEMORY);
        assert_null(merge);
        failures++;
    }
    assert_int_equal(failures, 4);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_iter__walks_like_the_sorted_union),
        cmocka_unit_test(merge_iter__whole_scans_both_ways),
        cmocka_unit_test(merge_iter__long_runs_of_one_child),
        cmocka_unit_test(merge_iter__a_failing_child_is_reported_and_left_behind),
        cmocka_unit_test(merge_iter__growing_children_keep_the_order),
        cmocka_unit_test(merge_iter__no_source_and_one_source),
        cmocka_unit_test(merge_iter__children_are_destroyed_when_memory_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
