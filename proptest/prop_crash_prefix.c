/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: after any crash, opening succeeds and the contents are the state after
 * some prefix of the commit order, made of whole batches, that holds everything
 * that was promised to survive that kind of crash.
 * Method: random batches with tiny windows on the simulated disk, single
 * threaded and deterministic, so that rotation, flush, merge and manifest
 * rewrite all happen; the disk stops at a random mutating operation; then every
 * kind of crash on clones of the same moment; then the recovered database
 * writes on, crashes and is checked again.
 *
 *   prop_crash_prefix [seed [runs]]
 */
#include "batch_model.h"

/* Writes until `count` batches are in or the disk is off. The process dies with
 * the disk: what returns OK after that (a commit into the mapped log makes no
 * system call) was never acknowledged to anybody. */
static void
work(esker_db *db, struct sim_disk *disk, struct history *history, struct rng *rng, int level, uint32_t count)
{
    for (uint32_t i = 0; i < count && history->submitted < BATCHES_MAX && !sim_disk_is_off(disk); i++) {
        uint64_t choice = rng_below(rng, 40);
        esker_status status = ESKER_OK;
        if (choice == 0) {
            status = esker_flush(db);
            history->durable = status == ESKER_OK ? history->submitted : history->durable;
        } else if (choice == 1) {
            status = esker_compact(db, NULL, NULL);
            history->durable = status == ESKER_OK ? history->submitted : history->durable;
        } else if (choice == 2) {
            status = esker_sync(db);
            history->durable = status == ESKER_OK ? history->submitted : history->durable;
        } else if (choice < 6) {
            while (rng_below(rng, 3) != 0 && workers_run_one()) {
            }
        } else {
            struct batch *batch = &history->batches[history->submitted++];
            bool sync = rng_below(rng, 6) == 0;
            make_batch(rng, batch, history->submitted);
            history->lsn_seen = MAX(history->lsn_seen, esker_visible_lsn(db));
            status = write_batch(db, batch, sync ? ESKER_DURABLE_SYNC : level);
            if (status == ESKER_OK && !sim_disk_is_off(disk)) {
                history->acked = history->submitted;
                history->durable = sync ? history->submitted : history->durable;
            }
        }
        if (status != ESKER_OK) {
            return; /* the power is off */
        }
    }
}

/* Recovers on `disk`, checks, writes on, crashes, checks again. */
static void
check_crash(struct sim_disk *disk, const struct history *before, uint32_t least, struct rng *rng, int level)
{
    static struct history history;
    esker_db *db = NULL;
    struct image seen;
    for (int round = 0; round < 3; round++) {
        if (round == 0) {
            history = *before;
        }
        if (open_db(disk, level, NULL, &db) != ESKER_OK) {
            fail("open refuses a legal crash state");
        }
        if (esker_visible_lsn(db) < history.lsn_seen) {
            fail("an LSN that was seen before the crash would be used again");
        }
        image_read(db, &seen);
        uint32_t prefix = check_prefix(&history, least, &seen, "the contents are no legal prefix");
        history.submitted = prefix; /* what was cut is gone for good */
        history.acked = prefix;
        history.durable = MIN(history.durable, prefix);
        if (round == 1 && rng_below(rng, 2) == 0) {
            /* Nothing written, only opened: the next crash must find the same. */
            history.durable = history.durable;
        } else {
            work(db, disk, &history, rng, level, 12);
        }
        if (round == 2) {
            if (esker_close(db) != ESKER_OK) {
                fail("a close after recovery failed");
            }
            sim_disk_reboot(disk);
            break;
        }
        bool power = rng_below(rng, 2) == 0;
        sim_disk_crash(disk, power ? SIM_CRASH_POWER_RANDOM : SIM_CRASH_KILL, rng_next(rng));
        (void)!esker_close(db);
        least = power ? history.durable : history.acked;
    }
    if (open_db(disk, level, NULL, &db) != ESKER_OK) {
        fail("open after a clean close failed");
    }
    image_read(db, &seen);
    (void)check_prefix(&history, history.submitted, &seen, "a clean close lost something");
    if (esker_close(db) != ESKER_OK) {
        fail("the last close failed");
    }
}

static void
one_run(uint64_t seed)
{
    static struct history history;
    run_seed = seed;
    memset(&history, 0, sizeof history);
    struct rng rng = {seed};
    struct sim_disk *disk = sim_disk_create(seed);
    static const int levels[] = {ESKER_DURABLE_PROCESS, ESKER_DURABLE_SYNC, ESKER_DURABLE_MEMORY};
    int level = levels[rng_below(&rng, 3)];
    esker_db *db = NULL;
    sim_disk_crash_at(disk, 1 + rng_below(&rng, rng_below(&rng, 3) == 0 ? 120 : 1500));
    if (open_db(disk, level, NULL, &db) == ESKER_OK) {
        work(db, disk, &history, &rng, level, BATCHES_MAX);
    }
    if (level == ESKER_DURABLE_SYNC) {
        history.durable = history.acked;
    }

    static const enum sim_crash modes[] = {SIM_CRASH_KILL, SIM_CRASH_POWER_NONE, SIM_CRASH_POWER_ALL,
                                           SIM_CRASH_POWER_RANDOM, SIM_CRASH_POWER_RANDOM};

    uint32_t kill_least = level == ESKER_DURABLE_MEMORY ? history.durable : history.acked;
    for (size_t i = 0; i < COUNTOF(modes); i++) {
        struct sim_disk *clone = sim_disk_clone(disk);
        sim_disk_crash(clone, modes[i], rng_next(&rng));
        check_crash(clone, &history, modes[i] == SIM_CRASH_KILL ? kill_least : history.durable, &rng,
                    ESKER_DURABLE_PROCESS);
        sim_disk_destroy(clone);
    }
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    if (db != NULL) {
        (void)!esker_close(db);
    }
    sim_disk_destroy(disk);
}

int
main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 60;
    for (uint64_t i = 0; i < runs; i++) {
        one_run(seed + i);
    }
    printf("%llu runs from seed %llu: every crash state was a legal prefix\n", (unsigned long long)runs,
           (unsigned long long)seed);
    edge_report();
    return 0;
}
