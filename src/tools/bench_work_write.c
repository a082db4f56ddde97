/* SPDX-License-Identifier: MIT */
/* Workloads that fill and overwrite. */
#include "tools/bench_work.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    WRITE_SEQUENTIAL = 0,   /* workload->arg of fill */
    WRITE_TIME_FACTOR = 10, /* a fill may take so many phases before it is cut short */
    WRITE_SAMPLE = 20000    /* records whose exact version is checked, evenly chosen */
};

/* ---- Fill ---------------------------------------------------------------------- */

static void
write_fill_seq_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint32_t size = run->config->value_bytes;
    for (uint64_t rank = 0; bench_more(worker); rank++) {
        bench_key_at_rank(&run->keys, rank, worker->key);
        bench_value_fill(worker->key, 0, worker->value, size);
        bench_begin(worker);
        int answer = run->engine->put(worker->session, bytes_make(worker->key, BENCH_KEY_BYTES),
                                      bytes_make(worker->value, size));
        bench_end(worker, 1);
        if (answer != BENCH_OK) {
            (void)bench_fail_call(run, "put");
            return;
        }
    }
}

/* Worker j of n puts the records j, n + j, 2n + j, ... */
static void
write_fill_random_role(struct bench_worker *worker)
{
    uint32_t step = worker->role->threads;
    for (uint64_t index = worker->index; bench_more(worker); index += step) {
        if (!bench_put_timed(worker, index, 0)) {
            return;
        }
    }
}

/* After a fill: what is there, is it right, what did it cost on disk. */
static int
write_fill_finish(struct bench_run *run)
{
    uint64_t bytes = run->result->ops * bench_record_bytes(run);
    if (bench_check_count(run, run->result->ops) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close_and_weigh(run, bytes, bytes);
}

int
bench_work_fill(struct bench_run *run)
{
    bool sequential = run->workload->arg == WRITE_SEQUENTIAL;
    uint32_t threads = sequential ? 1 : run->workload->arg;
    struct bench_role role = {.name = "write",
                              .fn = sequential ? write_fill_seq_role : write_fill_random_role,
                              .threads = threads,
                              .ops_max = run->keys.records / threads,
                              .for_ns = run->config->phase_ns * WRITE_TIME_FACTOR};
    if (bench_open(run) != BENCH_OK || bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return write_fill_finish(run);
}

/*
 * The least that any log pays: a page of a file that was written before, written
 * again and made durable by fdatasync. Beside the engine, in the same directory.
 */
static int
write_floor(struct bench_run *run, double *per_second_out)
{
    enum { FLOOR_PAGE = 4096, FLOOR_PAGES = 256, FLOOR_SHARE = 4 };

    char path[512];
    static const uint8_t page[FLOOR_PAGE] = {1};
    (void)snprintf(path, sizeof path, "%s/../floor", run->setup.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool good = fd >= 0;
    for (uint32_t i = 0; i < FLOOR_PAGES && good; i++) {
        good = pwrite(fd, page, FLOOR_PAGE, (off_t)i * FLOOR_PAGE) == FLOOR_PAGE;
    }
    good = good && fsync(fd) == 0;
    uint64_t began = bench_now_ns();
    uint64_t now = began;
    uint64_t count = 0;
    while (good && now - began < run->config->phase_ns / FLOOR_SHARE) {
        good = pwrite(fd, page, FLOOR_PAGE, (off_t)(count % FLOOR_PAGES) * FLOOR_PAGE) == FLOOR_PAGE &&
               fdatasync(fd) == 0;
        count++;
        now = bench_now_ns();
    }
    if (fd >= 0) {
        (void)close(fd);
        (void)unlink(path);
    }
    *per_second_out = (double)count * 1e9 / (double)MAX(now - began, 1u);
    return good ? BENCH_OK : bench_fail(run, "the floor cannot be measured in %s", path);
}

/* The rate that an engine can keep up: the time until its merges have caught up counts. */
int
bench_work_fill_settled(struct bench_run *run)
{
    struct bench_role role = {.name = "write",
                              .fn = write_fill_random_role,
                              .threads = run->workload->arg,
                              .ops_max = run->keys.records / run->workload->arg,
                              .for_ns = run->config->phase_ns * WRITE_TIME_FACTOR};
    if (bench_open(run) != BENCH_OK || bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    struct bench_usage_mark mark = run->mark;
    uint64_t quiet_since_ns = 0;
    if (bench_settle(run, &quiet_since_ns) != BENCH_OK) {
        return BENCH_FAILED;
    }
    uint64_t filled_ns = run->result->wall_ns;
    run->result->wall_ns = MAX(quiet_since_ns - mark.wall_ns, filled_ns);
    run->result->value = (double)run->result->ops * 1e9 / (double)run->result->wall_ns;
    run->result->series[0].wall_ns = run->result->wall_ns; /* the rate that is compared */
    bench_set_metric(run, "fill_seconds", (double)filled_ns / 1e9);
    bench_set_metric(run, "settle_seconds", (double)(run->result->wall_ns - filled_ns) / 1e9);
    bench_set_metric(run, "settled_disk_bytes", (double)bench_disk_bytes(run->setup.dir));
    return write_fill_finish(run);
}

int
bench_work_fillsync(struct bench_run *run)
{
    double floor_before = 0.0;
    double floor_after = 0.0;
    uint32_t threads = run->workload->arg;
    struct bench_role role = {.name = "write",
                              .fn = write_fill_random_role,
                              .threads = threads,
                              .ops_max = run->keys.records / threads,
                              .for_ns = run->config->phase_ns};
    if (bench_open(run) != BENCH_OK || write_floor(run, &floor_before) != BENCH_OK ||
        bench_team(run, &role, 1, true) != BENCH_OK || write_floor(run, &floor_after) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bench_set_metric(run, "floor_syncs_per_second", (floor_before + floor_after) / 2);
    bench_set_metric(run, "of_floor", run->result->value * 2 / (floor_before + floor_after));
    return write_fill_finish(run);
}

/* ---- Batches --------------------------------------------------------------------- */

void
bench_batch_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    struct bench_rows rows;
    if (bench_rows_make(run, &rows, *(const uint32_t *)worker->role->arg) != BENCH_OK) {
        return;
    }
    while (bench_more(worker)) {
        for (uint32_t i = 0; i < rows.count; i++) {
            bench_rows_set(&rows, i, worker->ops + i, 0);
        }
        bench_begin(worker);
        int answer = run->engine->batch(worker->session, rows.writes, rows.count);
        bench_end(worker, rows.count);
        if (answer != BENCH_OK) {
            (void)bench_fail_call(run, "batch");
        }
    }
    bench_rows_free(&rows);
}

int
bench_work_batch(struct bench_run *run)
{
    bool synced = run->workload->level == BENCH_SYNC;
    uint32_t count = (uint32_t)MIN((uint64_t)run->workload->arg, run->keys.records);
    struct bench_role role = {.name = "write",
                              .fn = bench_batch_role,
                              .threads = 1,
                              .ops_max = run->keys.records / count * count,
                              .for_ns = run->config->phase_ns * (synced ? 1 : WRITE_TIME_FACTOR),
                              .arg = &count};
    if (bench_open(run) != BENCH_OK || bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return write_fill_finish(run);
}

/* ---- Overwrite --------------------------------------------------------------------- */

/* Writes random records; remembers the last version of each, so that reads can be checked exactly. */
static void
write_overwrite_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint32_t *versions = worker->role->arg;
    while (bench_more(worker)) {
        uint64_t index = rng_below(&worker->rng, run->keys.records);
        uint32_t version = (uint32_t)worker->ops + 1;
        if (!bench_put_timed(worker, index, version)) {
            return;
        }
        versions[index] = version;
    }
}

static void
write_versions_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    const uint32_t *versions = worker->role->arg;
    uint64_t step = run->keys.records / WRITE_SAMPLE + 1;
    for (uint64_t index = worker->index; index < run->keys.records; index += step) {
        uint64_t version = 0;
        if (!bench_get_timed(worker, index, &version)) {
            return;
        }
        if (version != versions[index]) {
            (void)bench_wrong(run, "record %llu has version %llu; the last one written is %u",
                              (unsigned long long)index, (unsigned long long)version, versions[index]);
            return;
        }
    }
}

int
bench_work_overwrite(struct bench_run *run)
{
    uint32_t *versions = calloc(run->keys.records, sizeof *versions);
    if (versions == NULL) {
        return bench_fail(run, "out of memory");
    }
    struct bench_role role = {.name = "write",
                              .fn = write_overwrite_role,
                              .threads = 1,
                              .ops_max = run->keys.records,
                              .for_ns = run->config->phase_ns * WRITE_TIME_FACTOR,
                              .arg = versions};
    struct bench_role check = {.name = "check", .fn = write_versions_role, .threads = 1, .arg = versions};
    int status = bench_open(run);
    if (status == BENCH_OK) {
        status = bench_team(run, &role, 1, true);
    }
    if (status == BENCH_OK) {
        status = bench_team(run, &check, 1, false);
    }
    free(versions);
    if (status != BENCH_OK) {
        return status;
    }
    return bench_close_and_weigh(run, run->result->ops * bench_record_bytes(run),
                                 run->keys.records * bench_record_bytes(run));
}
