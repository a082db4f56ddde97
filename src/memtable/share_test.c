/* SPDX-License-Identifier: MIT */
/*
 * Goal: what stripes of threads take from a counter through their stretches is never
 * given to two, and whatever they take in whatever order, what was reckoned for it
 * suffices: index_arena.h's and vnode.h's bounds.
 * Method: takes of node sizes from few stripes by several threads, and of the most
 * wasteful order from all of them by one, with arenas of exactly the bound; the
 * arena asserts when it is not enough. Each unit is marked once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

/* Lets the other threads in, now and then. */
static void race_point(void);
#define ESKER_RACE_POINT(name) race_point()
#define ESKER_RACE_POINT_HELD(name) race_point()

#include "base/mem.h"
#include "base/rng.h"
#include "memtable/index_arena.h"
#include "memtable/vnode.h"

enum { THREADS = 4, THREAD_TAKES = 20000, SHARED_STRIPES = 2 };

static _Thread_local uint32_t race_points;

static void
race_point(void)
{
    if (++race_points % 3 == 0) {
        (void)sched_yield();
    }
}

static const uint32_t node_bytes[] = {48, 104, 472};

struct fixture {
    struct shares *shares;
    struct index_arena arena;
    struct vnodes vnodes;
    _Atomic uint8_t *units, *numbers; /* how often each was given out */
    uint64_t unit_count, number_count;
    _Atomic uint32_t thread_no;
};

static struct fixture *
fixture_make(uint64_t node_bytes_all, uint32_t vnode_count)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->shares = mem_alloc_aligned(&mem_default, CACHE_LINE_BYTES, SHARE_STRIPES * sizeof *f->shares);
    assert_non_null(f->shares);
    memset(f->shares, 0, SHARE_STRIPES * sizeof *f->shares);
    uint64_t bytes = index_arena_striped_bytes(INDEX_ARENA_UNUSED_BYTES + node_bytes_all);
    index_arena_init(&f->arena, NULL, bytes);
    f->arena.shares = f->shares;
    f->vnodes.count_max = vnode_count + SHARE_STRIPES * (VNODE_STRETCH - 1);
    f->vnodes.shares = f->shares;
    f->unit_count = bytes / INDEX_UNIT_BYTES;
    f->number_count = (uint64_t)f->vnodes.count_max + 1;
    f->units = calloc(f->unit_count, sizeof *f->units);
    f->numbers = calloc(f->number_count, sizeof *f->numbers);
    assert_true(f->units != NULL && f->numbers != NULL);
    return f;
}

static void
fixture_free(struct fixture *f)
{
    free(f->units);
    free(f->numbers);
    mem_free(&mem_default, f->shares);
    free(f);
}

static void
take_node(struct fixture *f, uint32_t bytes, uint32_t stripe)
{
    uint32_t first = index_arena_take(&f->arena, bytes, stripe);
    assert_true(first >= INDEX_ARENA_UNUSED_BYTES / INDEX_UNIT_BYTES);
    for (uint32_t i = 0; i < bytes / INDEX_UNIT_BYTES; i++) {
        assert_int_equal(add_relaxed(&f->units[first + i], 1), 0); /* relaxed: only uniqueness */
    }
}

static void
take_vnodes(struct fixture *f, uint32_t count, uint32_t stripe)
{
    uint32_t first = vnode_take(&f->vnodes, count, stripe);
    assert_true(first > 0);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(add_relaxed(&f->numbers[first + i], 1), 0); /* relaxed: only uniqueness */
    }
}

/* What thread `me` takes, counted or taken. */
static void
take_all_of(uint32_t me, struct fixture *f, uint64_t *bytes, uint32_t *vnodes)
{
    struct rng rng = {.state = me + 1};
    for (uint32_t i = 0; i < THREAD_TAKES; i++) {
        uint32_t stripe = (uint32_t)rng_below(&rng, SHARED_STRIPES);
        uint32_t size = node_bytes[rng_below(&rng, 64) == 0 ? 2 : rng_below(&rng, 2)];
        uint32_t count = rng_below(&rng, 64) == 0 ? 5 : 1;
        *bytes += size;
        *vnodes += count;
        if (f != NULL) {
            take_node(f, size, stripe);
            take_vnodes(f, count, stripe);
        }
    }
}

static void *
take_much(void *arg)
{
    struct fixture *f = arg;
    uint64_t bytes = 0;
    uint32_t vnodes = 0;
    take_all_of(add_relaxed(&f->thread_no, 1), f, &bytes, &vnodes); /* relaxed: only uniqueness */
    return NULL;
}

static void
share__gives_nothing_to_two_threads(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    uint32_t vnodes = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        take_all_of(i, NULL, &bytes, &vnodes);
    }
    struct fixture *f = fixture_make(bytes, vnodes);
    pthread_t threads[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_much, f), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    fixture_free(f);
}

/* Each stretch is given up with as much left as can be. */
static void
share__the_bound_holds_for_the_most_wasteful_order(void **state)
{
    (void)state;

    /* So many nodes of 13 units and of 6 leave 5 of 256. */
    enum { MIDDLE = 11, SMALL = 18, NODES = 20000 * (MIDDLE + SMALL) };
    struct fixture *f = fixture_make((uint64_t)NODES / (MIDDLE + SMALL) * (MIDDLE * 104 + SMALL * 48), NODES);
    for (uint32_t i = 0; i < NODES; i++) {
        uint32_t stripe = i / (MIDDLE + SMALL) % SHARE_STRIPES;
        take_node(f, i % (MIDDLE + SMALL) < MIDDLE ? 104 : 48, stripe);
        take_vnodes(f, 1, i % SHARE_STRIPES);
    }
    fixture_free(f);
}

/* The last stretches of all stripes but one are just begun. */
static void
share__the_bound_holds_when_stretches_were_just_begun(void **state)
{
    (void)state;

    enum { LARGE = 1000 };

    struct fixture *f =
        fixture_make((uint64_t)SHARE_STRIPES * 48 + (uint64_t)LARGE * 1048, SHARE_STRIPES + LARGE);
    for (uint32_t stripe = 0; stripe < SHARE_STRIPES; stripe++) {
        take_node(f, 48, stripe);
        take_vnodes(f, 1, stripe);
    }
    for (uint32_t i = 0; i < LARGE; i++) {
        take_node(f, 1048, 0);
    }
    for (uint32_t i = 0; i < LARGE / 2; i++) {
        take_vnodes(f, 2, 0);
    }
    fixture_free(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(share__gives_nothing_to_two_threads),
        cmocka_unit_test(share__the_bound_holds_for_the_most_wasteful_order),
        cmocka_unit_test(share__the_bound_holds_when_stretches_were_just_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
