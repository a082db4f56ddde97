/* SPDX-License-Identifier: MIT */
/*
 * Goal: at every snapshot, within all bounds, in every order of steps, the
 * entries are those of a reader who looks at each key's versions one by one.
 * Method: random versions (deletes, long runs of one key, values too large to
 * copy) against a naive list; sources whose rows die with each step, alone and
 * merged; walks over both ends; failures; counts of what was stepped over.
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
#include "iter/visible_iter.h"

enum { ROWS_MAX = 600, KEY_MAX = 4, PARTS_MAX = 4, LARGE = 40000 };

struct history {
    struct rng rng;
    struct array_row rows[ROWS_MAX];
    size_t row_count;
    uint8_t keys[ROWS_MAX][KEY_MAX];
    uint64_t lsn_max;
    struct array_row parts[PARTS_MAX][ROWS_MAX];
    size_t part_counts[PARTS_MAX];
    struct iter *sources[PARTS_MAX];
    uint8_t *large;
};

struct view { /* the model */
    const struct array_row *entries[ROWS_MAX];
    size_t count;
};

enum { NOWHERE = -2 };

static int
compare_rows(const void *a, const void *b)
{
    return array_row_compare(a, b);
}

static size_t
random_key(struct rng *rng, uint8_t *out)
{
    size_t len = 1 + rng_below(rng, KEY_MAX);
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(rng_below(rng, 3) * 0x7f);
    }
    return len;
}

static void
history_fill(struct history *history, uint64_t seed)
{
    uint8_t *large = history->large;
    memset(history, 0, sizeof *history);
    history->large = large;
    history->rng.state = seed;
    struct rng *rng = &history->rng;
    size_t wanted = rng_below(rng, seed % 4 == 0 ? 12 : 200);
    uint64_t lsn = 0;
    unsigned delete_in = 2 + (unsigned)rng_below(rng, 4);
    unsigned versions_max = seed % 3 == 0 ? 1 : seed % 3 == 1 ? 4 : 60;
    while (history->row_count < wanted) {
        uint8_t raw[KEY_MAX];
        size_t len = random_key(rng, raw);
        size_t versions = 1 + rng_below(rng, versions_max);
        for (size_t i = 0; i < versions && history->row_count < wanted; i++) {
            size_t at = history->row_count++;
            memcpy(history->keys[at], raw, len);
            size_t value_len = rng_below(rng, 40) == 0 ? LARGE - at : at % 50;
            lsn += 1 + rng_below(rng, 2);
            history->rows[at] = (struct array_row){
                .key = bytes_make(history->keys[at], len),
                .value = bytes_make(large + rng_below(rng, 256), value_len),
                .lsn = lsn,
                .op = rng_below(rng, delete_in) == 0 ? ENTRY_DELETE : ENTRY_PUT,
            };
            size_t part = rng_below(rng, PARTS_MAX);
            history->parts[part][history->part_counts[part]++] = history->rows[at];
        }
    }
    history->lsn_max = lsn;
    qsort(history->rows, history->row_count, sizeof(struct array_row), compare_rows);
    for (size_t i = 0; i < PARTS_MAX; i++) {
        qsort(history->parts[i], history->part_counts[i], sizeof(struct array_row), compare_rows);
    }
}

static struct iter *
history_source(struct history *history, bool merged)
{
    struct iter *source;
    if (!merged) {
        assert_int_equal(array_iter_create(history->rows, history->row_count, &mem_default, &source),
                         ESKER_OK);
        array_iter_hand_out_copies(source);
        history->sources[0] = source;
        return source;
    }
    for (size_t i = 0; i < PARTS_MAX; i++) {
        assert_int_equal(
            array_iter_create(history->parts[i], history->part_counts[i], &mem_default, &history->sources[i]),
            ESKER_OK);
        array_iter_hand_out_copies(history->sources[i]);
    }
    assert_int_equal(merge_iter_create(history->sources, PARTS_MAX, &mem_default, &source), ESKER_OK);
    return source;
}

static void
view_make(const struct history *history, uint64_t snapshot_lsn, struct visible_bounds bounds,
          struct view *view)
{
    view->count = 0;
    for (size_t i = 0; i < history->row_count;) {
        const struct array_row *newest = NULL;
        size_t j = i;
        for (; j < history->row_count && bytes_equal(history->rows[j].key, history->rows[i].key); j++) {
            if (newest == NULL && history->rows[j].lsn < snapshot_lsn) {
                newest = &history->rows[j];
            }
        }
        i = j;
        if (newest == NULL || newest->op == ENTRY_DELETE) {
            continue;
        }
        if ((bounds.lower.len > 0 && bytes_compare(newest->key, bounds.lower) < 0) ||
            (bounds.upper.len > 0 && bytes_compare(newest->key, bounds.upper) >= 0)) {
            continue;
        }
        view->entries[view->count++] = newest;
    }
}

static void
assert_stands_at(const struct view *view, const struct iter *it, esker_status status, long at)
{
    if (at < 0 || at >= (long)view->count) {
        assert_int_equal(status, ESKER_END);
        return;
    }
    const struct array_row *row = view->entries[at];
    assert_int_equal(status, ESKER_OK);
    assert_true(bytes_equal(it->key, row->key));
    assert_int_equal(it->lsn, row->lsn);
    assert_int_equal(it->op, ENTRY_PUT);
    assert_true(bytes_equal(it->value, row->value));
}

static long
view_rank(const struct view *view, struct bytes key)
{
    long rank = 0;
    while (rank < (long)view->count && bytes_compare(view->entries[rank]->key, key) < 0) {
        rank++;
    }
    return rank;
}

/* Some of the keys sought die when the iterator moves.
 * at: an entry, -1 = before the first, count = after the last. */
static long
random_step(struct rng *rng, const struct view *view, struct iter *it, long at)
{
    uint8_t raw[KEY_MAX];
    struct bytes key = bytes_make(raw, random_key(rng, raw));
    long count = (long)view->count;
    uint64_t choice = rng_below(rng, 24);
    esker_status status;
    if (choice == 0) {
        status = iter_first(it);
        at = count > 0 ? 0 : count;
    } else if (choice == 1) {
        status = iter_last(it);
        at = count - 1;
    } else if (choice < 4) {
        if (choice == 3 && at >= 0 && at < count) {
            key = rng_below(rng, 2) ? it->key : bytes_make(it->value.ptr, MIN(it->value.len, (size_t)3));
        }
        at = view_rank(view, key);
        status = iter_seek(it, key);
    } else if (choice < 6) {
        if (choice == 5 && at >= 0 && at < count) {
            key = bytes_make(it->value.ptr, MIN(it->value.len, (size_t)3));
        }
        at = view_rank(view, key) - 1;
        status = iter_seek_before(it, key);
    } else if (at == NOWHERE) {
        status = choice % 2 ? iter_next(it) : iter_prev(it);
        assert_int_equal(status, ESKER_INVALID);
        return at;
    } else if (choice < 15) {
        status = iter_next(it);
        at = at < count ? at + 1 : count;
    } else {
        status = iter_prev(it);
        at = at >= 0 ? at - 1 : -1;
    }
    assert_stands_at(view, it, status, at);
    return at;
}

static struct visible_bounds
random_bounds(struct rng *rng, uint8_t raw[2][KEY_MAX])
{
    struct visible_bounds bounds = {0};
    if (rng_below(rng, 2)) {
        bounds.lower = bytes_make(raw[0], random_key(rng, raw[0]));
    }
    if (rng_below(rng, 2)) {
        bounds.upper = bytes_make(raw[1], random_key(rng, raw[1]));
    }
    return bounds;
}

static struct iter *
visible_make(struct iter *source, uint64_t snapshot_lsn, struct visible_bounds bounds)
{
    struct iter *it;
    assert_int_equal(visible_iter_create(source, snapshot_lsn, bounds, &mem_default, &it), ESKER_OK);
    return it;
}

static struct history *
history_new(void)
{
    struct history *history = malloc(sizeof *history);
    history->large = malloc(LARGE + 256);
    for (size_t i = 0; i < LARGE + 256; i++) {
        history->large[i] = (uint8_t)(i % 3 * 0x7f);
    }
    return history;
}

static void
history_free(struct history *history)
{
    free(history->large);
    free(history);
}

static void
visible_iter__walks_like_a_naive_reader(void **state)
{
    (void)state;
    struct history *history = history_new();
    struct view *view = malloc(sizeof *view);
    for (uint64_t seed = 1; seed <= 300; seed++) {
        history_fill(history, seed);
        for (unsigned round = 0; round < 6; round++) {
            uint8_t raw[2][KEY_MAX];
            struct visible_bounds bounds = random_bounds(&history->rng, raw);
            uint64_t snapshot_lsn = round == 0 ? UINT64_MAX : rng_below(&history->rng, history->lsn_max + 2);
            view_make(history, snapshot_lsn, bounds, view);
            struct iter *it = visible_make(history_source(history, round % 2), snapshot_lsn, bounds);
            memset(raw, 'x', sizeof raw); /* the bounds were copied */
            long at = NOWHERE;
            for (size_t i = 0; i < 200; i++) {
                at = random_step(&history->rng, view, it, at);
            }
            iter_destroy(it);
        }
    }
    free(view);
    history_free(history);
}

static void
visible_iter__every_snapshot_both_ways(void **state)
{
    (void)state;
    struct history *history = history_new();
    struct view *view = malloc(sizeof *view);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        history_fill(history, seed * 31);
        for (uint64_t snapshot_lsn = 0; snapshot_lsn <= history->lsn_max + 1; snapshot_lsn++) {
            view_make(history, snapshot_lsn, (struct visible_bounds){0}, view);
            struct iter *it =
                visible_make(history_source(history, seed % 2), snapshot_lsn, (struct visible_bounds){0});
            esker_status status = iter_first(it);
            for (long at = 0; at < (long)view->count; at++) {
                assert_stands_at(view, it, status, at);
                status = iter_next(it);
            }
            assert_int_equal(status, ESKER_END);
            for (long at = (long)view->count - 1; at >= -1; at--) {
                assert_stands_at(view, it, iter_prev(it), at);
            }
            iter_destroy(it);
        }
    }
    free(view);
    history_free(history);
}

static void
visible_iter__ends_are_sticky_and_lead_back(void **state)
{
    (void)state;
    struct array_row rows[] = {
        {.key = bytes_make("a", 1), .lsn = 1, .op = ENTRY_PUT},
        {.key = bytes_make("b", 1), .lsn = 2, .op = ENTRY_PUT},
        {.key = bytes_make("c", 1), .lsn = 3, .op = ENTRY_PUT},
    };
    struct iter *source;
    assert_int_equal(array_iter_create(rows, 3, &mem_default, &source), ESKER_OK);
    struct iter *it = visible_make(source, 9, (struct visible_bounds){.upper = bytes_make("c", 1)});
    assert_int_equal(iter_next(it), ESKER_INVALID);
    assert_int_equal(iter_prev(it), ESKER_INVALID);
    assert_int_equal(iter_last(it), ESKER_OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(iter_next(it), ESKER_END);
    }
    assert_int_equal(iter_prev(it), ESKER_OK);
    assert_int_equal(it->key.ptr[0], 'b');
    assert_int_equal(iter_prev(it), ESKER_OK);
    assert_int_equal(it->key.ptr[0], 'a');
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(iter_prev(it), ESKER_END);
    }
    assert_int_equal(iter_next(it), ESKER_OK);
    assert_int_equal(it->key.ptr[0], 'a');
    assert_int_equal(iter_seek(it, bytes_make("bb", 2)), ESKER_END);
    assert_int_equal(iter_prev(it), ESKER_OK);
    assert_int_equal(it->key.ptr[0], 'b');
    assert_int_equal(iter_seek_before(it, bytes_make("a", 1)), ESKER_END);
    assert_int_equal(iter_next(it), ESKER_OK);
    assert_int_equal(it->key.ptr[0], 'a');
    iter_destroy(it);
}

static void
visible_iter__a_failing_source_is_reported_and_left_behind(void **state)
{
    (void)state;
    struct history *history = history_new();
    struct view *view = malloc(sizeof *view);
    unsigned failures = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        history_fill(history, seed);
        uint64_t snapshot_lsn = rng_below(&history->rng, history->lsn_max + 2);
        view_make(history, snapshot_lsn, (struct visible_bounds){0}, view);
        struct iter *it =
            visible_make(history_source(history, false), snapshot_lsn, (struct visible_bounds){0});
        for (unsigned round = 0; round < 10; round++) {
            array_iter_fail_after(history->sources[0], rng_below(&history->rng, 40), ESKER_IO);
            bool backward = round % 2;
            long count = (long)view->count;
            long at = backward ? count : -1;
            esker_status status = backward ? iter_last(it) : iter_first(it);
            while (status == ESKER_OK) {
                at += backward ? -1 : 1;
                assert_stands_at(view, it, status, at);
                status = backward ? iter_prev(it) : iter_next(it);
            }
            if (status == ESKER_IO) {
                failures++;
                assert_int_equal(iter_next(it), ESKER_INVALID);
                assert_int_equal(iter_prev(it), ESKER_INVALID);
                continue;
            }
            assert_int_equal(status, ESKER_END);
            assert_int_equal(at, backward ? MIN(0, count) : count - 1);
        }
        iter_destroy(it);
    }
    assert_true(failures > 100);
    free(view);
    history_free(history);
}

static size_t
longest_run(const struct history *history)
{
    size_t longest = 0;
    for (size_t i = 0, run = 0; i < history->row_count; i++) {
        run = i > 0 && bytes_equal(history->rows[i - 1].key, history->rows[i].key) ? run + 1 : 1;
        longest = MAX(longest, run);
    }
    return longest;
}

static void
visible_iter__counts_what_it_steps_over(void **state)
{
    (void)state;
    struct history *history = history_new();
    struct view *view = malloc(sizeof *view);
    unsigned counted = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        history_fill(history, seed);
        if (longest_run(history) > 16) {
            continue; /* left by seeks */
        }
        counted++;
        uint64_t snapshot_lsn = rng_below(&history->rng, history->lsn_max + 2);
        view_make(history, snapshot_lsn, (struct visible_bounds){0}, view);
        for (size_t i = 0; i < view->count; i++) {
            /* A value that is fetched by a seek passes its newer versions twice. */
            ((struct array_row *)(uintptr_t)view->entries[i])->value.len %= 1000;
        }
        struct iter *it =
            visible_make(history_source(history, false), snapshot_lsn, (struct visible_bounds){0});
        assert_int_equal(visible_iter_take_skipped(it), 0);
        esker_status status = iter_first(it);
        while (status == ESKER_OK) {
            status = iter_next(it);
        }
        assert_int_equal(visible_iter_take_skipped(it), history->row_count - view->count);
        assert_int_equal(visible_iter_take_skipped(it), 0);
        status = iter_last(it);
        while (status == ESKER_OK) {
            status = iter_prev(it);
        }
        assert_int_equal(visible_iter_take_skipped(it), history->row_count - view->count);
        iter_destroy(it);
    }
    assert_true(counted > 50);
    free(view);
    history_free(history);
}

/* 10 000 versions of one key between two others. */
static void
visible_iter__long_runs_are_left_by_a_seek(void **state)
{
    (void)state;

    enum { VERSIONS = 10000 };
    struct array_row *rows = calloc(VERSIONS + 2, sizeof *rows);
    rows[0] = (struct array_row){.key = bytes_make("a", 1), .lsn = 1, .op = ENTRY_PUT};
    for (size_t i = 1; i <= VERSIONS; i++) {
        rows[i] = (struct array_row){.key = bytes_make("b", 1), .lsn = 2 * VERSIONS - i, .op = ENTRY_PUT};
    }
    rows[VERSIONS + 1] = (struct array_row){.key = bytes_make("c", 1), .lsn = 2, .op = ENTRY_PUT};
    for (unsigned deleted = 0; deleted < 2; deleted++) {
        rows[1].op = deleted ? ENTRY_DELETE : ENTRY_PUT;
        struct iter *source;
        assert_int_equal(array_iter_create(rows, VERSIONS + 2, &mem_default, &source), ESKER_OK);
        struct iter *it = visible_make(source, UINT64_MAX, (struct visible_bounds){0});
        esker_status status = iter_first(it);
        unsigned entries = 0;
        for (; status == ESKER_OK; entries++) {
            status = iter_next(it);
        }
        assert_int_equal(entries, 3 - deleted);
        assert_true(visible_iter_take_skipped(it) < 64);
        status = iter_last(it);
        for (entries = 0; status == ESKER_OK; entries++) {
            status = iter_prev(it);
        }
        assert_int_equal(entries, 3 - deleted);
        assert_true(visible_iter_take_skipped(it) < 64);
        iter_destroy(it);
    }
    free(rows);
}

struct scarce {
    unsigned left;
};

static void *
scarce_alloc(void *ctx, size_t size)
{
    struct scarce *scarce = ctx;
    return scarce->left == 0 || scarce->left-- == 0 ? NULL : malloc(size);
}

static void *
scarce_aligned(void *ctx, size_t alignment, size_t size)
{
    (void)alignment;
    return scarce_alloc(ctx, size);
}

static void
scarce_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static void
visible_iter__no_memory_is_a_status(void **state)
{
    (void)state;
    struct array_row rows[] = {
        {.key = bytes_make("a", 1), .value = bytes_make("1", 1), .lsn = 1, .op = ENTRY_PUT},
        {.key = bytes_make("b", 1), .value = bytes_make("2", 1), .lsn = 3, .op = ENTRY_PUT},
    };
    for (unsigned left = 0; left < 8; left++) {
        struct scarce scarce = {.left = left};
        esker_allocator allocator = {scarce_alloc, scarce_aligned, scarce_free, &scarce};
        struct mem mem;
        mem_init(&mem, &allocator);
        struct iter *source;
        assert_int_equal(array_iter_create(rows, 2, &mem_default, &source), ESKER_OK);
        struct visible_bounds bounds = {.lower = bytes_make("a", 1), .upper = bytes_make("z", 1)};
        struct iter *it = NULL;
        esker_status status = visible_iter_create(source, 9, bounds, &mem, &it);
        if (status != ESKER_OK) {
            assert_int_equal(status, ESKER_NO_MEMORY);
            assert_null(it);
            assert_true(left < 3);
            continue;
        }
        status = iter_last(it);
        if (status != ESKER_OK) {
            assert_int_equal(status, ESKER_NO_MEMORY);
            assert_int_equal(iter_prev(it), ESKER_INVALID);
            scarce.left = 8;
            assert_int_equal(iter_last(it), ESKER_OK);
        }
        assert_int_equal(it->key.ptr[0], 'b');
        iter_destroy(it);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(visible_iter__walks_like_a_naive_reader),
        cmocka_unit_test(visible_iter__every_snapshot_both_ways),
        cmocka_unit_test(visible_iter__ends_are_sticky_and_lead_back),
        cmocka_unit_test(visible_iter__a_failing_source_is_reported_and_left_behind),
        cmocka_unit_test(visible_iter__counts_what_it_steps_over),
        cmocka_unit_test(visible_iter__long_runs_are_left_by_a_seek),
        cmocka_unit_test(visible_iter__no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
