/* SPDX-License-Identifier: MIT */
/*
 * A disk of the simulator that answers late and fails on demand, in real time:
 * the clocks are the machine's, and each batch of transfers takes a while.
 */
#ifndef ESKER_TOOLS_WORKLOAD_DISK_H
#define ESKER_TOOLS_WORKLOAD_DISK_H

#include "esker/esker.h"

struct workload_disk;

/* NULL: no memory. One at a time in a process. */
struct workload_disk *workload_disk_create(uint64_t seed, uint64_t delay_ns);
void workload_disk_destroy(struct workload_disk *disk /* nullable */);
esker_status workload_disk_open(struct workload_disk *disk, const esker_options *options, esker_db **out);
/* The next sync, or every second time the next write, fails. */
void workload_disk_break(struct workload_disk *disk, uint32_t nth);
/* How many of them have happened. */
uint64_t workload_disk_fired(struct workload_disk *disk);
/* From here on nothing fails any more. */
void workload_disk_heal(struct workload_disk *disk);
/* A power cut: the database is closed without a further byte, what was not synced may be gone. */
void workload_disk_cut(struct workload_disk *disk, esker_db *db, uint64_t seed);

#endif
