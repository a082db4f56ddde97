/* SPDX-License-Identifier: MIT */
/* The simulated disk's switches: faults, the power cut to come, clocks, counters and the log. */
#include "base/assert.h"
#include "io/io_sim_disk.h"

void
sim_disk_crash_at(struct sim_disk *disk, uint64_t nth)
{
    mutex_lock(&disk->guard);
    disk->cut_at = nth == 0 ? 0 : disk->mutations + nth;
    mutex_unlock(&disk->guard);
}

bool
sim_disk_is_off(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    bool off = disk->off;
    mutex_unlock(&disk->guard);
    return off;
}

uint64_t
sim_disk_mutations(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    uint64_t mutations = disk->mutations;
    mutex_unlock(&disk->guard);
    return mutations;
}

void
sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault)
{
    ASSERT(fault->nth > 0 && fault->kind < SIM_KINDS && fault->err >= 0);
    mutex_lock(&disk->guard);
    ASSERT(disk->fault_count < SIM_FAULTS_MAX);
    disk->faults[disk->fault_count++] = *fault;
    mutex_unlock(&disk->guard);
}

void
sim_disk_fail(struct sim_disk *disk, enum sim_kind kind, uint64_t nth, int err, bool sticky)
{
    sim_disk_add_fault(disk, &(struct sim_fault){.kind = kind, .nth = nth, .err = err, .sticky = sticky});
}

void
sim_disk_heal(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    disk->fault_count = 0;
    mutex_unlock(&disk->guard);
}

uint64_t
sim_disk_fired(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    uint64_t fired = disk->fired;
    mutex_unlock(&disk->guard);
    return fired;
}

uint64_t
sim_disk_count(struct sim_disk *disk, enum sim_kind kind)
{
    ASSERT(kind < SIM_KINDS);
    mutex_lock(&disk->guard);
    uint64_t count = disk->counts[kind];
    mutex_unlock(&disk->guard);
    return count;
}

void
sim_disk_set_sync_failure(struct sim_disk *disk, enum sim_sync_failure how)
{
    mutex_lock(&disk->guard);
    disk->sync_failure = how;
    mutex_unlock(&disk->guard);
}

void
sim_disk_set_lying(struct sim_disk *disk, bool lying)
{
    mutex_lock(&disk->guard);
    disk->lying = lying;
    mutex_unlock(&disk->guard);
}

void
sim_disk_set_capacity(struct sim_disk *disk, uint64_t bytes)
{
    mutex_lock(&disk->guard);
    disk->capacity = bytes;
    mutex_unlock(&disk->guard);
}

void
sim_disk_advance(struct sim_disk *disk, uint64_t ns)
{
    mutex_lock(&disk->guard);
    disk->now_ns += ns;
    mutex_unlock(&disk->guard);
}

void
sim_disk_set_wall(struct sim_disk *disk, uint64_t ns)
{
    mutex_lock(&disk->guard);
    /* Modulo 2^64, so that the clock can also be set back. */
    disk->wall_offset_ns = ns - disk->now_ns;
    mutex_unlock(&disk->guard);
}

void
sim_disk_set_log(struct sim_disk *disk, bool on)
{
    mutex_lock(&disk->guard);
    disk->logging = on;
    mutex_unlock(&disk->guard);
}

uint64_t
sim_disk_log_hash(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    uint64_t hash = disk->log_hash;
    mutex_unlock(&disk->guard);
    return hash;
}

const struct sim_log_entry *
sim_disk_log(struct sim_disk *disk, size_t *count_out)
{
    mutex_lock(&disk->guard);
    const struct sim_log_entry *log = disk->log;
    *count_out = disk->log_count;
    mutex_unlock(&disk->guard);
    return log;
}
