/* SPDX-License-Identifier: MIT */
/* Workloads that get single records, and what several workloads share. */
#include "tools/bench_work.h"

#include <stdio.h>
#include <stdlib.h>

enum { READ_WARM_STEP = 5 };

/* ---- Shared ---------------------------------------------------------------------- */

static void
read_warm_role(struct bench_worker *worker)
{
    uint64_t version;
    for (uint64_t index = worker->index; index < worker->run->keys.records && bench_more(worker);
         index += READ_WARM_STEP * worker->role->threads) {
        if (!bench_get_timed(worker, index, &version)) {
            return;
        }
    }
}

int
bench_warm(struct bench_run *run)
{
    const struct bench_role role = {.name = "warm", .fn = read_warm_role, .threads = 2};
    return bench_team(run, &role, 1, false);
}

static void
read_count_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    void *iter = NULL;
    if (run->engine->iter_open(worker->session, NULL, &iter) != BENCH_OK) {
        (void)bench_fail_call(run, "iterator");
        return;
    }
    struct bench_row row;
    uint8_t last[BENCH_KEY_BYTES] = {0};
    int answer = run->engine->iter_step(iter, BENCH_FIRST, bytes_make(NULL, 0), &row);
    while (answer == BENCH_OK && bench_row_good(worker, &row)) {
        if (worker->ops > 0 && memcmp(last, row.key.ptr, BENCH_KEY_BYTES) >= 0) {
            (void)bench_wrong(run, "an iterator went back after row %llu", (unsigned long long)worker->ops);
            break;
        }
        memcpy(last, row.key.ptr, BENCH_KEY_BYTES);
        worker->ops++;
        answer = run->engine->iter_step(iter, BENCH_NEXT, bytes_make(NULL, 0), &row);
    }
    if (answer == BENCH_FAILED) {
        (void)bench_fail_call(run, "iterator");
    }
    run->engine->iter_close(iter);
    *(uint64_t *)worker->role->arg = worker->ops;
}

int
bench_check_count(struct bench_run *run, uint64_t expected)
{
    uint64_t seen = 0;
    const struct bench_role role = {.name = "check", .fn = read_count_role, .threads = 1, .arg = &seen};
    if (bench_team(run, &role, 1, false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    if (seen != expected) {
        return bench_wrong(run, "%llu rows are there; %llu were written", (unsigned long long)seen,
                           (unsigned long long)expected);
    }
    return BENCH_OK;
}

void
bench_count_open(struct bench_run *run, uint64_t ops)
{
    double open_seconds = (double)run->open_ns / 1e9;
    double alone = run->result->value;
    double seconds = alone > 0.0 ? (double)ops / alone + open_seconds : 0.0;
    bench_set_metric(run, "open_seconds", open_seconds);
    bench_set_metric(run, "with_open_ops_per_s", seconds > 0.0 ? (double)ops / seconds : 0.0);
}

int
bench_close_and_weigh(struct bench_run *run, uint64_t user_bytes, uint64_t live_bytes)
{
    uint64_t began = bench_now_ns();
    if (bench_close(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bench_set_metric(run, "close_seconds", (double)(bench_now_ns() - began) / 1e9);
    uint64_t disk = bench_disk_bytes(run->setup.dir);
    bench_set_metric(run, "disk_bytes", (double)disk);
    if (live_bytes > 0) {
        bench_set_metric(run, "space_amp", (double)disk / (double)live_bytes);
    }
    if (user_bytes > 0) {
        bench_set_metric(run, "write_amp", bench_usage_written(run) / (double)user_bytes);
    }
    return BENCH_OK;
}

/* ---- Present records ------------------------------------------------------------- */

static void
read_random_role(struct bench_worker *worker)
{
    uint64_t version;
    while (bench_more(worker)) {
        if (!bench_get_timed(worker, rng_below(&worker->rng, worker->run->keys.records), &version)) {
            return;
        }
    }
}

/* ops_max: of each thread; the open then counts as well. */
static int
read_measure(struct bench_run *run, bench_role_fn *fn, uint32_t threads, uint64_t ops_max)
{
    struct bench_role role = {
        .name = "read", .fn = fn, .threads = threads, .ops_max = ops_max, .for_ns = run->config->phase_ns};
    if (bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    if (ops_max > 0) {
        bench_count_open(run, ops_max * threads);
    }
    return bench_close(run);
}

int
bench_work_readrandom(struct bench_run *run)
{
    if (bench_open(run) != BENCH_OK || bench_warm(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return read_measure(run, read_random_role, run->workload->arg, 0);
}

/* Small cache; with dropped page cache too the reads go to the disk. */
int
bench_work_readcold(struct bench_run *run)
{
    if (bench_open(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bool dropped = bench_is_cold(run);
    if (!dropped && bench_warm(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bench_set_metric(run, "page_cache_dropped", dropped ? 1.0 : 0.0);
    uint64_t most = dropped ? MAX(bench_cold_ops(run) / run->workload->arg, 1u) : 0;
    return read_measure(run, read_random_role, run->workload->arg, most);
}

/* ---- Many at once ------------------------------------------------------------------ */

enum { READ_MANY_CALLS_LEAST = 16 };

struct read_many {
    struct bench_worker *worker;
    uint8_t keys[BENCH_MANY_MAX][BENCH_KEY_BYTES];
};

/* A worker's numbers begin anew in each phase: goes past those that were used before. */
static void
read_skip(struct bench_worker *worker)
{
    for (uint64_t left = *(const uint64_t *)worker->role->arg; left > 0; left--) {
        (void)rng_below(&worker->rng, worker->run->keys.records);
    }
}

static void
read_single_role(struct bench_worker *worker)
{
    read_skip(worker);
    read_random_role(worker);
}

static bool
read_many_look(void *arg, size_t place, struct bytes value)
{
    const struct read_many *many = arg;
    uint64_t version;
    return bench_value_check(bytes_make(many->keys[place], BENCH_KEY_BYTES), value,
                             many->worker->run->config->value_bytes, &version);
}

static void
read_many_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    struct read_many many = {.worker = worker};
    struct bytes keys[BENCH_MANY_MAX];
    read_skip(worker);
    while (bench_more(worker)) {
        for (size_t i = 0; i < BENCH_MANY_MAX; i++) {
            bench_key_of(&run->keys, rng_below(&worker->rng, run->keys.records), many.keys[i]);
            keys[i] = bytes_make(many.keys[i], BENCH_KEY_BYTES);
        }
        bool good = false;
        bench_begin(worker);
        int answer =
            run->engine->get_many(worker->session, keys, BENCH_MANY_MAX, read_many_look, &many, &good);
        bench_end(worker, BENCH_MANY_MAX);
        if (answer == BENCH_FAILED) {
            (void)bench_fail_call(run, "get of many");
            return;
        }
        if (answer == BENCH_NONE || !good) {
            (void)bench_wrong(run, answer == BENCH_NONE ? "a get of many says that a record is absent"
                                                        : "a get of many gave what was never written");
            return;
        }
    }
}

/* Gets one by one, then 64 at a time, of other records: what asking together is worth. The first gets are
 * not measured, so that what is loaded once is loaded. */
int
bench_work_readmany(struct bench_run *run)
{
    uint64_t ops = bench_cold_ops(run);
    uint64_t used = ops;
    struct bench_role role = {.name = "first", .fn = read_random_role, .threads = 1, .ops_max = ops};
    if (run->engine->get_many == NULL) {
        return bench_skip(run, "cannot get many at once");
    }
    if (bench_open(run) != BENCH_OK || bench_team(run, &role, 1, false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    role = (struct bench_role){
        .name = "single", .fn = read_single_role, .threads = 1, .ops_max = ops, .arg = &used};
    if (bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    double alone = run->result->value;
    used += ops;
    role.name = "many";
    role.fn = read_many_role;
    role.ops_max = MAX(ops, (uint64_t)READ_MANY_CALLS_LEAST * BENCH_MANY_MAX);
    if (bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bench_set_metric(run, "single_ops_per_s", alone);
    bench_set_metric(run, "times_single", alone > 0.0 ? run->result->value / alone : 0.0);
    return bench_close(run);
}

/* ---- Absent records ---------------------------------------------------------------- */

void
bench_absent_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint64_t absent = run->keys.capacity - run->keys.records;
    while (bench_more(worker)) {
        bench_key_absent(&run->keys, rng_below(&worker->rng, absent), worker->key);
        size_t size = 0;
        bench_begin(worker);
        int answer = run->engine->get(worker->session, NULL, bytes_make(worker->key, BENCH_KEY_BYTES),
                                      worker->read, BENCH_READ_CAP, &size);
        bench_end(worker, 1);
        if (answer != BENCH_NONE) {
            (void)(answer == BENCH_FAILED ? bench_fail_call(run, "get")
                                          : bench_wrong(run, "get found a key that was never written"));
            return;
        }
    }
}

int
bench_work_readmissing(struct bench_run *run)
{
    if (bench_open(run) != BENCH_OK || bench_warm(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return read_measure(run, bench_absent_role, run->workload->arg, 0);
}
