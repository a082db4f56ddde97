/* SPDX-License-Identifier: MIT */
/*
 * Workloads about merges: what a full one costs in processor time, what readers
 * suffer beside merges without pause, and how soon a close ends them.
 *
 * A full merge has the same to do in every engine: three sorted runs of random
 * keys, of which none is due for a merge of its own, become one. What is told is
 * bytes of keys and values per second of processor time, of all threads
 * together, so that who uses two cores has no advantage but in `wall_mb_per_s`.
 */
#include "tools/bench_work.h"

enum {
    MERGE_RUNS = 3, /* one less than what RocksDB, LevelDB and esker begin to merge at */
    MERGE_BATCH = 1000,
    MERGE_FRESH_SHARE = 20, /* of the records are overwritten before each of the merges beside readers */
    MERGE_FRESH_STEP = 7919
};

static void
merge_set_metric(void *run, const char *name, double value)
{
    bench_set_metric(run, name, value);
}

/* What only the engine itself knows. */
static void
merge_tell(struct bench_run *run)
{
    if (run->engine->tell != NULL) {
        run->engine->tell(run->db, merge_set_metric, run);
    }
}

/* ---- One full merge ------------------------------------------------------------------ */

/* Run j of n holds the records j, n + j, 2n + j, ...: each spans all keys. */
static void
merge_fill_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    struct bench_rows rows;
    uint64_t each = run->keys.records / MERGE_RUNS;
    if (bench_rows_make(run, &rows, (uint32_t)MIN((uint64_t)MERGE_BATCH, each)) != BENCH_OK) {
        return;
    }
    for (uint64_t part = 0; part < MERGE_RUNS && bench_more(worker); part++) {
        for (uint64_t i = 0; i + rows.count <= each && bench_more(worker); i += rows.count) {
            for (uint32_t k = 0; k < rows.count; k++) {
                bench_rows_set(&rows, k, (i + k) * MERGE_RUNS + part, 0);
            }
            if (run->engine->batch(worker->session, rows.writes, rows.count) != BENCH_OK) {
                (void)bench_fail_call(run, "batch");
            }
            worker->ops += rows.count;
        }
        if (run->engine->flush(run->db) == BENCH_FAILED) {
            (void)bench_fail_call(run, "flush");
        }
    }
    *(uint64_t *)worker->role->arg = worker->ops;
    bench_rows_free(&rows);
}

int
bench_work_merge(struct bench_run *run)
{
    uint64_t records = 0;
    const struct bench_role fill = {
        .name = "fill", .fn = merge_fill_role, .threads = 1, .arg = &records, .ops_max = UINT64_MAX};
    run->setup.codec = (enum bench_codec)run->workload->arg;
    if (!run->engine->merges_runs) {
        return bench_skip(run, "does not merge sorted runs");
    }
    if (bench_open(run) != BENCH_OK || bench_grow_buffers(run) != BENCH_OK ||
        bench_team(run, &fill, 1, false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    /* The last flush has been waited for, and three runs are no reason to merge: nothing works now. */
    bench_usage_start(run);
    if (run->engine->compact(run->db) != BENCH_OK) {
        return bench_fail_call(run, "compact");
    }
    bench_usage_stop(run);
    double bytes = (double)(records * bench_record_bytes(run));
    run->result->value = bytes * 1e3 / (double)MAX(run->result->cpu_ns, 1u);
    run->result->ops = records;
    bench_set_metric(run, "wall_mb_per_s", bytes * 1e3 / (double)MAX(run->result->wall_ns, 1u));
    merge_tell(run);
    if (bench_check_count(run, records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close_and_weigh(run, 0, records * bench_record_bytes(run));
}

/* ---- Reads beside merges --------------------------------------------------------------- */

static void
merge_read_role(struct bench_worker *worker)
{
    uint64_t version;
    while (bench_more(worker) &&
           bench_get_timed(worker, rng_below(&worker->rng, worker->run->keys.records), &version)) {
    }
}

/* Overwrites some records all over the keys, and merges everything. An operation is one merge. */
static void
merge_again_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    struct bench_rows rows;
    uint64_t fresh = MAX(run->keys.records / MERGE_FRESH_SHARE, 1u);
    if (bench_rows_make(run, &rows, (uint32_t)MIN((uint64_t)MERGE_BATCH, fresh)) != BENCH_OK) {
        return;
    }
    for (uint64_t next = 0; bench_more(worker);) {
        bench_begin(worker);
        for (uint64_t done = 0; done < fresh && bench_more(worker); done += rows.count, next += rows.count) {
            for (uint32_t i = 0; i < rows.count; i++) {
                bench_rows_set(&rows, i, (next + i) * MERGE_FRESH_STEP % run->keys.records, next + 1);
            }
            if (run->engine->batch(worker->session, rows.writes, rows.count) != BENCH_OK) {
                (void)bench_fail_call(run, "batch");
            }
        }
        if (run->engine->flush(run->db) == BENCH_FAILED || run->engine->compact(run->db) == BENCH_FAILED) {
            (void)bench_fail_call(run, "compact");
        }
        bench_end(worker, 1);
    }
    bench_rows_free(&rows);
}

int
bench_work_read_merging(struct bench_run *run)
{
    const struct bench_role roles[] = {
        {.name = "read", .fn = merge_read_role, .threads = 1, .for_ns = run->config->phase_ns},
        {.name = "merge", .fn = merge_again_role, .threads = 1, .for_ns = run->config->phase_ns},
    };
    if (!run->engine->merges_runs) {
        return bench_skip(run, "does not merge sorted runs");
    }
    if (bench_open(run) != BENCH_OK || bench_warm(run) != BENCH_OK ||
        bench_team(run, roles, COUNTOF(roles), true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    merge_tell(run);
    return bench_check_count(run, run->keys.records) == BENCH_OK ? bench_close(run) : BENCH_FAILED;
}

/* ---- Closing beside merges --------------------------------------------------------------- */

static void
merge_random_role(struct bench_worker *worker)
{
    while (bench_more(worker) && bench_put_timed(worker, worker->ops, 0)) {
    }
    *(uint64_t *)worker->role->arg = worker->ops;
}

int
bench_work_close_merging(struct bench_run *run)
{
    uint64_t records = 0;
    const struct bench_role fill = {.name = "fill",
                                    .fn = merge_random_role,
                                    .threads = 1,
                                    .ops_max = run->keys.records,
                                    .for_ns = run->config->phase_ns * 4,
                                    .arg = &records};
    if (bench_open(run) != BENCH_OK || bench_team(run, &fill, 1, false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    merge_tell(run); /* among it what was still to be merged */
    bench_usage_start(run);
    if (bench_close(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bench_usage_stop(run);
    run->result->value = (double)run->result->wall_ns / 1e9;
    run->result->ops = records;
    if (bench_open(run) != BENCH_OK || bench_check_count(run, records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}
