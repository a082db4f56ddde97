/* SPDX-License-Identifier: MIT */
/*
 * Goal: flushes and merges go in steps that are counted by kind and length; one
 * that is told to stop begins no further step; how far it is, is told; what writes
 * are charged falls without a cliff; log bytes are counted whoever writes them.
 * Method: the simulated disk, no threads, so that the test says when a job runs;
 * counters before and after.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db_compact.h"
#include "db/db_pace.h"
#include "io/io_sim.h"

enum { STEPS_RUNS_MOST = 100000, STEPS_MANY_KEYS = 70000, STEPS_EVENTS = 64 };

struct steps {
    struct sim_disk *disk;
    esker_db *db;
    esker_event events[STEPS_EVENTS];
    uint32_t event_count;
};

static void
steps_note_event(void *ctx, const esker_event *event)
{
    struct steps *steps = ctx;
    bool wanted = event->kind == ESKER_EVENT_PROGRESS || event->kind == ESKER_EVENT_COMPACTION ||
                  event->kind == ESKER_EVENT_STALL;
    if (wanted && steps->event_count < STEPS_EVENTS) {
        steps->events[steps->event_count++] = *event;
    }
}

static void
steps_open_threads(struct steps *steps, const struct db_tuning *tuning, int durability, bool manual)
{
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 64 << 20;
    options.durability = durability;
    options.on_event = steps_note_event;
    options.event_ctx = steps;
    *steps = (struct steps){.disk = sim_disk_create(5)};
    assert_int_equal(io_sim_open(steps->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, tuning, manual, &steps->db), ESKER_OK);
}

static void
steps_open(struct steps *steps, const struct db_tuning *tuning, int durability)
{
    steps_open_threads(steps, tuning, durability, true);
}

static void
steps_close(struct steps *steps)
{
    assert_int_equal(esker_close(steps->db), ESKER_OK);
    sim_disk_destroy(steps->disk);
}

static void
steps_put(struct steps *steps, uint32_t number, size_t value_bytes)
{
    static const char value[1000];
    char key[16];
    snprintf(key, sizeof key, "%08u", number);
    assert_int_equal(esker_put(steps->db, esker_str(key), esker_bytes(value, value_bytes), NULL), ESKER_OK);
}

static esker_stats
steps_stats(struct steps *steps)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(steps->db, &stats), ESKER_OK);
    return stats;
}

static uint64_t
steps_sum(const uint64_t *counts, int count)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        sum += counts[i];
    }
    return sum;
}

/* ---- Counting ------------------------------------------------------------------------ */

static void
steps__are_counted_by_kind_and_length(void **state)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 16 << 20, .window_bytes_max = 16 << 20, .segment_bytes = 32 << 20};
    (void)state;
    struct steps steps;
    steps_open(&steps, &tuning, ESKER_DURABLE_PROCESS);
    for (uint32_t i = 0; i < STEPS_MANY_KEYS; i++) {
        steps_put(&steps, i * 7919 % STEPS_MANY_KEYS, 20);
    }
    assert_int_equal(esker_flush(steps.db), ESKER_OK);
    esker_stats flushed = steps_stats(&steps);
    /* The index, the filter by 32,768 keys at a time, the rest. */
    assert_int_equal(flushed.step_count[ESKER_STEP_END], 1 + STEPS_MANY_KEYS / 32768 + 1 + 1);
    assert_int_equal(flushed.step_count[ESKER_STEP_SYNC], 1);
    assert_int_equal(flushed.step_count[ESKER_STEP_INSTALL], 1);
    assert_true(flushed.step_count[ESKER_STEP_ROWS] >= STEPS_MANY_KEYS * 28 / COMPACTION_STEP_WORK);
    steps_put(&steps, 0, 20);
    assert_int_equal(esker_compact(steps.db, NULL, NULL), ESKER_OK);
    esker_stats merged = steps_stats(&steps);
    for (int kind = ESKER_STEP_OPEN; kind < ESKER_STEPS; kind++) {
        assert_true(merged.step_count[kind] > flushed.step_count[kind]);
        assert_true(merged.step_cpu_ns[kind] >= merged.step_cpu_longest_ns[kind]);
    }
    /* Both segments of level 0 are opened by steps of their own, before the parts are listed. */
    assert_true(merged.step_count[ESKER_STEP_OPEN] - flushed.step_count[ESKER_STEP_OPEN] >= 4);
    uint64_t count = steps_sum(merged.step_count, ESKER_STEPS);
    assert_int_equal(steps_sum(merged.steps_by_cpu, ESKER_STEP_LENGTHS), count);
    assert_int_equal(steps_sum(merged.steps_by_time, ESKER_STEP_LENGTHS), count);
    static const char *const words[] = {"steps of merges", "\"by_length\":[",
                                        "esker_step_seconds_bucket{le="};
    for (int format = ESKER_STATS_TEXT; format <= ESKER_STATS_PROMETHEUS; format++) {
        char *text = NULL;
        assert_int_equal(esker_stats_text(steps.db, format, &text), ESKER_OK);
        assert_non_null(strstr(text, words[format]));
        esker_free(text);
    }
    steps_close(&steps);
}

/* ---- Stopping ------------------------------------------------------------------------ */

static const struct db_tuning steps_small = {.window_bytes_first = 16 << 10,
                                             .window_bytes_max = 16 << 10,
                                             .segment_bytes = 16 << 10,
                                             .merge_step_work = 2000};

/* Until a merge is at `kind` of step next. */
static bool
steps_run_until(struct steps *steps, int kind)
{
    for (uint32_t runs = 0; runs < STEPS_RUNS_MOST; runs++) {
        for (uint32_t i = 0; i < steps->db->compact_job_count; i++) {
            const struct compact_job *job = &steps->db->compact_jobs[i];
            bool opens = job->begun != NULL && job->begun->opened > 0;
            if (kind == ESKER_STEP_OPEN ? opens
                                        : job->part != NULL && job->part->job != NULL &&
                                              compaction_job_next(job->part->job) == kind) {
                return true;
            }
        }
        if (!workers_run_one()) {
            return false;
        }
    }
    return false;
}

static size_t
steps_segment_files(struct sim_disk *disk)
{
    static struct sim_file_info files[512];
    size_t count = sim_disk_files(disk, files, COUNTOF(files));
    size_t segments = 0;
    for (size_t i = 0; i < count; i++) {
        segments += strstr(files[i].name, ".seg") != NULL ? 1 : 0;
    }
    return segments;
}

/* A file in a run. */
static void
steps_purge(struct steps *steps)
{
    do {
        db_purge_job(&steps->db->purge_job);
    } while (steps->db->obsolete_count > 0);
}

/* Whatever a merge is about to do when the database is told to close: no step follows. */
static void
cancel__is_followed_by_no_step(void **state)
{
    static const int kinds[] = {ESKER_STEP_OPEN, ESKER_STEP_ROWS, ESKER_STEP_END, ESKER_STEP_SYNC};
    (void)state;
    for (size_t k = 0; k < COUNTOF(kinds); k++) {
        struct steps steps;
        steps_open(&steps, &steps_small, ESKER_DURABLE_PROCESS);
        for (uint32_t i = 0; !steps_run_until(&steps, kinds[k]); i++) {
            assert_true(i < 1000);
            for (uint32_t n = 0; n < 40; n++) {
                steps_put(&steps, (i * 40 + n) * 7919 % 5000, 400);
            }
            assert_int_equal(esker_flush(steps.db), ESKER_OK);
        }
        esker_stats before = steps_stats(&steps);
        store_relaxed(&steps.db->cancel, true); /* relaxed: one thread */
        for (uint32_t runs = 0; runs < 100 && steps.db->compact_runs != NULL && workers_run_one(); runs++) {
            /* each job learns of it, and puts away what it has in hand */
        }
        esker_stats after = steps_stats(&steps);
        for (int kind = ESKER_STEP_CHOOSE; kind <= ESKER_STEP_SYNC; kind++) {
            assert_int_equal(after.step_count[kind], before.step_count[kind]);
        }
        epoch_drain(); /* files that merges before had replaced */
        steps_purge(&steps);
        assert_null(steps.db->compact_runs);
        assert_int_equal(steps.db->claimed_count, 0);
        assert_int_equal(steps_segment_files(steps.disk), after.segments); /* what was half made is gone */
        steps_close(&steps);
    }
}

/* ---- A disk that fills up meanwhile ---------------------------------------------------- */

static void
steps_expect_keys(struct steps *steps, const bool *present, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char key[16];
        uint8_t value[1000];
        size_t size = 0;
        snprintf(key, sizeof key, "%08u", i);
        esker_status status = esker_get_copy(steps->db, esker_str(key), NULL, value, sizeof value, &size);
        assert_int_equal(status, present[i] ? ESKER_OK : ESKER_NOT_FOUND);
    }
}

/* Space was there when the merge asked for it, and is gone when it writes. */
static void
merge__without_space_keeps_its_inputs_and_comes_again(void **state)
{
    static const int kinds[] = {ESKER_STEP_ROWS, ESKER_STEP_END};

    enum { KEYS = 5000 };

    static bool present[KEYS];
    (void)state;
    for (size_t k = 0; k < COUNTOF(kinds); k++) {
        struct steps steps;
        steps_open(&steps, &steps_small, ESKER_DURABLE_PROCESS);
        memset(present, 0, sizeof present);
        for (uint32_t i = 0; !steps_run_until(&steps, kinds[k]); i++) {
            assert_true(i < 1000);
            for (uint32_t n = 0; n < 40; n++) {
                uint32_t key = (i * 40 + n) * 7919 % KEYS;
                steps_put(&steps, key, 400);
                present[key] = true;
            }
            assert_int_equal(esker_flush(steps.db), ESKER_OK);
        }
        sim_disk_set_capacity(steps.disk, 1); /* nothing can grow any more */
        for (uint32_t runs = 0; runs < 1000 && steps_stats(&steps).compactions_failed == 0; runs++) {
            (void)workers_run_one();
        }
        esker_stats failed = steps_stats(&steps);
        assert_true(failed.compactions_failed > 0);
        assert_int_equal(steps.db->merge_reserved_bytes, 0);
        assert_int_equal(steps.db->claimed_count, 0);
        epoch_drain();
        steps_purge(&steps);
        assert_int_equal(steps_segment_files(steps.disk), failed.segments);
        steps_expect_keys(&steps, present, KEYS);
        sim_disk_set_capacity(steps.disk, 0);
        db_space_job(&steps.db->space_job); /* with threads it comes by the clock */
        for (uint32_t runs = 0;
             runs < STEPS_RUNS_MOST && steps_stats(&steps).compactions == failed.compactions; runs++) {
            assert_true(workers_run_one()); /* nobody asks */
        }
        assert_true(steps_stats(&steps).compactions > failed.compactions);
        steps_expect_keys(&steps, present, KEYS);
        steps_close(&steps);
    }
}

/* ---- Progress ------------------------------------------------------------------------ */

static void
progress__is_told_by_sixteenths(void **state)
{
    (void)state;
    struct steps steps;
    steps_open(&steps, &steps_small, ESKER_DURABLE_PROCESS);
    for (uint32_t i = 0; i < 100; i++) {
        steps_put(&steps, i, 1000);
    }
    assert_int_equal(esker_compact(steps.db, NULL, NULL), ESKER_OK);
    for (uint32_t i = 0; i < 15; i++) { /* less than a window */
        steps_put(&steps, i * 6, 1000);
    }
    steps.event_count = 0;
    assert_int_equal(esker_compact(steps.db, NULL, NULL), ESKER_OK);
    assert_true(steps.event_count > 8 && steps.event_count <= COMPACT_PROGRESS_SHARES);
    for (uint32_t i = 0; i + 1 < steps.event_count; i++) {
        assert_int_equal(steps.events[i].kind, ESKER_EVENT_PROGRESS);
        assert_true(steps.events[i].bytes > (i > 0 ? steps.events[i - 1].bytes : 0));
        assert_true(steps.events[i].bytes < steps.events[i].bytes_total);
        assert_int_equal(steps.events[i].bytes_total, steps.events[0].bytes_total);
    }
    assert_int_equal(steps.events[steps.event_count - 1].kind, ESKER_EVENT_COMPACTION);
    steps_close(&steps);
}

/* ---- Pacing -------------------------------------------------------------------------- */

/* From no debt to the point where writers stop, each segment more costs a bounded part of the rate. */
static void
pace__has_no_cliff(void **state)
{
    static const uint32_t triggers[] = {4, 8, 12, 16, 32};
    static const uint32_t stalls[] = {L0_STALL_LEAST, 30, L0_STALL};

    enum { DRAIN = 100000000 };

    (void)state;
    for (size_t t = 0; t < COUNTOF(triggers) * COUNTOF(stalls); t++) {
        uint32_t trigger = triggers[t % COUNTOF(triggers)];
        uint32_t stall = stalls[t / COUNTOF(triggers)];
        uint32_t slowed = 0;
        uint64_t before = db_pace_rate(DRAIN, 0);
        if (trigger > stall * 3 / 4) {
            continue; /* never asked for: db_compact_plan.c */
        }
        assert_int_equal(db_pace_level0_share(trigger, trigger, stall), 0);
        for (uint32_t count = 0; count <= stall; count++) {
            uint64_t share = db_pace_level0_share(count, trigger, stall);
            uint64_t rate = db_pace_rate(DRAIN, share);
            slowed += share > 0 ? 1 : 0;
            assert_true(rate <= before);
            assert_true(before - rate <= DRAIN / 2); /* of 1.5 in all */
            assert_true(rate >= DRAIN / 1000);       /* never a stop */
            before = rate;
        }
        assert_true(slowed >= MIN(stall - trigger, stall / 2)); /* long before the end */
        assert_true(before < DRAIN / 10);                       /* nobody arrives there at full speed */
        assert_true(db_pace_rate(DRAIN, 1) > DRAIN * 14 / 10);  /* debt begins gently */
    }
}

/* Sums are divided: a merge that ends beside another one takes no time, and is no sign of speed. */
static void
pace__measures_what_was_taken_over_the_time(void **state)
{
    (void)state;
    struct db_drain drain = {0};
    assert_int_equal(db_drain_rate(&drain), 0);
    uint64_t now = 1000000000;
    for (int i = 0; i < 100; i++) {
        now += 100000000;
        db_drain_add(&drain, 10000000, now - 100000000, now); /* 10 MB in 100 ms */
        uint64_t rate = db_drain_rate(&drain);
        assert_true(rate > 90000000 && rate < 110000000);
    }
    db_drain_add(&drain, 10000000, now - 90000000, now); /* began later, ends at once */
    assert_true(db_drain_rate(&drain) < 200000000);
    for (int i = 0; i < 20; i++) { /* slower from now on; what has been is soon forgotten */
        now += 100000000;
        db_drain_add(&drain, 1000000, 0, now);
    }
    assert_true(db_drain_rate(&drain) < 12000000);
}

static void
pace__a_small_write_sleeps_for_milliseconds_at_most(void **state)
{
    static const uint64_t dues[] = {0, 999999, 1000000, 1000001, 3000000, 5000000, 1000000000, 100000000000};
    (void)state;
    for (size_t i = 0; i < COUNTOF(dues); i++) {
        uint64_t now = 77000000000;
        uint64_t small = db_pace_until(now, now + dues[i], 116) - now;
        uint64_t large = db_pace_until(now, now + dues[i], 1 << 20) - now;
        assert_true(small <= 4000000 && small <= dues[i]);
        assert_int_equal(large, dues[i] > 1000000 ? dues[i] : 0);
        assert_true(dues[i] > 1000000 ? small > 0 : small == 0);
    }
}

static void
pace__costs_are_by_the_rate_as_it_is(void **state)
{
    static const uint64_t rates[] = {1, 1000, 20000000000, 1024000000000}; /* the last: 1 KiB/s */
    (void)state;
    for (size_t i = 0; i < COUNTOF(rates); i++) {
        uint64_t before = 0;
        for (uint32_t bits = 0; bits < 64; bits++) {
            uint64_t cost = db_pace_cost((uint64_t)1 << bits, rates[i]);
            assert_true(cost >= before);
            before = cost;
        }
        assert_int_equal(db_pace_cost(1 << 20, rates[i]), rates[i]);
        assert_int_equal(db_pace_cost(48 << 20, rates[i]), 48 * rates[i]);
    }
    assert_int_equal(db_pace_cost((1 << 20) + 512, 1 << 21), (1 << 21) + 1024);
    assert_int_equal(db_pace_left(20000000, 1000, 1), 20000); /* half was paid for, it becomes faster */
    assert_int_equal(db_pace_left(20000000, 1000, 3000), 60000000);
    assert_int_equal(db_pace_left(7, 5, 5), 7);
    assert_true(db_pace_left(UINT64_MAX, 1, UINT64_MAX) <= UINT64_MAX / 2);
}

enum { PACED_WINDOW = 1 << 20, PACED_FLUSHES = 2000, PACED_SPEEDUP = 10, PACED_RATE = 100 << 20 };

/* Windows, flushes of them and one writer by a clock of their own: a flush takes 7 to 13 ms. */
struct paced {
    struct rng rng;
    struct db_drain drain;
    uint64_t now, flush_began, flush_ends, filled, waiting, blocked_ns, written;
};

static void
paced_flush_next(struct paced *paced)
{
    paced->flush_began = paced->now;
    paced->flush_ends = paced->now + 7000000 + rng_below(&paced->rng, 6000000);
}

static uint64_t
paced_rate(const struct paced *paced, bool by_memory)
{
    uint64_t fast = (uint64_t)PACED_RATE * PACED_SPEEDUP;
    uint64_t measured = db_drain_rate(&paced->drain);
    if (!by_memory || paced->waiting < WINDOWS_LIVE_MAX - 1 || measured == 0) {
        return fast;
    }
    uint64_t since = paced->now - paced->flush_began;
    return MIN(fast, db_pace_memory_rate(measured, PACED_WINDOW, since, PACED_WINDOW - paced->filled));
}

/* Until the flush under way ends, or the active window is full. */
static void
paced_write(struct paced *paced, uint64_t rate)
{
    uint64_t until = paced->waiting > 0 ? paced->flush_ends : UINT64_MAX;
    uint64_t need_ns = (PACED_WINDOW - paced->filled) * 1000000000 / rate + 1;
    uint64_t took_ns = until - paced->now < need_ns ? until - paced->now : need_ns;
    uint64_t bytes = MIN(took_ns * rate / 1000000000, PACED_WINDOW - paced->filled);
    bytes = took_ns == need_ns ? PACED_WINDOW - paced->filled : bytes;
    paced->now += took_ns;
    paced->filled += bytes;
    paced->written += bytes;
}

static struct paced
paced_run(bool by_memory)
{
    struct paced paced = {.rng = {.state = 1}, .now = 1000000000};
    for (uint64_t flushes = 0; flushes < PACED_FLUSHES;) {
        bool full = paced.filled == PACED_WINDOW;
        if (full && paced.waiting < WINDOWS_LIVE_MAX - 1) {
            paced.filled = 0;
            paced.waiting++;
            if (paced.waiting == 1) {
                paced_flush_next(&paced);
            }
        } else if (full) {
            paced.blocked_ns += paced.flush_ends - paced.now;
            paced.now = paced.flush_ends;
        } else {
            paced_write(&paced, paced_rate(&paced, by_memory));
        }
        if (paced.waiting > 0 && paced.now >= paced.flush_ends) {
            db_drain_add(&paced.drain, PACED_WINDOW, paced.flush_began, paced.now);
            paced.waiting--;
            flushes++;
            paced_flush_next(&paced);
        }
    }
    return paced;
}

/* A writer that could be ten times as fast as flushes seldom meets the end of memory, and gets as far. */
static void
pace__spreads_the_wait_for_memory(void **state)
{
    (void)state;
    struct paced free_run = paced_run(false);
    struct paced paced = paced_run(true);
    assert_true(free_run.blocked_ns > free_run.now / 2);
    assert_true(paced.blocked_ns < paced.now / 20);
    assert_true(paced.written / (paced.now / 1000) > free_run.written / (free_run.now / 1000) * 9 / 10);
}

/* The last wait of this thread, one of the cause, which totals and an event know, too. */
static void
steps_expect_wait(struct steps *steps, int cause, uint32_t level)
{
    esker_wait wait;
    esker_wait_init(&wait);
    esker_last_wait(&wait);
    assert_int_equal(wait.cause, cause);
    assert_int_equal(wait.level, level);
    esker_stats stats = steps_stats(steps);
    assert_true(stats.wait_count[cause] > 0);
    assert_true(stats.wait_ns[cause] >= wait.wait_ns);
    assert_int_equal(steps_sum(stats.wait_count, ESKER_WAIT_CAUSES), stats.stalls);
    assert_int_equal(steps_sum(stats.wait_ns, ESKER_WAIT_CAUSES), stats.stall_ns);
}

static bool
steps_was_told(const struct steps *steps, int cause)
{
    for (uint32_t i = 0; i < steps->event_count; i++) {
        if (steps->events[i].kind == ESKER_EVENT_STALL && steps->events[i].wait_cause == cause) {
            return steps->events[i].duration_ns > 0;
        }
    }
    return false;
}

static void
waits__say_why(void **state)
{
    (void)state;
    struct steps steps;
    steps_open(&steps, &steps_small, ESKER_DURABLE_PROCESS);
    for (uint32_t i = 0; steps_stats(&steps).wait_count[ESKER_WAIT_MEMORY] == 0; i++) {
        assert_true(i < 10000); /* windows fill, and nobody flushes until a writer waits */
        steps_put(&steps, i % 50, 400);
    }
    steps_expect_wait(&steps, ESKER_WAIT_MEMORY, 0);
    steps.db->l0_stall = L0_TRIGGER; /* so that a merge is due when writers stop */
    for (uint32_t i = 0; steps_stats(&steps).wait_count[ESKER_WAIT_LEVEL0] == 0; i++) {
        assert_true(i < 100);
        steps_put(&steps, i % 50, 400);
        assert_int_equal(esker_flush(steps.db), ESKER_OK); /* which takes a window as well */
    }
    steps_expect_wait(&steps, ESKER_WAIT_LEVEL0, 0);
    steps_close(&steps);
}

static void
waits__of_debt_name_the_level(void **state)
{
    static const struct db_tuning tuning = {.window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20};
    (void)state;
    struct steps steps;
    steps_open_threads(&steps, &tuning, ESKER_DURABLE_PROCESS, false);
    store_relaxed(&steps.db->pace_level, 3);               /* relaxed: told only */
    store_relaxed(&steps.db->pace_ns_per_mib, 1000000000); /* relaxed: as a merge that is behind leaves it */
    for (uint32_t i = 0; steps_stats(&steps).wait_count[ESKER_WAIT_DEBT] == 0; i++) {
        assert_true(i < 100);
        steps_put(&steps, i, 1000); /* a millisecond's worth */
    }
    steps_expect_wait(&steps, ESKER_WAIT_DEBT, 3);
    steps_close(&steps); /* the event function has ended by then, or is not called any more */
}

static _Atomic bool waits_large_done;

static void *
waits_write_large(void *arg)
{
    enum { LARGE = 256 << 10 };

    static const uint8_t value[LARGE];
    struct steps *steps = arg;
    assert_int_equal(esker_put(steps->db, esker_str("large"), esker_bytes(value, LARGE), NULL), ESKER_OK);
    store_relaxed(&waits_large_done, true); /* relaxed: a hint */
    return NULL;
}

/* A write that has hours to wait when it comes ends soon after merges have caught up. */
static void
waits__end_by_the_rate_as_it_becomes(void **state)
{
    static const struct db_tuning tuning = {.window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20};
    (void)state;
    struct steps steps;
    pthread_t writer;
    steps_open_threads(&steps, &tuning, ESKER_DURABLE_PROCESS, false);
    store_relaxed(&steps.db->pace_ns_per_mib, 100000000000000); /* relaxed: as above */
    assert_int_equal(pthread_create(&writer, NULL, waits_write_large, &steps), 0);
    /* relaxed, both: the writer has taken its turn, or somebody told it that there is no debt */
    while (load_relaxed(&steps.db->pace_due_ns) == 0 && !load_relaxed(&waits_large_done)) {
        usleep(100);
    }
    store_relaxed(&steps.db->pace_ns_per_mib, 1); /* relaxed: as above */
    assert_int_equal(pthread_join(writer, NULL), 0);
    steps_close(&steps);
}

static void
waits__are_told_by_events(void **state)
{
    (void)state;
    struct steps steps;
    steps_open(&steps, &steps_small, ESKER_DURABLE_PROCESS);
    steps.event_count = 0;
    db_pace_note(steps.db, ESKER_WAIT_DEBT, 2, 700);
    db_pace_note(steps.db, ESKER_WAIT_DEBT, 2, 300);
    assert_false(job_idle(&steps.db->purge_job)); /* it is to come, once for both */
    for (uint32_t runs = 0; runs < 100 && !job_idle(&steps.db->purge_job); runs++) {
        (void)workers_run_one();
    }
    assert_true(steps_was_told(&steps, ESKER_WAIT_DEBT));
    assert_int_equal(steps.event_count, 1);
    assert_int_equal(steps.events[0].duration_ns, 1000);
    steps_close(&steps);
}

/* ---- Log bytes ----------------------------------------------------------------------- */

static esker_stats
steps_log_stats(int durability, bool *tail_mode_out)
{
    static const struct db_tuning tuning = {.window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20};
    struct steps steps;
    steps_open(&steps, &tuning, durability);
    for (uint32_t i = 0; i < 500; i++) {
        steps_put(&steps, i, 100);
    }
    assert_int_equal(esker_sync(steps.db), ESKER_OK);
    esker_stats stats = steps_stats(&steps);
    *tail_mode_out = steps.db->tail_mode;
    steps_close(&steps);
    return stats;
}

static void
log_bytes__are_counted_whoever_writes_them(void **state)
{
    (void)state;
    bool tail = false;
    bool write = true;
    esker_stats by_tail = steps_log_stats(ESKER_DURABLE_PROCESS, &tail);
    esker_stats by_leader = steps_log_stats(ESKER_DURABLE_SYNC, &write);
    assert_true(tail);
    assert_false(write);
    assert_true(by_tail.log_bytes_written > by_tail.bytes_written);
    assert_true(by_leader.log_bytes_written >= by_tail.log_bytes_written); /* a SYNCMARK for each group */
    assert_true(by_tail.log_bytes_written < by_tail.bytes_written * 3 / 2);
    assert_true(by_tail.log_bytes_prepared >= 1 << 20);
}

static esker_stats
steps_log_growth(int durability, bool sync)
{
    static const struct db_tuning tuning = {.window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20};
    struct steps steps;
    steps_open(&steps, &tuning, durability);
    steps_put(&steps, 0, 100);
    if (sync) {
        assert_int_equal(esker_sync(steps.db), ESKER_OK);
    }
    for (uint32_t i = 0; i < 12000; i++) {
        steps_put(&steps, i, 100);
    }
    esker_stats stats = steps_stats(&steps);
    assert_true(stats.log_files >= 2);
    steps_close(&steps);
    return stats;
}

static void
new_logs__are_filled_where_syncs_are_expected(void **state)
{
    (void)state;
    esker_stats none = steps_log_growth(ESKER_DURABLE_PROCESS, false);
    assert_int_equal(none.log_bytes_prepared, LOG_HEADER_BYTES + (1 << 20)); /* the first */
    assert_true(none.log_file_bytes > none.log_bytes_prepared);
    esker_stats asked = steps_log_growth(ESKER_DURABLE_PROCESS, true);
    assert_int_equal(asked.log_bytes_prepared, asked.log_file_bytes);
    esker_stats level = steps_log_growth(ESKER_DURABLE_INTERVAL, false);
    assert_int_equal(level.log_bytes_prepared, level.log_file_bytes);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps__are_counted_by_kind_and_length),
        cmocka_unit_test(cancel__is_followed_by_no_step),
        cmocka_unit_test(merge__without_space_keeps_its_inputs_and_comes_again),
        cmocka_unit_test(progress__is_told_by_sixteenths),
        cmocka_unit_test(pace__has_no_cliff),
        cmocka_unit_test(pace__measures_what_was_taken_over_the_time),
        cmocka_unit_test(pace__a_small_write_sleeps_for_milliseconds_at_most),
        cmocka_unit_test(pace__costs_are_by_the_rate_as_it_is),
        cmocka_unit_test(pace__spreads_the_wait_for_memory),
        cmocka_unit_test(waits__say_why),
        cmocka_unit_test(waits__of_debt_name_the_level),
        cmocka_unit_test(waits__end_by_the_rate_as_it_becomes),
        cmocka_unit_test(waits__are_told_by_events),
        cmocka_unit_test(log_bytes__are_counted_whoever_writes_them),
        cmocka_unit_test(new_logs__are_filled_where_syncs_are_expected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
