/* SPDX-License-Identifier: MIT */
/*
 * Databases on disks that are so small that a reserve is kept (ADR 0023): about
 * to make it, full with it, and with it given up; and workloads that make, give
 * up and restore it. For the enumeration in crash_states.h.
 */
#ifndef ESKER_PROPTEST_CRASH_FULL_H
#define ESKER_PROPTEST_CRASH_FULL_H

#include "crash_states.h"

/* Room for the logs, the reserve, and rows of most keys. */
enum { FULL_CAPACITY = 136 << 10, FULL_BATCHES = 6 };

/* What is left of it: of the second base room for the window of an open, of the third not even that. */
enum { FULL_LEFT_WINDOW = 14 << 10, FULL_LEFT_NOTHING = 1 << 10 };

static uint64_t full_capacities[2][BASES_ALL];

/* Deletes of everything thrice: they begin what is looked at here. */
static const uint8_t full_steps[] = {STEP_ERASE,  STEP_ERASE,    STEP_ERASE, STEP_FILL,       STEP_PUT,
                                     STEP_DELETE, STEP_FLUSH,    STEP_BATCH, STEP_BACKGROUND, STEP_COMPACT,
                                     STEP_REOPEN, STEP_PUT_SYNC, STEP_ROOM};
static const uint8_t full_bases[] = {0, 1, 2, 1, 2, 3};

enum {
    FULL_STRIDE = 1009, /* shares no factor with it */
    FULL_STEPS = sizeof full_steps,
    FULL_VARIANTS = 2 * sizeof full_bases,
    FULL_WORKLOADS =
        FULL_VARIANTS * (FULL_STEPS + FULL_STEPS * FULL_STEPS + FULL_STEPS * FULL_STEPS * FULL_STEPS)
};

/* The i-th of all workloads of one to three steps; on the full disks after what else fits there. */
static struct workload
full_workload(uint64_t index)
{
    uint32_t base = BASES + full_bases[index % sizeof full_bases];
    uint32_t tail = (uint32_t)(index / sizeof full_bases % 2);
    uint64_t rest = index / FULL_VARIANTS;
    struct workload workload = {
        .base = base, .level = base_level(tail), .seed = index, .capacity = full_capacities[tail][base]};
    uint32_t steps = 1;
    for (uint64_t count = FULL_STEPS; rest >= count; count *= FULL_STEPS) {
        rest -= count;
        steps++;
    }
    if (base > BASES) {
        workload.steps[workload.count++] = STEP_FILL;
    }
    for (; steps > 0; steps--, rest /= FULL_STEPS) {
        workload.steps[workload.count++] = full_steps[rest % FULL_STEPS];
    }
    return workload;
}

/* Filled until writes are refused; then, if asked to, deletes that give up the reserve; then killed. */
static void
full_fill_base(struct crash_run *run, struct sim_disk *disk, struct rng *rng, bool spend)
{
    esker_db *db = NULL;
    sim_disk_set_capacity(disk, FULL_CAPACITY);
    run->no_space = true;
    run_open(run, disk, &db);
    run_jobs(disk, JOBS_MOST); /* one of them makes the reserve */
    run_fill(run, disk, db, rng, FULL_BATCHES);
    sim_disk_set_capacity(disk, sim_disk_used_bytes(disk));
    if (db->reserve_bytes == 0 || db->reserve_spent) {
        fail("a full disk without a reserve");
    }
    for (uint32_t key = 0; spend && !db->reserve_spent && key < run_keys; key++) {
        if (!run_delete(run, disk, db, key)) {
            fail("a delete is refused where there is a reserve");
        }
    }
    if (db->reserve_spent != spend) {
        fail("the reserve was not given up for deletes");
    }
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    (void)!esker_close(db);
    run->history.durable = run->history.acked;
}

/* The first: nothing there. The others are full: with a reserve, and room for one window or none
 * beside it; the last has given it up. */
static void
full_make_base(uint32_t tail, uint32_t base)
{
    static struct crash_run run;
    static const uint64_t left[BASES_FULL] = {0, FULL_LEFT_WINDOW, FULL_LEFT_NOTHING, FULL_LEFT_WINDOW};
    uint32_t kind = base - BASES;
    struct sim_disk *disk = sim_disk_create(7 + base);
    struct rng rng = {base};
    memset(&run, 0, sizeof run);
    run.workload.level = base_level(tail);
    if (kind > 0) {
        full_fill_base(&run, disk, &rng, kind == 3);
    }
    sim_disk_reboot(disk);
    bases[tail][base] = disk;
    base_histories[tail][base] = run.history;
    full_capacities[tail][base] = left[kind] > 0 ? sim_disk_used_bytes(disk) + left[kind] : FULL_CAPACITY;
}

static void
full_make_bases(void)
{
    model_reserve = true;
    run_keys = KEYS;
    for (uint32_t tail = 0; tail < 2; tail++) {
        for (uint32_t base = BASES; base < BASES_ALL; base++) {
            full_make_base(tail, base);
        }
    }
}

#endif
