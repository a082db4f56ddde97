/* SPDX-License-Identifier: MIT */
/*
 * Goal: a queue (put at the head, look at the first entry, delete it) costs the same
 * in every cycle, however many entries it has seen: iterators do not walk over the
 * deletes again and again, in memtables or in segments. Answers stay right when
 * entries come back into what was dead, and for older snapshots.
 * Method: counted, not timed: the rows that iterators step over, from the stats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "db/db.h"
#include "io/io_sim.h"

enum { QUEUE_LIVE = 1000, QUEUE_KEY_BYTES = 16 };

struct queue {
    struct sim_disk *disk;
    esker_db *db;
    uint64_t head, tail;
};

static void
queue_open(struct queue *q, uint64_t window_bytes, bool manual)
{
    struct db_tuning tuning = {
        .window_bytes_first = window_bytes, .window_bytes_max = window_bytes, .segment_bytes = 1 << 20};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 64 << 20;
    *q = (struct queue){.disk = sim_disk_create(7)};
    assert_int_equal(io_sim_open(q->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, manual, &q->db), ESKER_OK);
}

static void
queue_close(struct queue *q)
{
    assert_int_equal(esker_close(q->db), ESKER_OK);
    sim_disk_destroy(q->disk);
}

static esker_slice
queue_key(uint64_t number, char out[QUEUE_KEY_BYTES + 1])
{
    snprintf(out, QUEUE_KEY_BYTES + 1, "job%013llu", (unsigned long long)(number % 10000000000000U));
    return esker_bytes(out, QUEUE_KEY_BYTES);
}

static uint64_t
queue_skipped(const struct queue *q)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(q->db, &stats), ESKER_OK);
    return stats.rows_skipped;
}

static void
queue_push(struct queue *q)
{
    char key[QUEUE_KEY_BYTES + 1];
    assert_int_equal(esker_put(q->db, queue_key(q->head++, key), esker_str("work"), NULL), ESKER_OK);
}

/* The first or last entry, or the first of a snapshot, is `number`. */
static void
queue_expect(struct queue *q, bool last, const esker_snapshot *snapshot, uint64_t number)
{
    char key[QUEUE_KEY_BYTES + 1];
    esker_iter *it = NULL;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    assert_int_equal(esker_iter_create(q->db, &options, &it), ESKER_OK);
    assert_int_equal(last ? esker_iter_last(it) : esker_iter_first(it), ESKER_OK);
    esker_slice found = esker_iter_key(it);
    assert_int_equal(found.size, QUEUE_KEY_BYTES);
    assert_memory_equal(found.data, queue_key(number, key).data, QUEUE_KEY_BYTES);
    esker_iter_destroy(it);
}

static void
queue_pop(struct queue *q)
{
    char key[QUEUE_KEY_BYTES + 1];
    queue_expect(q, false, NULL, q->tail);
    assert_int_equal(esker_delete(q->db, queue_key(q->tail++, key), NULL), ESKER_OK);
}

static void
queue_cycles(struct queue *q, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        queue_push(q);
        queue_pop(q);
    }
}

/* Of each cycle the same few rows, whatever came before: windows fill, are flushed and merged. */
static void
queue__costs_the_same_in_every_cycle(void **state)
{
    (void)state;
    struct queue q;
    uint32_t cycles = getenv("ESKER_LONG_TESTS") != NULL ? 1000000 : 15000;
    queue_open(&q, 512 << 10, true);
    while (q.head < QUEUE_LIVE) {
        queue_push(&q);
    }
    while (q.tail < cycles) {
        uint64_t before = queue_skipped(&q);
        queue_cycles(&q, 1000);
        assert_in_range(queue_skipped(&q) - before, 0, 64 * 1000);
    }
    assert_true(esker_compact(q.db, NULL, NULL) == ESKER_OK);
    queue_cycles(&q, 10);
    queue_close(&q);
}

/* Many deletes that nobody has looked at: one walk arms, one proves, from then on it is a jump. */
static void
queue__that_was_emptied_unseen_is_walked_twice(void **state)
{
    (void)state;
    struct queue q;
    char key[QUEUE_KEY_BYTES + 1];

    enum { EMPTIED = 10000 };

    queue_open(&q, 16 << 20, true);
    while (q.head < EMPTIED + 10) {
        queue_push(&q);
    }
    while (q.tail < EMPTIED) {
        assert_int_equal(esker_delete(q.db, queue_key(q.tail++, key), NULL), ESKER_OK);
    }
    for (int look = 0; look < 5; look++) {
        uint64_t before = queue_skipped(&q);
        queue_expect(&q, false, NULL, q.tail);
        assert_int_equal(queue_skipped(&q) - before > 1000, look < 2);
    }
    queue_close(&q);
}

/* Entries come back into the dead part; a snapshot of before sees what was there. */
static void
queue__sees_what_comes_back(void **state)
{
    (void)state;
    struct queue q;
    char key[QUEUE_KEY_BYTES + 1];
    esker_snapshot *before = NULL;
    queue_open(&q, 1 << 20, true);
    while (q.head < QUEUE_LIVE) {
        queue_push(&q);
    }
    assert_int_equal(esker_snapshot_create(q.db, &before), ESKER_OK);
    queue_cycles(&q, QUEUE_LIVE / 2);
    queue_expect(&q, false, before, 0);
    for (uint64_t back = q.tail; back-- > 0;) {
        assert_int_equal(esker_put(q.db, queue_key(back, key), esker_str("again"), NULL), ESKER_OK);
        queue_expect(&q, false, NULL, back);
        assert_int_equal(esker_delete(q.db, queue_key(back, key), NULL), ESKER_OK);
        queue_expect(&q, false, NULL, q.tail);
    }
    queue_expect(&q, false, before, 0);
    queue_expect(&q, true, before, QUEUE_LIVE - 1);
    esker_snapshot_release(before);
    queue_close(&q);
}

/* The other way round: taken away at the top. */
static void
stack__costs_the_same_in_every_cycle(void **state)
{
    (void)state;
    struct queue q;
    char key[QUEUE_KEY_BYTES + 1];
    queue_open(&q, 1 << 20, true);
    while (q.head < 6000) {
        queue_push(&q);
    }
    uint64_t before = queue_skipped(&q);
    while (q.head > 1) {
        queue_expect(&q, true, NULL, q.head - 1);
        assert_int_equal(esker_delete(q.db, queue_key(--q.head, key), NULL), ESKER_OK);
    }
    assert_in_range(queue_skipped(&q) - before, 0, 64 * 6000);
    queue_close(&q);
}

/* ---- Against a model ------------------------------------------------------------- */

enum { MODEL_KEYS = 400, MODEL_SNAPSHOTS = 6, MODEL_STEPS = 3000 };

struct model {
    struct queue q;
    struct rng rng;
    bool now[MODEL_KEYS];
    bool then[MODEL_SNAPSHOTS][MODEL_KEYS];
    esker_snapshot *snapshots[MODEL_SNAPSHOTS];
};

static void
model_write(struct model *m)
{
    char key[QUEUE_KEY_BYTES + 1];
    uint64_t from = rng_below(&m->rng, MODEL_KEYS);
    bool many = rng_below(&m->rng, 4) == 0;
    uint64_t count = many ? rng_below(&m->rng, 120) : 1;
    bool present = rng_below(&m->rng, many ? 8 : 2) == 0;
    for (uint64_t i = from; i < MODEL_KEYS && i < from + count; i++) {
        assert_int_equal(present ? esker_put(m->q.db, queue_key(i, key), esker_str("v"), NULL)
                                 : esker_delete(m->q.db, queue_key(i, key), NULL),
                         ESKER_OK);
        m->now[i] = present;
    }
}

/* From a random key in a random direction, some steps. */
static void
model_read(struct model *m)
{
    uint64_t which = rng_below(&m->rng, MODEL_SNAPSHOTS * 2);
    const esker_snapshot *snapshot = which < MODEL_SNAPSHOTS ? m->snapshots[which] : NULL;
    const bool *expected = snapshot != NULL ? m->then[which] : m->now;
    bool backward = rng_below(&m->rng, 2) == 0;
    int64_t at = (int64_t)rng_below(&m->rng, MODEL_KEYS);
    char key[QUEUE_KEY_BYTES + 1];
    esker_read_options options;
    esker_iter *it = NULL;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    assert_int_equal(esker_iter_create(m->q.db, &options, &it), ESKER_OK);
    esker_slice target = queue_key((uint64_t)at, key);
    esker_status status = backward ? esker_iter_seek_for_prev(it, target) : esker_iter_seek(it, target);
    for (uint64_t steps = rng_below(&m->rng, 40); steps > 0; steps--) {
        while (at >= 0 && at < MODEL_KEYS && !expected[at]) {
            at += backward ? -1 : 1;
        }
        if (at < 0 || at >= MODEL_KEYS) {
            assert_int_equal(status, ESKER_END);
            break;
        }
        assert_int_equal(status, ESKER_OK);
        assert_memory_equal(esker_iter_key(it).data, queue_key((uint64_t)at, key).data, QUEUE_KEY_BYTES);
        if (rng_below(&m->rng, 8) == 0) {
            backward = !backward;
        }
        at += backward ? -1 : 1;
        status = backward ? esker_iter_prev(it) : esker_iter_next(it);
    }
    esker_iter_destroy(it);
}

static void
model_snapshot(struct model *m)
{
    uint64_t which = rng_below(&m->rng, MODEL_SNAPSHOTS);
    esker_snapshot_release(m->snapshots[which]);
    m->snapshots[which] = NULL;
    if (rng_below(&m->rng, 2) == 0) {
        assert_int_equal(esker_snapshot_create(m->q.db, &m->snapshots[which]), ESKER_OK);
        memcpy(m->then[which], m->now, sizeof m->now);
    }
}

static void
dead_ranges__hide_nothing(void **state)
{
    (void)state;
    static struct model model;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct model *m = &model;
        *m = (struct model){0};
        m->rng = (struct rng){.state = seed};
        queue_open(&m->q, 16 << 10, true);
        for (uint32_t step = 0; step < MODEL_STEPS; step++) {
            uint64_t what = rng_below(&m->rng, 16);
            if (what < 5) {
                model_write(m);
            } else if (what < 15) {
                model_read(m);
            } else {
                model_snapshot(m);
            }
            if (step % 64 == 0) {
                (void)workers_run_one();
            }
        }
        for (size_t i = 0; i < MODEL_SNAPSHOTS; i++) {
            esker_snapshot_release(m->snapshots[i]);
        }
        queue_close(&m->q);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue__costs_the_same_in_every_cycle),
        cmocka_unit_test(queue__that_was_emptied_unseen_is_walked_twice),
        cmocka_unit_test(queue__sees_what_comes_back),
        cmocka_unit_test(stack__costs_the_same_in_every_cycle),
        cmocka_unit_test(dead_ranges__hide_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
