/* SPDX-License-Identifier: MIT */
/*
 * Workloads that never leave the write buffers: what the structure behind a put
 * and a get of recent data costs, with no flush in the measured interval.
 *
 * Every engine first writes and deletes as many bytes as two of its largest
 * write buffers hold, flushes and merges. That leaves nothing behind but
 * buffers that have grown to their size where they grow with use, as esker's
 * do. What is measured then fits one buffer of 64 MiB.
 */
#include "tools/bench_work.h"

#include <stdlib.h>

enum {
    MEM_SHARE_NUM = 2, /* two fifths of the records: 1,000,000 of 16 + 100 bytes make 57.6 MiB of */
    MEM_SHARE_DEN = 5, /* log frames */
    MEM_TRICKLE_GETS = 1 << 16,
    MEM_TRICKLE_NS = 100000000,
    MEM_GROW_VALUES = 16,
    MEM_GROW_BYTES = 160 << 20,
    MEM_GROW_RECORD_BYTES = 161 /* what a run of fewer records grows to, per record */
};

static uint64_t
mem_records(const struct bench_run *run)
{
    return MAX(run->keys.records * MEM_SHARE_NUM / MEM_SHARE_DEN, 1u);
}

/* A put now and then, outside of what is timed: esker writes its buffers out, and
 * begins with small ones again, when nobody has written for a second. */
static bool
mem_trickle(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint32_t size = run->config->value_bytes;
    bench_key_of(&run->keys, 0, worker->key);
    bench_value_fill(worker->key, 0, worker->value, size);
    if (run->engine->put(worker->session, bytes_make(worker->key, BENCH_KEY_BYTES),
                         bytes_make(worker->value, size)) != BENCH_OK) {
        (void)bench_fail_call(run, "put");
        return false;
    }
    return true;
}

/* ---- Growing ---------------------------------------------------------------------- */

/* One batch of large values, or of their deletes, under keys that are absent otherwise. */
static int
mem_grow_write(struct bench_worker *worker, uint64_t from, bool remove)
{
    struct bench_run *run = worker->run;
    struct bench_write writes[MEM_GROW_VALUES];
    uint8_t keys[MEM_GROW_VALUES][BENCH_KEY_BYTES];
    uint64_t absent = run->keys.capacity - run->keys.records;
    for (uint32_t i = 0; i < MEM_GROW_VALUES; i++) {
        uint8_t *key = keys[i];
        bench_key_absent(&run->keys, (from + i) % absent, key);
        writes[i] = (struct bench_write){.key = bytes_make(key, BENCH_KEY_BYTES),
                                         .value = bytes_make(worker->value, remove ? 0 : BENCH_LARGE_BYTES),
                                         .remove = remove};
    }
    return run->engine->batch(worker->session, writes, MEM_GROW_VALUES);
}

static void
mem_grow_role(struct bench_worker *worker)
{
    uint64_t bytes = MIN((uint64_t)MEM_GROW_BYTES, worker->run->keys.records * MEM_GROW_RECORD_BYTES);
    uint64_t rounds = bytes / BENCH_LARGE_BYTES / MEM_GROW_VALUES + 1;
    for (uint64_t round = 0; round < rounds * 2 && bench_more(worker); round++) {
        if (mem_grow_write(worker, round % rounds * MEM_GROW_VALUES, round >= rounds) != BENCH_OK) {
            (void)bench_fail_call(worker->run, "batch");
        }
    }
}

static void
mem_settle_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    if (run->engine->flush(run->db) == BENCH_FAILED) {
        (void)bench_fail_call(run, "flush");
    } else if (run->engine->compact(run->db) == BENCH_FAILED) {
        (void)bench_fail_call(run, "compact");
    }
}

static void
mem_trickle_role(struct bench_worker *worker)
{
    const struct timespec pause = {.tv_nsec = MEM_TRICKLE_NS};
    while (bench_more(worker) && mem_trickle(worker)) {
        (void)nanosleep(&pause, NULL);
    }
}

int
bench_grow_buffers(struct bench_run *run)
{
    if (run->engine->maps_files) {
        return BENCH_OK; /* no buffers, and its free list makes deleting large values slow */
    }
    const struct bench_role grow = {.name = "grow", .fn = mem_grow_role, .threads = 1};
    const struct bench_role settle[] = {
        {.name = "settle", .fn = mem_settle_role, .threads = 1},
        {.name = "trickle", .fn = mem_trickle_role, .threads = 1, .follows = true},
    };
    if (bench_team(run, &grow, 1, false) != BENCH_OK ||
        bench_team(run, settle, COUNTOF(settle), false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return BENCH_OK;
}

/* ---- Filling ------------------------------------------------------------------------ */

/* Worker j of n puts the records j, n + j, 2n + j, ... */
static void
mem_put_role(struct bench_worker *worker)
{
    uint32_t step = worker->role->threads;
    for (uint64_t index = worker->index; bench_more(worker); index += step) {
        if (!bench_put_timed(worker, index, 0)) {
            return;
        }
    }
}

int
bench_work_mem_fill(struct bench_run *run)
{
    uint64_t records = mem_records(run);
    uint32_t batch = (uint32_t)MIN((uint64_t)run->workload->arg2, records);
    uint32_t threads = run->workload->arg;
    struct bench_role role = {.name = "write",
                              .fn = batch == 0 ? mem_put_role : bench_batch_role,
                              .threads = threads,
                              .ops_max = batch == 0 ? records / threads : records / batch * batch,
                              .arg = &batch};
    if (bench_open(run) != BENCH_OK || bench_grow_buffers(run) != BENCH_OK ||
        bench_team(run, &role, 1, true) != BENCH_OK || bench_check_count(run, run->result->ops) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}

/* ---- Reading ------------------------------------------------------------------------- */

static void
mem_get_role(struct bench_worker *worker)
{
    uint64_t records = *(const uint64_t *)worker->role->arg;
    uint64_t version;
    while (bench_more(worker) && (worker->ops % MEM_TRICKLE_GETS != 0 || mem_trickle(worker))) {
        if (!bench_get_timed(worker, rng_below(&worker->rng, records), &version)) {
            return;
        }
    }
}

/* The next key follows from the value that was read: nothing of two gets overlaps. */
static void
mem_chase_role(struct bench_worker *worker)
{
    uint64_t records = *(const uint64_t *)worker->role->arg;
    uint64_t index = 0;
    uint64_t version;
    while (bench_more(worker) && (worker->ops % MEM_TRICKLE_GETS != 0 || mem_trickle(worker))) {
        if (!bench_get_timed(worker, index, &version)) {
            return;
        }
        uint64_t word;
        memcpy(&word, worker->read + sizeof word, sizeof word);
        index = hash_mix(word, worker->ops) % records;
    }
}

int
bench_work_mem_read(struct bench_run *run)
{
    static bench_role_fn *const kinds[] = {mem_get_role, mem_chase_role, bench_absent_role};
    uint64_t records = mem_records(run);
    const struct bench_role fill = {.name = "fill", .fn = mem_put_role, .threads = 1, .ops_max = records};
    const struct bench_role read = {.name = "read",
                                    .fn = kinds[run->workload->arg2],
                                    .threads = run->workload->arg,
                                    .for_ns = run->config->phase_ns,
                                    .arg = &records};
    if (bench_open(run) != BENCH_OK || bench_grow_buffers(run) != BENCH_OK ||
        bench_team(run, &fill, 1, false) != BENCH_OK || bench_team(run, &read, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}
