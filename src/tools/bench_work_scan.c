/* SPDX-License-Identifier: MIT */
/*
 * Workloads with iterators. A range read is what an application does: an
 * iterator at the newest state, a seek, so many rows, the iterator closed.
 */
#include "tools/bench_work.h"

enum { SCAN_WHOLE_CHECK_STEP = 16 };

static void
scan_seek_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    const struct bench_engine *engine = run->engine;
    uint32_t want = run->workload->arg;
    while (bench_more(worker)) {
        bench_key_of(&run->keys, rng_below(&worker->rng, run->keys.records), worker->key);
        struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
        struct bench_row row = {.key = {.ptr = NULL}};
        void *iter = NULL;
        uint64_t began = bench_ticks();
        int answer = engine->iter_open(worker->session, NULL, &iter);
        if (answer != BENCH_OK) {
            (void)bench_fail_call(run, "iterator");
            return;
        }
        answer = engine->iter_step(iter, BENCH_SEEK, key, &row);
        if (answer != BENCH_OK || !bytes_equal(row.key, key)) {
            (void)bench_wrong(run, "a seek to a present key landed elsewhere");
        }
        uint32_t rows = 0;
        while (answer == BENCH_OK && rows < want && bench_row_good(worker, &row)) {
            rows++;
            answer = engine->iter_step(iter, BENCH_NEXT, key, &row);
        }
        engine->iter_close(iter);
        if (answer == BENCH_FAILED) {
            (void)bench_fail_call(run, "iterator");
        }
        worker->begun = began;
        bench_end(worker, 1);
    }
}

int
bench_work_seek(struct bench_run *run)
{
    bool cold = bench_is_cold(run);
    const struct bench_role role = {.name = "range",
                                    .fn = scan_seek_role,
                                    .threads = 1,
                                    .ops_max = cold ? bench_cold_ops(run) : 0,
                                    .for_ns = run->config->phase_ns};
    if (bench_open(run) != BENCH_OK || (!cold && bench_warm(run) != BENCH_OK) ||
        bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    if (cold) {
        bench_count_open(run, role.ops_max);
    }
    return bench_close(run);
}

/* Generating a whole value costs half of what a fast engine takes per row, so
 * of most rows only the check word is compared. The walk before the measured
 * ones compares every byte. */
static inline bool
scan_row_good(struct bench_worker *worker, const struct bench_row *row, uint64_t rows)
{
    uint32_t size = worker->run->config->value_bytes;
    bool whole = rows % SCAN_WHOLE_CHECK_STEP == 0;
    if (LIKELY(!whole && bench_value_check_head(row->key, row->value, size))) {
        return true;
    }
    return bench_row_good(worker, row);
}

/* One walk over everything; false ends the phase. */
static bool
scan_walk(struct bench_worker *worker, void *iter, bool reverse)
{
    struct bench_run *run = worker->run;
    int (*iter_step)(void *, enum bench_step, struct bytes, struct bench_row *) = run->engine->iter_step;
    enum bench_step onward = reverse ? BENCH_PREV : BENCH_NEXT;
    struct bytes none = bytes_make(NULL, 0);
    struct bench_row row;
    uint64_t rows = 0;
    uint64_t last = reverse ? UINT64_MAX : 0;
    int answer = iter_step(iter, reverse ? BENCH_LAST : BENCH_FIRST, none, &row);
    while (answer == BENCH_OK) {
        /* Rows differ within the first eight bytes of their keys. */
        uint64_t place = row.key.len == BENCH_KEY_BYTES ? bytes_prefix64(row.key.ptr, row.key.len) : 0;
        bool ordered = rows == 0 || (reverse ? place < last : place > last);
        if (UNLIKELY(!ordered)) {
            (void)bench_wrong(run, "rows out of order after %llu", (unsigned long long)rows);
            return false;
        }
        if (UNLIKELY(!scan_row_good(worker, &row, rows))) {
            return false;
        }
        last = place;
        rows++;
        answer = iter_step(iter, onward, none, &row);
    }
    if (answer == BENCH_FAILED) {
        (void)bench_fail_call(run, "iterator");
        return false;
    }
    if (rows != run->keys.records) {
        (void)bench_wrong(run, "a walk met %llu rows of %llu", (unsigned long long)rows,
                          (unsigned long long)run->keys.records);
        return false;
    }
    worker->ops += rows;
    worker->now = bench_ticks();
    return true;
}

/* Whole walks until the time is over; single rows are not timed. */
static void
scan_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    bool more = true;
    while (more && bench_more(worker)) {
        void *iter = NULL;
        if (run->engine->iter_open(worker->session, NULL, &iter) != BENCH_OK) {
            (void)bench_fail_call(run, "iterator");
            return;
        }
        more = scan_walk(worker, iter, run->workload->arg != 0);
        run->engine->iter_close(iter);
    }
}

/* A cold scan is one walk; it is its own check. */
int
bench_work_scan(struct bench_run *run)
{
    bool cold = bench_is_cold(run);
    const struct bench_role role = {.name = "scan",
                                    .fn = scan_role,
                                    .threads = 1,
                                    .ops_max = cold ? run->keys.records : 0,
                                    .for_ns = cold ? 0 : run->config->phase_ns};
    if (bench_open(run) != BENCH_OK || (!cold && bench_check_count(run, run->keys.records) != BENCH_OK) ||
        bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}
