/* SPDX-License-Identifier: MIT */
/*
 * Where workloads on a disk of any size begin, for the enumeration in
 * crash_states.h.
 */
#ifndef ESKER_PROPTEST_CRASH_BASES_H
#define ESKER_PROPTEST_CRASH_BASES_H

#include "crash_states.h"

/* 0: nothing there. 1: closed, with segments and rows in the log. 2: killed with rows in two logs. */
static void
make_base(uint32_t tail, uint32_t base)
{
    static struct crash_run run;
    static const uint8_t closed[] = {STEP_BATCH,   STEP_ROTATE, STEP_FLUSH, STEP_BATCH,  STEP_DELETE,
                                     STEP_COMPACT, STEP_PUT,    STEP_BATCH, STEP_REOPEN, STEP_PUT};
    static const uint8_t killed[] = {STEP_BATCH,  STEP_FLUSH, STEP_ROTATE,
                                     STEP_ROTATE, STEP_BATCH, STEP_PUT_SYNC};
    struct sim_disk *disk = sim_disk_create(7 + base);
    memset(&run, 0, sizeof run);
    run.workload.level = base_level(tail);
    run.workload.seed = base;
    if (base > 0) {
        const uint8_t *steps = base == 1 ? closed : killed;
        esker_db *db = NULL;
        struct rng rng = {base};
        run_open(&run, disk, &db);
        for (size_t i = 0; i < (base == 1 ? sizeof closed : sizeof killed); i++) {
            run_step(&run, disk, &db, &rng, (enum step)steps[i]);
        }
        if (base == 1) {
            run_close(&run, disk, db);
        } else {
            sim_disk_crash(disk, SIM_CRASH_KILL, 0);
            (void)!esker_close(db);
            run.history.durable = run.history.acked;
        }
    }
    sim_disk_reboot(disk);
    bases[tail][base] = disk;
    base_histories[tail][base] = run.history;
}

static void
make_bases(void)
{
    for (uint32_t tail = 0; tail < 2; tail++) {
        for (uint32_t base = 0; base < BASES; base++) {
            make_base(tail, base);
        }
    }
}

#endif
