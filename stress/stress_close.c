/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: close against every kind of call. While calls or handles are alive
 * close is BUSY and changes nothing; once it is OK nobody is inside, calls that
 * come late are refused, exactly one closer has closed, and everything that
 * was acknowledged is there when the database is opened again.
 * Method: many short lives of one database; threads make calls of all kinds
 * until they are refused, the main thread, and now and then one of them, closes.
 *
 *   stress_close [seconds [seed]]      2 seconds: as many lives as CI has
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"
#include "stress_die.h"

#if defined(__SANITIZE_ADDRESS__) || defined(ESKER_TSAN)
enum { LIVES_LEAST = 40 };
#else
enum { LIVES_LEAST = 200 };
#endif

enum { THREADS = 4, MULTI = 3 };

static esker_db *db;
static _Atomic uint32_t life;    /* pairs: CLOSE_LIFE — db is set before */
static _Atomic uint32_t refused; /* pairs: CLOSE_REFUSED — threads that were, in this life */
static _Atomic uint32_t holders; /* handles that threads have */
static _Atomic uint32_t closed;  /* closes that were OK */
static _Atomic uint64_t calls, busy;
static uint64_t acked[THREADS]; /* each thread's own; read between lives */

/* OK and its kin: true. Refused because the database is closed: false. */
static bool
went(esker_status status)
{
    if (status == ESKER_INVALID) {
        return false;
    }
    if (status != ESKER_OK && status != ESKER_NOT_FOUND && status != ESKER_END) {
        die("a call failed");
    }
    return true;
}

static esker_slice
own_key(uint32_t id, char out[16])
{
    int len = snprintf(out, 16, "thread%u", id);
    return esker_bytes(out, (size_t)len);
}

/* relaxed, here and below: a handle that exists keeps close from being OK, which is what is tested. */
static void
hold(void)
{
    add_relaxed(&holders, 1U);
}

static void
let_go(void)
{
    add_relaxed(&holders, UINT32_MAX); /* relaxed: see hold */
}

static bool
call_write(uint32_t id, struct rng *rng)
{
    char name[16];
    uint8_t value[8];
    esker_batch *batch = NULL;
    le64_store(value, acked[id] + 1);
    if (rng_below(rng, 2) == 0) {
        if (!went(esker_put(db, own_key(id, name), esker_bytes(value, 8), NULL))) {
            return false;
        }
        acked[id]++;
        return went(esker_delete(db, esker_str("nothing"), NULL));
    }
    bool gone = !went(esker_batch_create(&batch)) ||
                !went(esker_batch_put(batch, own_key(id, name), esker_bytes(value, 8))) ||
                !went(esker_batch_require(batch, own_key(id, name), UINT64_MAX));
    gone = gone || !went(esker_write(db, batch, NULL, NULL));
    esker_batch_destroy(batch);
    acked[id] += gone ? 0 : 1;
    return !gone;
}

static bool
call_get(uint32_t id)
{
    char name[16];
    uint8_t buf[8];
    size_t size = 0;
    esker_value value = {0};
    esker_status status = esker_get_copy(db, own_key(id, name), NULL, buf, sizeof buf, &size);
    if (!went(status)) {
        return false;
    }
    if ((status == ESKER_OK ? le64_load(buf) : 0) != acked[id]) {
        die("an acknowledged value is not there");
    }
    status = esker_get(db, own_key(id, name), NULL, &value);
    if (status == ESKER_OK) {
        hold();
        let_go();
        esker_value_release(&value);
    }
    return went(status);
}

static bool
call_multi(void)
{
    esker_slice keys[MULTI];
    esker_value values[MULTI];
    esker_status statuses[MULTI];
    char names[MULTI][16];
    for (uint32_t i = 0; i < MULTI; i++) {
        keys[i] = own_key(i, names[i]);
    }
    if (!went(esker_multi_get(db, MULTI, keys, NULL, values, statuses))) {
        return false;
    }
    for (uint32_t i = 0; i < MULTI; i++) {
        if (statuses[i] == ESKER_OK) {
            esker_value_release(&values[i]);
        }
    }
    return true;
}

static bool
call_snapshot(struct rng *rng)
{
    esker_snapshot *snapshot = NULL;
    esker_status status = rng_below(rng, 2) == 0
                              ? esker_snapshot_create(db, &snapshot)
                              : esker_snapshot_create_at(db, esker_visible_lsn(db), &snapshot);
    if (status == ESKER_OK) {
        hold();
        usleep((useconds_t)rng_below(rng, 100));
        let_go();
        esker_snapshot_release(snapshot);
    }
    return went(status);
}

static bool
call_iterate(void)
{
    esker_iter *it = NULL;
    esker_status status = esker_iter_create(db, NULL, &it);
    if (status != ESKER_OK) {
        return went(status);
    }
    hold();
    for (status = esker_iter_first(it); status == ESKER_OK;) {
        status = esker_iter_next(it);
    }
    if (status != ESKER_END || esker_iter_refresh(it) != ESKER_OK) {
        die("an iterator failed though it is alive");
    }
    let_go();
    esker_iter_destroy(it);
    return true;
}

static bool
call_upkeep(struct rng *rng)
{
    esker_stats stats;
    char *text = NULL;
    bool there = true;
    switch (rng_below(rng, 6)) {
    case 0:
        return went(esker_flush(db));
    case 1:
        return went(esker_compact(db, NULL, NULL));
    case 2:
        return went(esker_sync(db));
    case 3:
        esker_stats_init(&stats);
        return went(esker_get_stats(db, &stats));
    case 4:
        there = went(esker_stats_text(db, ESKER_STATS_JSON, &text));
        esker_free(text);
        return there;
    default:
        (void)esker_durable_eventfd(db);
        (void)esker_durable_lsn(db);
        return went(esker_wait_durable(db, 0, -1));
    }
}

static void
try_to_close(void)
{
    esker_status status = esker_close(db);
    if (status == ESKER_OK) {
        if (load_relaxed(&holders) != 0) { /* relaxed: see hold */
            die("close was OK although somebody holds something");
        }
        add_relaxed(&closed, 1U); /* relaxed: read between lives */
    } else if (status == ESKER_BUSY) {
        add_relaxed(&busy, 1U); /* relaxed: statistic */
    } else if (status != ESKER_INVALID) {
        die("close failed");
    }
}

static bool
call_any(uint32_t id, struct rng *rng)
{
    switch (rng_below(rng, 9)) {
    case 0:
    case 1:
        return call_write(id, rng);
    case 2:
    case 3:
        return call_get(id);
    case 4:
        return call_multi();
    case 5:
        return call_snapshot(rng);
    case 6:
        return call_iterate();
    case 7:
        return rng_below(rng, 8) > 0 || call_upkeep(rng);
    default:
        usleep((useconds_t)rng_below(rng, 200));
        if (rng_below(rng, 16) == 0) {
            try_to_close();
        }
        return true;
    }
}

static void *
caller_main(void *arg)
{
    uint32_t id = (uint32_t)(uintptr_t)arg;
    struct rng rng = {seed * 31 + id};
    for (uint32_t lived = 0;;) {
        uint32_t now = load_acquire(&life); /* pairs: CLOSE_LIFE */
        if (now == UINT32_MAX) {
            return NULL;
        }
        if (now == lived) {
            usleep(20);
            continue;
        }
        uint64_t made = 0;
        while (call_any(id, &rng)) {
            made++;
        }
        lived = now;
        add_relaxed(&calls, made);       /* relaxed: statistic */
        (void)add_acq_rel(&refused, 1U); /* pairs: CLOSE_REFUSED */
    }
}

static void
open_again(const char *path, uint32_t number)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 16384, .window_bytes_max = 65536, .segment_bytes = 65536};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = number % 2 == 0 ? ESKER_DURABLE_PROCESS : ESKER_DURABLE_MEMORY;
    if (io_open_dir(path, true, number % 3 == 0 ? ESKER_IO_POSIX : ESKER_IO_AUTO, &mem_default, &io) !=
            ESKER_OK ||
        db_open_on(io, &options, &tuning, false, &db) != ESKER_OK) {
        die("open failed");
    }
    for (uint32_t id = 0; id < THREADS; id++) {
        (void)call_get(id);
    }
}

static void
one_life(const char *path, uint32_t number, struct rng *rng)
{
    open_again(path, number);
    store_relaxed(&closed, 0U);        /* relaxed: published by the life */
    store_relaxed(&refused, 0U);       /* relaxed: the same */
    store_release(&life, number + 1U); /* pairs: CLOSE_LIFE */
    usleep((useconds_t)rng_below(rng, 2000));
    while (load_acquire(&refused) < THREADS) { /* pairs: CLOSE_REFUSED */
        try_to_close();
        usleep((useconds_t)rng_below(rng, 50));
    }
    if (load_relaxed(&closed) != 1) { /* relaxed: everybody was refused */
        die("not exactly one close was OK");
    }
}

int
main(int argc, char **argv)
{
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 2;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t lives = seconds > 2 ? LIVES_LEAST / 2 * seconds : LIVES_LEAST;
    char path[] = "/tmp/esker-close-XXXXXX";
    struct rng rng = {seed};
    pthread_t threads[THREADS];
    if (mkdtemp(path) == NULL) {
        return 1;
    }
    for (uintptr_t id = 0; id < THREADS; id++) {
        if (pthread_create(&threads[id], NULL, caller_main, (void *)id) != 0) {
            die("no thread");
        }
    }
    for (uint32_t number = 0; number < lives; number++) {
        one_life(path, number, &rng);
    }
    store_release(&life, UINT32_MAX); /* pairs: CLOSE_LIFE */
    for (int id = 0; id < THREADS; id++) {
        pthread_join(threads[id], NULL);
    }
    if (esker_verify(path, NULL, NULL) != ESKER_OK || esker_destroy(path) != ESKER_OK) {
        die("verify or destroy failed");
    }
    printf("%llu lives, %llu calls, %llu times busy\n", (unsigned long long)lives,
           (unsigned long long)load_relaxed(&calls), /* relaxed: joined */
           (unsigned long long)load_relaxed(&busy)); /* relaxed: joined */
    return 0;
}
