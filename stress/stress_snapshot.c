/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: snapshots are exact at every edge (one LSN before a commit's end, at
 * it, behind it), however they come and go, while versions are replaced all
 * the time; refreshed iterators keep to their state or move on; 100,000 may be
 * alive at once and each still gives its own answer after merges.
 * Method: one writer counts up one key in batches and notes where each commit
 * ended, so the number that a snapshot must show follows from its LSN. Others
 * take snapshots beside it, of now and of a little before; a last phase holds
 * as many as were promised.
 *
 *   stress_snapshot [seconds [seed]]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"
#include "stress_die.h"

#if defined(__SANITIZE_ADDRESS__) || defined(ESKER_TSAN)
enum { LIVE_MOST = 5000 };
#else
enum { LIVE_MOST = 100000 };
#endif

enum { COMMITS_MOST = 1 << 22, FILL_BYTES = 120, READS = 2000, RECENT = 200 };

static esker_db *db;
static _Atomic bool stop;
static _Atomic uint64_t commits;            /* pairs: SNAPSHOT_COMMITS — ends[] up to here are set */
static uint64_t ends[COMMITS_MOST + 1];     /* of commit i, which made the counter i; 0: nothing yet */
static _Atomic uint64_t edges, gone, walks; /* relaxed: statistics */

/* Both keys change in every commit; their distance in the key space grows files that overlap little. */
static void
commit_next(esker_batch *batch)
{
    /* relaxed: only the writer changes it */
    uint64_t number = load_relaxed(&commits) + 1;
    uint8_t value[FILL_BYTES] = {0};
    esker_lsn lsn = 0;
    le64_store(value, number);
    esker_batch_clear(batch);
    must(esker_batch_put(batch, esker_str("a"), esker_bytes(value, 8)), "a batch does not grow");
    must(esker_batch_put(batch, esker_str("z"), esker_bytes(value, number % 8 == 0 ? sizeof value : 8)),
         "a batch does not grow");
    must(esker_write(db, batch, NULL, &lsn), "a write failed");
    ends[number] = lsn;
    store_release(&commits, number); /* pairs: SNAPSHOT_COMMITS */
}

static void *
writer_main(void *arg)
{
    esker_batch *batch = arg;
    /* relaxed: only ends the loop */
    while (!load_relaxed(&stop) && load_relaxed(&commits) < COMMITS_MOST - LIVE_MOST) { /* relaxed: own */
        commit_next(batch);
    }
    return NULL;
}

static uint64_t
number_at(const esker_snapshot *snapshot, const char *key)
{
    uint8_t buf[FILL_BYTES];
    size_t size = 0;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_status status = esker_get_copy(db, esker_str(key), &options, buf, sizeof buf, &size);
    if (status != ESKER_OK && status != ESKER_NOT_FOUND) {
        die("a get failed");
    }
    return status == ESKER_OK ? le64_load(buf) : 0;
}

static void
check_number(const esker_snapshot *snapshot, uint64_t number)
{
    if (number_at(snapshot, "a") != number || number_at(snapshot, "z") != number) {
        fprintf(stderr, "LSN %llu shows %llu and %llu, not %llu\n",
                (unsigned long long)esker_snapshot_lsn(snapshot),
                (unsigned long long)number_at(snapshot, "a"), (unsigned long long)number_at(snapshot, "z"),
                (unsigned long long)number);
        die("a snapshot is not exact");
    }
}

/* What `asked` must show, given that it lies within [ends[number], ends[number + 1]). */
static void
check_edge(esker_lsn asked, uint64_t number)
{
    esker_snapshot *snapshot = NULL;
    esker_status status = esker_snapshot_create_at(db, asked, &snapshot);
    if (status == ESKER_NOT_FOUND) {
        add_relaxed(&gone, 1U); /* relaxed: statistic */
        return;
    }
    must(status, "no snapshot at a commit's edge");
    if (esker_snapshot_lsn(snapshot) > asked || esker_snapshot_lsn(snapshot) < ends[number]) {
        die("a snapshot is not at the commit before what was asked for");
    }
    check_number(snapshot, number);
    esker_snapshot_release(snapshot);
    add_relaxed(&edges, 1U); /* relaxed: statistic */
}

static void *
churner_main(void *arg)
{
    struct rng rng = {seed * 13 + (uint64_t)(uintptr_t)arg};
    while (!load_relaxed(&stop)) {              /* relaxed: only ends the loop */
        uint64_t last = load_acquire(&commits); /* pairs: SNAPSHOT_COMMITS */
        uint64_t recent = rng_below(&rng, RECENT);
        uint64_t number = last > recent ? last - recent : last;
        if (number < 2) {
            continue;
        }
        check_edge(ends[number] - 1, number - 1);
        check_edge(ends[number], number);
        if (number < last) {
            check_edge(ends[number] + 1, number);
        }
        esker_snapshot *now = NULL;
        must(esker_snapshot_create(db, &now), "no snapshot");
        uint64_t seen = number_at(now, "a");
        if (seen < last) {
            die("a snapshot is older than what was acknowledged");
        }
        check_number(now, seen);
        if (esker_snapshot_lsn(now) < ends[last]) {
            die("a snapshot's LSN is below a commit that was acknowledged");
        }
        esker_snapshot_release(now);
    }
    return NULL;
}

static uint64_t
walk(esker_iter *it, bool reverse)
{
    uint64_t number = 0;
    int rows = 0;
    esker_status status = reverse ? esker_iter_last(it) : esker_iter_first(it);
    for (; status == ESKER_OK; status = reverse ? esker_iter_prev(it) : esker_iter_next(it), rows++) {
        esker_slice value;
        must(esker_iter_value(it, &value), "no value");
        if (rows > 0 && le64_load(value.data) != number) {
            die("a walk saw half of a commit");
        }
        number = le64_load(value.data);
    }
    if (status != ESKER_END || (rows != 0 && rows != 2)) {
        die("a walk misses rows");
    }
    add_relaxed(&walks, 1U); /* relaxed: statistic */
    return number;
}

/* Two iterators, one at a snapshot and one at the newest state, refreshed over and over. */
static void
refresh_for_a_while(struct rng *rng)
{
    esker_snapshot *snapshot = NULL;
    esker_iter *fixed = NULL;
    esker_iter *moving = NULL;
    esker_read_options options;
    esker_read_options_init(&options);
    must(esker_snapshot_create(db, &snapshot), "no snapshot");
    options.snapshot = snapshot;
    must(esker_iter_create(db, &options, &fixed), "no iterator");
    must(esker_iter_create(db, NULL, &moving), "no iterator");
    uint64_t number = number_at(snapshot, "a");
    uint64_t floor = number;
    for (uint64_t i = 0; i < 20; i++) {
        if (walk(fixed, rng_below(rng, 2) == 0) != number) {
            die("an iterator left its snapshot");
        }
        uint64_t seen = walk(moving, rng_below(rng, 2) == 0);
        if (seen < floor) {
            die("a refreshed iterator went back in time");
        }
        floor = load_acquire(&commits); /* pairs: SNAPSHOT_COMMITS */
        must(esker_iter_refresh(fixed), "an iterator is not refreshed");
        must(esker_iter_refresh(moving), "an iterator is not refreshed");
    }
    esker_iter_destroy(fixed);
    esker_iter_destroy(moving);
    esker_snapshot_release(snapshot);
}

static void *
refresher_main(void *arg)
{
    struct rng rng = {seed * 17 + (uint64_t)(uintptr_t)arg};
    while (!load_relaxed(&stop)) { /* relaxed: only ends the loop */
        refresh_for_a_while(&rng);
    }
    return NULL;
}

/* Replaces the version as often as it can. */
static void *
version_main(void *arg)
{
    struct rng rng = {seed * 19};
    while (!load_relaxed(&stop)) { /* relaxed: only ends the loop */
        must(rng_below(&rng, 4) == 0 ? esker_compact(db, NULL, NULL) : esker_flush(db),
             "flush or merge failed");
        usleep(1000);
    }
    return arg;
}

/* As many as were promised, each with a state of its own; merges in between, then in any order away. */
static void
hold_many(esker_batch *batch)
{
    static esker_snapshot *live[LIVE_MOST];
    struct rng rng = {seed * 23};
    uint64_t first = load_relaxed(&commits); /* relaxed: the writer has ended */
    for (uint64_t i = 0; i < LIVE_MOST; i++) {
        commit_next(batch);
        must(esker_snapshot_create(db, &live[i]), "no snapshot");
    }
    must(esker_compact(db, NULL, NULL), "merge failed");
    esker_stats stats;
    esker_stats_init(&stats);
    must(esker_get_stats(db, &stats), "no statistics");
    if (stats.snapshots_live != LIVE_MOST) {
        die("snapshots are not counted");
    }
    for (int i = 0; i < READS; i++) {
        uint64_t which = rng_below(&rng, LIVE_MOST);
        check_number(live[which], first + which + 1);
    }
    for (uint64_t left = LIVE_MOST; left > 0; left--) {
        uint64_t which = rng_below(&rng, left);
        esker_snapshot_release(live[which]);
        live[which] = live[left - 1];
    }
    must(esker_compact(db, NULL, NULL), "merge failed");
    if (number_at(NULL, "a") != first + LIVE_MOST) {
        die("the newest state is gone");
    }
}

int
main(int argc, char **argv)
{
    unsigned seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    static const struct db_tuning tuning = {
        .window_bytes_first = 16384, .window_bytes_max = 65536, .segment_bytes = 65536};
    char path[] = "/tmp/esker-snapshot-XXXXXX";
    void *(*const runs[])(void *) = {writer_main,  version_main,   churner_main,
                                     churner_main, refresher_main, refresher_main};
    pthread_t threads[COUNTOF(runs)];
    esker_batch *batch = NULL;
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    if (mkdtemp(path) == NULL) {
        return 1;
    }
    must(io_open_dir(path, true, ESKER_IO_AUTO, &mem_default, &io), "no directory");
    must(db_open_on(io, &options, &tuning, false, &db), "open failed");
    must(esker_batch_create(&batch), "no batch");
    ends[0] = esker_visible_lsn(db);
    for (uintptr_t i = 0; i < COUNTOF(runs); i++) {
        if (pthread_create(&threads[i], NULL, runs[i], i == 0 ? (void *)batch : (void *)i) != 0) {
            die("no thread");
        }
    }
    usleep(seconds * 1000000);
    store_relaxed(&stop, true); /* relaxed: only ends the loops */
    for (size_t i = 0; i < COUNTOF(runs); i++) {
        pthread_join(threads[i], NULL);
    }
    hold_many(batch);
    esker_batch_destroy(batch);
    must(esker_close(db), "close failed");
    must(esker_verify(path, NULL, NULL), "damage");
    must(esker_destroy(path), "destroy failed");
    printf("%llu commits, %llu edges, %llu gone, %llu walks, %d alive at once\n",
           (unsigned long long)load_relaxed(&commits), /* relaxed: joined */
           (unsigned long long)load_relaxed(&edges),   /* relaxed: joined */
           (unsigned long long)load_relaxed(&gone),    /* relaxed: joined */
           (unsigned long long)load_relaxed(&walks),   /* relaxed: joined */
           LIVE_MOST);
    return 0;
}
