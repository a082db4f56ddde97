/* SPDX-License-Identifier: MIT */
/* The workloads: one function each, one table of them all. */
#ifndef ESKER_TOOLS_BENCH_WORK_H
#define ESKER_TOOLS_BENCH_WORK_H

#include "tools/bench_run.h"

extern const struct bench_workload bench_workloads[];
extern const uint32_t bench_workload_count;

enum { BENCH_LARGE_BYTES = 65536 };

/* A cold phase ends after so few of the records that it seldom meets what it
 * has read before, even where the kernel reads 128 KiB around each miss. */
enum { BENCH_COLD_SHARE = 4000, BENCH_COLD_LEAST = 50 };

int bench_work_fill(struct bench_run *run);
int bench_work_fill_settled(struct bench_run *run);
int bench_work_fillsync(struct bench_run *run);
int bench_work_batch(struct bench_run *run);
int bench_work_overwrite(struct bench_run *run);

int bench_work_mem_fill(struct bench_run *run);
int bench_work_mem_read(struct bench_run *run);

int bench_work_readrandom(struct bench_run *run);
int bench_work_readmissing(struct bench_run *run);
int bench_work_readcold(struct bench_run *run);
int bench_work_readmany(struct bench_run *run);

int bench_work_seek(struct bench_run *run);
int bench_work_scan(struct bench_run *run);

int bench_work_mixed(struct bench_run *run);
int bench_work_fill_paced(struct bench_run *run);
int bench_work_ycsb(struct bench_run *run);

int bench_work_large_fill(struct bench_run *run);
int bench_work_large_read(struct bench_run *run);
int bench_work_queue(struct bench_run *run);
int bench_work_snapshots(struct bench_run *run);
int bench_work_snapshot_churn(struct bench_run *run);
int bench_work_snapshot_read(struct bench_run *run);

int bench_work_merge(struct bench_run *run);
int bench_work_read_merging(struct bench_run *run);
int bench_work_close_merging(struct bench_run *run);

int bench_work_recovery(struct bench_run *run);
int bench_work_churn(struct bench_run *run);
int bench_work_compact(struct bench_run *run);

/* ---- What several workloads do ---- */

/* Does this cell read from the disk? Then nothing may warm its caches. */
static inline bool
bench_is_cold(const struct bench_run *run)
{
    return run->setup.bounded && run->config->drop_caches && run->workload->arg2 != 0;
}

static inline uint64_t
bench_cold_ops(const struct bench_run *run)
{
    return MAX(run->keys.records / BENCH_COLD_SHARE, (uint64_t)BENCH_COLD_LEAST);
}

/* Roles. Batches of as many records as the uint32_t at `arg` says, in order of their indexes. */
void bench_batch_role(struct bench_worker *worker);
/* Gets absent keys that lie between the present ones. */
void bench_absent_role(struct bench_worker *worker);

/* Reads a fifth of the records in random order, so that every block has been read. */
int bench_warm(struct bench_run *run);
/* Lets write buffers that grow with use grow, and leaves nothing else behind. */
int bench_grow_buffers(struct bench_run *run);
/* Walks everything: rows in order, values right, and exactly `expected` of them. */
int bench_check_count(struct bench_run *run, uint64_t expected);
/* A cold phase of so many operations that followed an open: what they come to with the open counted. */
void bench_count_open(struct bench_run *run, uint64_t ops);
/* Closes the database and reports disk space and write amplification; user_bytes is what was put
 * since the measured phase began; what closing writes counts too. */
int bench_close_and_weigh(struct bench_run *run, uint64_t user_bytes, uint64_t live_bytes);

static inline uint64_t
bench_record_bytes(const struct bench_run *run)
{
    return BENCH_KEY_BYTES + run->config->value_bytes;
}

#endif
