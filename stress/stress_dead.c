/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: what is put into a stretch of deleted keys is seen by whoever looks after
 * the put has returned, while others walk over the same stretch, remember it as
 * dead and jump over it; windows change and are flushed meanwhile.
 * Method: each thread owns every n-th key. It puts one of them amid the deleted
 * ones and must find it by a seek from a little before, deletes it and must not;
 * from the other side as well. Every walk crosses other threads' keys.
 *
 *   stress_dead [seconds [seed]]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"
#include "io/io_sim.h"
#include "stress_die.h"

enum { THREADS = 4, KEYS = 4000, BEFORE = 300 };

static esker_db *db;
static _Atomic bool stop;
static _Atomic uint64_t rounds; /* relaxed: a statistic */

struct owner {
    struct rng rng;
    uint32_t number;
};

static esker_slice
key_of(uint64_t number, char out[16])
{
    return esker_bytes(out, (size_t)snprintf(out, 16, "key%07llu", (unsigned long long)number));
}

/* Is `key` there, for a walk that comes from a distance? */
static bool
is_met(uint64_t key, uint64_t distance, bool backward)
{
    char name[16];
    char want[16];
    esker_iter *it = NULL;
    must(esker_iter_create(db, NULL, &it), "no iterator");
    uint64_t from = backward ? MIN(key + distance, (uint64_t)KEYS) : key - MIN(key, distance);
    esker_slice target = key_of(from, name);
    size_t len = key_of(key, want).size;
    esker_status status = backward ? esker_iter_seek_for_prev(it, target) : esker_iter_seek(it, target);
    bool met = false;
    while (status == ESKER_OK && !met) {
        int order = memcmp(esker_iter_key(it).data, want, len);
        if (backward ? order < 0 : order > 0) {
            break;
        }
        met = order == 0;
        status = backward ? esker_iter_prev(it) : esker_iter_next(it);
    }
    if (status != ESKER_OK && status != ESKER_END) {
        die("a walk failed");
    }
    esker_iter_destroy(it);
    return met;
}

static void *
owner_main(void *arg)
{
    struct owner *owner = arg;
    char name[16];
    /* relaxed: only ends the loop */
    while (!load_relaxed(&stop)) {
        uint64_t key = rng_below(&owner->rng, KEYS / THREADS) * THREADS + owner->number;
        uint64_t distance = rng_below(&owner->rng, BEFORE);
        bool backward = rng_below(&owner->rng, 4) == 0;
        must(esker_put(db, key_of(key, name), esker_str("here"), NULL), "a put failed");
        if (!is_met(key, distance, backward)) {
            die("what was put is not seen");
        }
        must(esker_delete(db, key_of(key, name), NULL), "a delete failed");
        if (is_met(key, distance, backward)) {
            die("what was deleted is seen");
        }
        add_relaxed(&rounds, 1);      /* relaxed: a statistic */
        for (int i = 0; i < 3; i++) { /* quiet looks, so that something can be proven dead */
            (void)is_met(0, 0, false);
            (void)is_met(key, BEFORE, backward);
        }
    }
    return NULL;
}

int
main(int argc, char **argv)
{
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 2;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    struct db_tuning tuning = {
        .window_bytes_first = 64 << 10, .window_bytes_max = 256 << 10, .segment_bytes = 256 << 10};
    struct sim_disk *disk = sim_disk_create(seed);
    struct io *io = NULL;
    esker_options options;
    pthread_t threads[THREADS];
    struct owner owners[THREADS];
    char name[16];
    esker_options_init(&options);
    options.memory_budget_bytes = 32 << 20;
    must(io_sim_open(disk, &mem_default, &io), "no disk");
    must(db_open_on(io, &options, &tuning, false, &db), "no database");
    for (uint64_t key = 0; key < KEYS; key++) {
        must(esker_delete(db, key_of(key, name), NULL), "a delete failed");
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        owners[i] = (struct owner){.rng = {.state = seed * THREADS + i}, .number = i};
        if (pthread_create(&threads[i], NULL, owner_main, &owners[i]) != 0) {
            die("no thread");
        }
    }
    sleep(seconds);
    store_relaxed(&stop, true); /* relaxed: only ends the loops */
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    must(esker_close(db), "close failed");
    sim_disk_destroy(disk);
    printf("%llu rounds, seed %llu\n", (unsigned long long)load_relaxed(&rounds), /* relaxed: joined */
           (unsigned long long)seed);
    return 0;
}
