/* SPDX-License-Identifier: MIT */
#include "tools/workload_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "db/db.h"
#include "io/io_sim.h"
#include "tools/tool.h"

/* Small, so that the simulated files are. */
enum { DISK_BUDGET_BYTES = 32 << 20 };

struct workload_disk {
    struct sim_disk *sim;
};

/* The simulator's table with three entries replaced. Of the process, since an
 * entry has no place for a context; set before any handle is opened. */
static struct {
    struct io_ops ops;
    void (*run)(struct io *io, struct io_req *reqs, size_t count);
    uint64_t delay_ns;
} disk_slow;

static void
disk_slow_run(struct io *io, struct io_req *reqs, size_t count)
{
    struct timespec pause = {.tv_sec = (time_t)(disk_slow.delay_ns / 1000000000U),
                             .tv_nsec = (long)(disk_slow.delay_ns % 1000000000U)};
    if (disk_slow.delay_ns > 0) {
        (void)nanosleep(&pause, NULL);
    }
    disk_slow.run(io, reqs, count);
}

static uint64_t
disk_slow_monotonic(struct io *io)
{
    (void)io;
    return tool_now_ns();
}

static uint64_t
disk_slow_wall(struct io *io)
{
    (void)io;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

struct workload_disk *
workload_disk_create(uint64_t seed, uint64_t delay_ns)
{
    struct workload_disk *disk = calloc(1, sizeof *disk);
    if (disk == NULL) {
        return NULL;
    }
    disk->sim = sim_disk_create(seed);
    disk_slow.delay_ns = delay_ns;
    return disk;
}

void
workload_disk_destroy(struct workload_disk *disk)
{
    if (disk != NULL) {
        sim_disk_destroy(disk->sim);
        free(disk);
    }
}

esker_status
workload_disk_open(struct workload_disk *disk, const esker_options *options, esker_db **out)
{
    struct io *io = NULL;
    esker_options small = *options;
    small.memory_budget_bytes = MIN(small.memory_budget_bytes, (uint64_t)DISK_BUDGET_BYTES);
    TRY(io_sim_open(disk->sim, &mem_default, &io));
    if (disk_slow.run == NULL) {
        disk_slow.ops = *io->ops;
        disk_slow.run = io->ops->run;
        disk_slow.ops.run = disk_slow_run;
        disk_slow.ops.monotonic_ns = disk_slow_monotonic;
        disk_slow.ops.wall_ns = disk_slow_wall;
    }
    io->ops = &disk_slow.ops;
    return db_open_on(io, &small, NULL, false, out);
}

void
workload_disk_break(struct workload_disk *disk, uint32_t nth)
{
    sim_disk_heal(disk->sim);
    sim_disk_fail(disk->sim, nth % 2 == 0 ? SIM_SYNC : SIM_WRITE, 1, nth % 3 == 2 ? ENOSPC : EIO, false);
}

uint64_t
workload_disk_fired(struct workload_disk *disk)
{
    return sim_disk_fired(disk->sim);
}

void
workload_disk_heal(struct workload_disk *disk)
{
    sim_disk_heal(disk->sim);
}

void
workload_disk_cut(struct workload_disk *disk, esker_db *db, uint64_t seed)
{
    sim_disk_crash(disk->sim, SIM_CRASH_POWER_RANDOM, seed);
    IGNORE_STATUS(esker_close(db), "the power is off");
    sim_disk_heal(disk->sim);
}
