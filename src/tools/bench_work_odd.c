/* SPDX-License-Identifier: MIT */
/* Workloads of odd shape: large values, a queue, many live snapshots. */
#include "tools/bench_work.h"

#include <stdlib.h>

/* ---- Large values ------------------------------------------------------------------ */

static void
odd_put_role(struct bench_worker *worker)
{
    for (uint64_t index = 0; bench_more(worker); index++) {
        if (!bench_put_timed(worker, index, 0)) {
            return;
        }
    }
}

static void
odd_get_role(struct bench_worker *worker)
{
    uint64_t version;
    while (bench_more(worker)) {
        if (!bench_get_timed(worker, rng_below(&worker->rng, worker->run->keys.records), &version)) {
            return;
        }
    }
}

/* Head and end of each value, and all of it now and then: reading 64 KiB takes longer than finding them. */
enum { ODD_LOOK_WHOLE = 64 };

static bool
odd_look(void *arg, struct bytes value)
{
    const struct bench_worker *worker = arg;
    struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
    uint32_t size = worker->run->config->value_bytes;
    uint64_t version;
    if (worker->ops % ODD_LOOK_WHOLE == 0) {
        return bench_value_check(key, value, size, &version);
    }
    return bench_value_check_ends(key, value, size);
}

static void
odd_look_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    while (bench_more(worker)) {
        uint64_t index = rng_below(&worker->rng, run->keys.records);
        bench_key_of(&run->keys, index, worker->key);
        bool good = false;
        bench_begin(worker);
        int answer = run->engine->look(worker->session, bytes_make(worker->key, BENCH_KEY_BYTES), odd_look,
                                       worker, &good);
        bench_end(worker, 1);
        if (answer == BENCH_FAILED) {
            (void)bench_fail_call(run, "look");
            return;
        }
        if (answer == BENCH_NONE || !good) {
            (void)bench_wrong(run, "a look at record %llu shows what was never written",
                              (unsigned long long)index);
            return;
        }
    }
}

int
bench_work_large_fill(struct bench_run *run)
{
    const struct bench_role role = {
        .name = "write", .fn = odd_put_role, .threads = 1, .ops_max = run->keys.records};
    if (bench_open(run) != BENCH_OK || bench_team(run, &role, 1, true) != BENCH_OK ||
        bench_check_count(run, run->keys.records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    uint64_t bytes = run->keys.records * bench_record_bytes(run);
    return bench_close_and_weigh(run, bytes, bytes);
}

int
bench_work_large_read(struct bench_run *run)
{
    const struct bench_role role = {.name = "read",
                                    .fn = run->workload->arg2 != 0 ? odd_look_role : odd_get_role,
                                    .threads = 1,
                                    .for_ns = run->config->phase_ns};
    if (bench_open(run) != BENCH_OK || bench_load(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    if (run->engine->flush(run->db) == BENCH_FAILED) {
        return bench_fail_call(run, "flush");
    }
    if (bench_warm(run) != BENCH_OK || bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}

/* ---- Queue --------------------------------------------------------------------------- */

enum { ODD_QUEUE_LENGTH = 1000 };

/* Entry n of the queue: keys count up, so the head is the largest key. */
static bool
odd_queue_put(struct bench_worker *worker, uint64_t n)
{
    uint32_t size = worker->run->config->value_bytes;
    bench_key_at_rank(&worker->run->keys, n & (worker->run->keys.capacity - 1), worker->key);
    bench_value_fill(worker->key, n, worker->value, size);
    if (worker->run->engine->put(worker->session, bytes_make(worker->key, BENCH_KEY_BYTES),
                                 bytes_make(worker->value, size)) == BENCH_OK) {
        return true;
    }
    (void)bench_fail_call(worker->run, "put");
    return false;
}

/* The first row must be entry `tail`; its key is copied to worker->key. */
static bool
odd_queue_peek(struct bench_worker *worker, uint64_t tail)
{
    struct bench_run *run = worker->run;
    void *iter = NULL;
    struct bench_row row;
    if (run->engine->iter_open(worker->session, NULL, &iter) != BENCH_OK) {
        (void)bench_fail_call(run, "iterator");
        return false;
    }
    int answer = run->engine->iter_step(iter, BENCH_FIRST, bytes_make(NULL, 0), &row);
    bool good = answer == BENCH_OK && bench_row_good(worker, &row);
    if (good) {
        bench_key_at_rank(&run->keys, tail, worker->key);
        good = memcmp(row.key.ptr, worker->key, BENCH_KEY_BYTES) == 0;
    }
    run->engine->iter_close(iter);
    if (!good) {
        (void)(answer == BENCH_FAILED
                   ? bench_fail_call(run, "iterator")
                   : bench_wrong(run, "the queue does not begin with entry %llu", (unsigned long long)tail));
    }
    return good;
}

static void
odd_queue_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint64_t head = 0;
    for (; head < ODD_QUEUE_LENGTH; head++) {
        if (!odd_queue_put(worker, head)) {
            return;
        }
    }
    for (uint64_t tail = 0; bench_more(worker); tail++, head++) {
        bench_begin(worker);
        if (!odd_queue_put(worker, head) || !odd_queue_peek(worker, tail)) {
            return;
        }
        if (run->engine->remove(worker->session, bytes_make(worker->key, BENCH_KEY_BYTES)) != BENCH_OK) {
            (void)bench_fail_call(run, "delete");
            return;
        }
        bench_end(worker, 1);
    }
}

int
bench_work_queue(struct bench_run *run)
{
    /* The entries fill the capacity once and do not come round. */
    const struct bench_role role = {.name = "cycle",
                                    .fn = odd_queue_role,
                                    .threads = 1,
                                    .ops_max = run->keys.capacity - ODD_QUEUE_LENGTH - 1,
                                    .for_ns = run->config->phase_ns};
    if (bench_open(run) != BENCH_OK || bench_team(run, &role, 1, true) != BENCH_OK ||
        bench_check_count(run, ODD_QUEUE_LENGTH) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}

/* ---- Live snapshots --------------------------------------------------------------------- */

enum {
    ODD_SNAPSHOT_WRITES = 2,   /* between two snapshots, besides the counter's */
    ODD_SNAPSHOT_CHECKS = 500, /* of the snapshots are read back, evenly chosen */
    ODD_SNAPSHOT_FACTOR = 20   /* taking them may last so many phases */
};

struct odd_snapshots {
    struct bench_run *run;
    void *session;
    void **list;
    uint32_t count;
    uint64_t records;
};

/* Record 0 counts: each snapshot sees its own number in it. */
static int
odd_snapshots_take(struct odd_snapshots *set, uint32_t want)
{
    struct bench_run *run = set->run;
    uint32_t size = run->config->value_bytes;
    uint8_t key[BENCH_KEY_BYTES];
    uint8_t *value = malloc(BENCH_VALUE_BYTES_MAX);
    if (value == NULL) {
        return bench_fail(run, "out of memory");
    }
    struct rng rng = {.state = run->config->seed};
    uint64_t began = bench_now_ns();
    int status = BENCH_OK;
    while (status == BENCH_OK && set->count < want) {
        for (uint32_t i = 0; status == BENCH_OK && i <= ODD_SNAPSHOT_WRITES; i++) {
            uint64_t index = i == 0 ? 0 : 1 + rng_below(&rng, set->records - 1);
            bench_key_of(&run->keys, index, key);
            bench_value_fill(key, set->count, value, size);
            status = run->engine->put(set->session, bytes_make(key, sizeof key), bytes_make(value, size));
        }
        if (status == BENCH_OK) {
            status = run->engine->snapshot_open(set->session, &set->list[set->count]);
        }
        set->count += status == BENCH_OK ? 1 : 0;
        if (bench_now_ns() - began > run->config->phase_ns * ODD_SNAPSHOT_FACTOR && set->count < want) {
            free(value);
            return bench_skip(run, "took %u snapshots in %.0f s", set->count,
                              (double)(bench_now_ns() - began) / 1e9);
        }
    }
    free(value);
    bench_set_metric(run, "snapshot_take_seconds", (double)(bench_now_ns() - began) / 1e9);
    return status == BENCH_OK ? BENCH_OK : bench_fail_call(run, "snapshot");
}

static int
odd_snapshots_check(struct odd_snapshots *set)
{
    struct bench_run *run = set->run;
    uint8_t key[BENCH_KEY_BYTES];
    bench_key_of(&run->keys, 0, key);
    uint8_t *value = malloc(BENCH_READ_CAP);
    if (value == NULL) {
        return bench_fail(run, "out of memory");
    }
    uint32_t step = MAX(set->count / ODD_SNAPSHOT_CHECKS, 1u);
    int status = BENCH_OK;
    for (uint32_t i = 0; status == BENCH_OK && i < set->count; i += step) {
        size_t size = 0;
        uint64_t version = 0;
        int answer = run->engine->get(set->session, set->list[i], bytes_make(key, sizeof key), value,
                                      BENCH_READ_CAP, &size);
        if (answer == BENCH_FAILED) {
            status = bench_fail_call(run, "get at a snapshot");
        } else if (answer == BENCH_NONE ||
                   !bench_value_check(bytes_make(key, sizeof key), bytes_make(value, size),
                                      run->config->value_bytes, &version) ||
                   version != i) {
            status = bench_wrong(run, "snapshot %u sees number %llu", i, (unsigned long long)version);
        }
    }
    free(value);
    return status;
}

static void
odd_snapshot_write_role(struct bench_worker *worker)
{
    const uint64_t *records = worker->role->arg;
    while (bench_more(worker)) {
        /* The counter too: no snapshot may see that. */
        uint64_t index = rng_below(&worker->rng, *records);
        if (!bench_put_timed(worker, index, BENCH_SNAPSHOT_MOST + worker->ops)) {
            return;
        }
    }
}

static void
odd_snapshot_read_role(struct bench_worker *worker)
{
    const uint64_t *records = worker->role->arg;
    uint64_t version;
    while (bench_more(worker)) {
        if (!bench_get_timed(worker, rng_below(&worker->rng, *records), &version)) {
            return;
        }
    }
}

static int
odd_snapshots_measure(struct odd_snapshots *set)
{
    struct bench_run *run = set->run;
    uint64_t for_ns = run->config->phase_ns;
    const struct bench_role roles[] = {
        {.name = "write",
         .fn = odd_snapshot_write_role,
         .threads = 1,
         .for_ns = for_ns,
         .arg = &set->records},
        {.name = "read", .fn = odd_snapshot_read_role, .threads = 1, .for_ns = for_ns, .arg = &set->records},
    };
    if (odd_snapshots_check(set) != BENCH_OK || bench_team(run, roles, COUNTOF(roles), true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return odd_snapshots_check(set);
}

/* Loads the records, unmeasured, and takes the snapshots. */
static int
odd_snapshots_open(struct odd_snapshots *set, uint32_t want)
{
    struct bench_run *run = set->run;
    set->list = calloc(MAX(want, 1u), sizeof *set->list);
    if (set->list == NULL) {
        return bench_fail(run, "out of memory");
    }
    run->setup.snapshots_max = want;
    if (bench_open(run) != BENCH_OK || bench_load(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    if (run->engine->session_open(run->db, &set->session) != BENCH_OK) {
        return bench_fail_call(run, "session");
    }
    return run->workload->run == bench_work_snapshot_churn ? BENCH_OK : odd_snapshots_take(set, want);
}

static uint32_t
odd_snapshots_want(const struct bench_run *run)
{
    uint32_t want = run->workload->arg;
    return want == 0 ? 0 : MAX(want / run->config->snapshot_scale, 1u);
}

static int
odd_snapshots_skip(struct bench_run *run)
{
    return run->engine->snapshots_max == 0
               ? bench_skip(run, "has no snapshots of this kind")
               : bench_skip(run, "holds %u snapshots at most", run->engine->snapshots_max);
}

static int
odd_snapshots_work(struct bench_run *run, int (*measure)(struct odd_snapshots *set))
{
    uint32_t want = odd_snapshots_want(run);
    if (want > run->engine->snapshots_max) {
        return odd_snapshots_skip(run);
    }
    struct odd_snapshots set = {.run = run, .records = run->keys.records};
    int status = odd_snapshots_open(&set, want);
    if (status == BENCH_OK) {
        status = measure(&set);
    }
    if (set.session != NULL) {
        for (uint32_t i = 0; i < set.count; i++) {
            run->engine->snapshot_close(set.session, set.list[i]);
        }
        run->engine->session_close(set.session);
    }
    free(set.list);
    return status == BENCH_OK ? bench_close(run) : status;
}

int
bench_work_snapshots(struct bench_run *run)
{
    return odd_snapshots_work(run, odd_snapshots_measure);
}

/* ---- Reading at snapshots ----------------------------------------------------------------- */

/* Every snapshot was taken after the load, so every record is there in each. */
static void
odd_snapshot_get_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    const struct odd_snapshots *set = worker->role->arg;
    uint64_t version;
    while (bench_more(worker)) {
        uint64_t index = rng_below(&worker->rng, set->records);
        if (set->count == 0) {
            if (!bench_get_timed(worker, index, &version)) {
                return;
            }
            continue;
        }
        void *snapshot = set->list[rng_below(&worker->rng, set->count)];
        bench_key_of(&run->keys, index, worker->key);
        struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
        size_t size = 0;
        bench_begin(worker);
        int answer = run->engine->get(worker->session, snapshot, key, worker->read, BENCH_READ_CAP, &size);
        bench_end(worker, 1);
        if (answer != BENCH_OK) {
            (void)(answer == BENCH_FAILED ? bench_fail_call(run, "get at a snapshot")
                                          : bench_wrong(run, "a record is absent at a snapshot"));
            return;
        }
        if (!bench_value_check(key, bytes_make(worker->read, size), run->config->value_bytes, &version)) {
            (void)bench_wrong(run, "a snapshot gave %zu bytes that were never written", size);
            return;
        }
    }
}

static int
odd_snapshot_read_measure(struct odd_snapshots *set)
{
    struct bench_run *run = set->run;
    const struct bench_role role = {.name = "read",
                                    .fn = odd_snapshot_get_role,
                                    .threads = 1,
                                    .for_ns = run->config->phase_ns,
                                    .arg = set};
    return bench_team(run, &role, 1, true);
}

int
bench_work_snapshot_read(struct bench_run *run)
{
    return odd_snapshots_work(run, odd_snapshot_read_measure);
}

/* ---- Making and releasing ------------------------------------------------------------------- */

static int
odd_snapshot_churn_measure(struct odd_snapshots *set)
{
    struct bench_run *run = set->run;
    uint32_t want = odd_snapshots_want(run);
    bench_usage_start(run);
    while (set->count < want) {
        if (run->engine->snapshot_open(set->session, &set->list[set->count]) != BENCH_OK) {
            return bench_fail_call(run, "snapshot");
        }
        set->count++;
    }
    while (set->count > 0) {
        run->engine->snapshot_close(set->session, set->list[--set->count]);
    }
    bench_usage_stop(run);
    run->result->ops = want;
    run->result->value = (double)run->result->wall_ns / 1e9;
    return BENCH_OK;
}

int
bench_work_snapshot_churn(struct bench_run *run)
{
    return odd_snapshots_work(run, odd_snapshot_churn_measure);
}
