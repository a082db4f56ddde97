/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: many readers and several writers on one database, while memtables
 * rotate, segments are merged, snapshots come and go and the database is
 * closed and opened again: nobody ever sees a torn batch, a value of another
 * key, time going backwards, or two answers from one snapshot.
 * Method: each writer owns a group of counters and writes all of them to the
 * same number in one batch; readers take gets, multi-gets, snapshots and scans
 * and check equality within groups and growth over time. Run under the thread
 * and address sanitizers.
 *
 *   stress_db [seconds [seed]]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"
#include "stress_die.h"

enum { WRITERS = 3, READERS = 5, GROUP = 8, FILL_BYTES = 300 };

static esker_db *db;
static _Atomic bool stop;
static _Atomic uint64_t writes, reads;
static _Atomic uint64_t
    acked[WRITERS]; /* pairs: STRESS_ACK — a number is set after its batch was acknowledged */

static esker_slice
counter_key(int writer, int index, char out[16])
{
    int len = snprintf(out, 16, "w%d-%02d", writer, index);
    return esker_bytes(out, (size_t)len);
}

static uint64_t
counter_of(esker_slice value)
{
    if (value.size != 8 && value.size != FILL_BYTES) {
        die("a value has a size that nobody wrote");
    }
    return le64_load(value.data);
}

static void *
writer_main(void *arg)
{
    int id = (int)(intptr_t)arg;
    struct rng rng = {seed * 31 + (uint64_t)id};
    esker_batch *batch;
    char key[16];
    uint8_t value[FILL_BYTES] = {0};
    if (esker_batch_create(&batch) != ESKER_OK) {
        die("no batch");
    }
    /* relaxed: this thread's own number */
    uint64_t number = load_relaxed(&acked[id]); /* relaxed: own number */
    while (!load_relaxed(&stop)) {              /* relaxed: only ends the loop */
        esker_batch_clear(batch);
        number++;
        le64_store(value, number);
        for (int i = 0; i < GROUP; i++) {
            size_t size = rng_below(&rng, 8) == 0 ? FILL_BYTES : 8;
            if (esker_batch_put(batch, counter_key(id, i, key), esker_bytes(value, size)) != ESKER_OK) {
                die("a batch does not grow");
            }
        }
        if (rng_below(&rng, 16) == 0 &&
            esker_batch_require(batch, counter_key(id, 0, key), esker_visible_lsn(db)) != ESKER_OK) {
            die("a requirement is refused");
        }
        esker_write_options options;
        esker_write_options_init(&options);
        options.durability = rng_below(&rng, 64) == 0 ? ESKER_DURABLE_SYNC : ESKER_DURABLE_DEFAULT;
        if (esker_write(db, batch, &options, NULL) != ESKER_OK) {
            die("a write failed (nobody else writes this group)");
        }
        store_release(&acked[id], number); /* pairs: STRESS_ACK */
        add_relaxed(&writes, 1);           /* relaxed: statistic */
    }
    esker_batch_destroy(batch);
    return NULL;
}

/* One group through one snapshot or at one moment: all counters equal. */
static uint64_t
read_group_scan(int writer, const esker_snapshot *snapshot, bool reverse)
{
    esker_read_options options;
    esker_read_options_init(&options);
    char prefix[8];
    snprintf(prefix, sizeof prefix, "w%d-", writer);
    options.prefix = esker_str(prefix);
    options.snapshot = snapshot;
    esker_iter *it;
    if (esker_iter_create(db, &options, &it) != ESKER_OK) {
        die("no iterator");
    }
    uint64_t number = 0;
    int count = 0;
    esker_status status = reverse ? esker_iter_last(it) : esker_iter_first(it);
    while (status == ESKER_OK) {
        esker_slice value;
        if (esker_iter_value(it, &value) != ESKER_OK) {
            die("no value");
        }
        if (count > 0 && counter_of(value) != number) {
            die("a scan saw a torn batch");
        }
        number = counter_of(value);
        count++;
        status = reverse ? esker_iter_prev(it) : esker_iter_next(it);
    }
    if (status != ESKER_END || (count != 0 && count != GROUP)) {
        die("a scan misses rows");
    }
    esker_iter_destroy(it);
    return number;
}

static uint64_t
read_group_multi(int writer, const esker_snapshot *snapshot)
{
    char names[GROUP][16];
    esker_slice keys[GROUP];
    esker_value values[GROUP];
    esker_status statuses[GROUP];
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    for (int i = 0; i < GROUP; i++) {
        keys[i] = counter_key(writer, i, names[i]);
    }
    if (esker_multi_get(db, GROUP, keys, &options, values, statuses) != ESKER_OK) {
        die("a multi-get failed");
    }
    uint64_t number = 0;
    for (int i = 0; i < GROUP; i++) {
        uint64_t seen = statuses[i] == ESKER_OK ? counter_of(esker_bytes(values[i].data, values[i].size)) : 0;
        if (i > 0 && seen != number) {
            die("a multi-get saw a torn batch");
        }
        number = seen;
        if (statuses[i] == ESKER_OK) {
            esker_value_release(&values[i]);
        }
    }
    return number;
}

static uint64_t
read_one(int writer, int index, const esker_snapshot *snapshot)
{
    char name[16];
    uint8_t buf[FILL_BYTES];
    size_t size = 0;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_status status =
        esker_get_copy(db, counter_key(writer, index, name), &options, buf, sizeof buf, &size);
    if (status != ESKER_OK && status != ESKER_NOT_FOUND) {
        die("a get failed");
    }
    return status == ESKER_OK ? counter_of(esker_bytes(buf, size)) : 0;
}

static void
read_round(struct rng *rng, uint64_t floor[WRITERS])
{
    int writer = (int)rng_below(rng, WRITERS);
    uint64_t least = MAX(floor[writer], load_acquire(&acked[writer])); /* pairs: STRESS_ACK */
    uint64_t seen = 0;
    switch (rng_below(rng, 4)) {
    case 0:
        seen = read_one(writer, (int)rng_below(rng, GROUP), NULL);
        break;
    case 1:
        seen = read_group_multi(writer, NULL);
        break;
    case 2:
        seen = read_group_scan(writer, NULL, rng_below(rng, 2) == 0);
        break;
    default: {
        esker_snapshot *snapshot;
        if (esker_snapshot_create(db, &snapshot) != ESKER_OK) {
            die("no snapshot");
        }
        seen = read_group_multi(writer, snapshot);
        if (rng_below(rng, 4) == 0) {
            usleep((useconds_t)rng_below(rng, 3000));
        }
        if (read_group_scan(writer, snapshot, rng_below(rng, 2) == 0) != seen ||
            read_one(writer, (int)rng_below(rng, GROUP), snapshot) != seen) {
            die("one snapshot gave two answers");
        }
        esker_snapshot_release(snapshot);
    }
    }
    if (seen < least) {
        die("an acknowledged write is not seen, or time went backwards");
    }
    floor[writer] = seen;
    add_relaxed(&reads, 1); /* relaxed: statistic */
}

static void *
reader_main(void *arg)
{
    struct rng rng = {seed * 77 + (uint64_t)(intptr_t)arg};
    uint64_t floor[WRITERS] = {0};
    while (!load_relaxed(&stop)) { /* relaxed: only ends the loop */
        read_round(&rng, floor);
    }
    return NULL;
}

static void *
churn_main(void *arg)
{
    (void)arg;
    struct rng rng = {seed * 99};
    while (!load_relaxed(&stop)) { /* relaxed: only ends the loop */
        usleep(20000);
        esker_status status = rng_below(&rng, 3) == 0 ? esker_compact(db, NULL, NULL) : esker_flush(db);
        if (status != ESKER_OK) {
            die("flush or merge failed");
        }
        if (esker_close(db) != ESKER_BUSY && !load_relaxed(&stop)) { /* relaxed: only ends the loop */
            /* Nobody happened to be inside a call; that is a legal close, and the end of this test. */
            die("close did not see the calls in flight");
        }
    }
    return NULL;
}

static esker_status
open_small(const char *path, int durability)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 16384, .window_bytes_max = 65536, .segment_bytes = 131072};
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = durability;
    struct io *io = NULL;
    esker_status status = io_open_dir(path, true, ESKER_IO_AUTO, &mem_default, &io);
    return status == ESKER_OK ? db_open_on(io, &options, &tuning, false, &db) : status;
}

int
main(int argc, char **argv)
{
    unsigned seconds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    char path[] = "/tmp/esker-stress-XXXXXX";
    if (mkdtemp(path) == NULL) {
        return 1;
    }
    esker_iter *hold; /* keeps close BUSY while the threads run */
    for (unsigned life = 0; life < 2; life++) {
        store_relaxed(&stop, false); /* relaxed: no other thread yet */
        if (open_small(path, life == 0 ? ESKER_DURABLE_PROCESS : ESKER_DURABLE_MEMORY) != ESKER_OK ||
            esker_iter_create(db, NULL, &hold) != ESKER_OK) {
            die("open failed");
        }
        pthread_t threads[WRITERS + READERS + 1];
        for (intptr_t i = 0; i < WRITERS + READERS + 1; i++) {
            void *(*run)(void *) = i < WRITERS             ? writer_main
                                   : i < WRITERS + READERS ? reader_main
                                                           : churn_main;
            if (pthread_create(&threads[i], NULL, run, (void *)i) != 0) {
                die("no thread");
            }
        }
        usleep(seconds * 500000);
        store_relaxed(&stop, true); /* relaxed: only ends the loops */
        for (int i = 0; i < WRITERS + READERS + 1; i++) {
            pthread_join(threads[i], NULL);
        }
        for (int writer = 0; writer < WRITERS; writer++) {
            if (read_group_scan(writer, NULL, false) != load_relaxed(&acked[writer])) { /* relaxed: joined */
                die("the last number is not there");
            }
        }
        esker_iter_destroy(hold);
        if (esker_close(db) != ESKER_OK || esker_verify(path, NULL, NULL) != ESKER_OK) {
            die("close or verify failed");
        }
    }
    if (esker_destroy(path) != ESKER_OK) {
        die("destroy failed");
    }
    printf("%llu batches, %llu reads: every one consistent\n", (unsigned long long)load_relaxed(&writes),
           (unsigned long long)load_relaxed(&reads)); /* relaxed: joined */
    return 0;
}
