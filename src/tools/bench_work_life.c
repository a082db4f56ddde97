/* SPDX-License-Identifier: MIT */
/*
 * Workloads about a database's life: recovery after kill -9, and what three
 * overwrites leave behind before and after a full compaction.
 */
#include "tools/bench_work.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LIFE_POLL_NS = 200000,
    LIFE_WRITER_FACTOR = 40, /* the writer may take so many phases to fill the log */
    LIFE_CHURN_ROUNDS = 3,
    LIFE_CHURN_BATCH = 1000,
    LIFE_CHURN_STEP = 7919
};

/* ---- Recovery ----------------------------------------------------------------------- */

/* Shared with the process that gets killed. */
struct life_ledger {
    _Atomic uint64_t acked; /* records whose batch has been acknowledged */
};

/* Writes records 0, 1, 2, ... by batches until it is killed. */
static void
life_victim(struct bench_run *run, struct life_ledger *ledger)
{
    struct bench_rows rows;
    void *session = NULL;
    if (bench_rows_make(run, &rows, run->workload->arg2) != BENCH_OK || bench_open(run) != BENCH_OK ||
        run->engine->session_open(run->db, &session) != BENCH_OK) {
        _exit(1);
    }
    for (uint64_t next = 0; next + rows.count < run->keys.capacity; next += rows.count) {
        for (uint32_t i = 0; i < rows.count; i++) {
            bench_rows_set(&rows, i, next + i, 0);
        }
        const struct bench_write *first = rows.writes;
        int answer = rows.count == 1 ? run->engine->put(session, first->key, first->value)
                                     : run->engine->batch(session, first, rows.count);
        if (answer != BENCH_OK) {
            (void)bench_fail_call(run, "put");
            _exit(1);
        }
        atomic_store_explicit(&ledger->acked, next + rows.count, memory_order_release);
    }
    for (;;) {
        (void)pause();
    }
}

/* Lets a process write until `target` records are acknowledged, and kills it.
 * Runs before this process has any thread. */
static int
life_kill_writer(struct bench_run *run, struct life_ledger *ledger, uint64_t target)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        life_victim(run, ledger);
    }
    if (pid < 0) {
        return bench_fail(run, "cannot start a process");
    }
    uint64_t began = bench_now_ns();
    uint64_t limit = run->config->phase_ns * LIFE_WRITER_FACTOR;
    pid_t ended = 0;
    while (atomic_load(&ledger->acked) < target && ended == 0 && bench_now_ns() - began < limit) {
        struct timespec pause_for = {.tv_nsec = LIFE_POLL_NS};
        (void)nanosleep(&pause_for, NULL);
        ended = waitpid(pid, NULL, WNOHANG);
    }
    if (ended == 0) {
        (void)kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (ended != 0) {
        return bench_fail(run, "the writer ended before it was killed");
    }
    if (atomic_load(&ledger->acked) < target) {
        return bench_skip(run, "wrote %llu of %llu records in %.0f s",
                          (unsigned long long)atomic_load(&ledger->acked), (unsigned long long)target,
                          (double)limit / 1e9);
    }
    return BENCH_OK;
}

/* The batch that was in flight when the writer died: how many of its records are there? */
static void
life_flight_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint64_t *rows = worker->role->arg; /* in: acknowledged; out: rows that must be there */
    uint64_t acked = *rows;
    for (uint32_t i = 0; i < run->workload->arg2; i++) {
        uint8_t key[BENCH_KEY_BYTES];
        size_t size;
        bench_key_of(&run->keys, acked + i, key);
        int answer = run->engine->get(worker->session, NULL, bytes_make(key, sizeof key), worker->read,
                                      BENCH_READ_CAP, &size);
        if (answer == BENCH_FAILED) {
            (void)bench_fail_call(run, "get");
            return;
        }
        *rows += answer == BENCH_OK ? 1 : 0;
    }
    if (*rows != acked && *rows != acked + run->workload->arg2) {
        (void)bench_wrong(run, "%llu of the %u records of a batch survived",
                          (unsigned long long)(*rows - acked), run->workload->arg2);
    }
}

/* Every acknowledged record is there, and of the batch in flight all or none.
 * The writer wrote 0, 1, 2, ... and nothing else, so as many different rows as
 * were acknowledged, each with the value of its key, are those. */
static int
life_check(struct bench_run *run, uint64_t acked)
{
    uint64_t rows = acked;
    const struct bench_role role = {.name = "check", .fn = life_flight_role, .threads = 1, .arg = &rows};
    if (bench_team(run, &role, 1, false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_check_count(run, rows);
}

/* Opens, gets one record, and reports how long that took. */
static int
life_recover(struct bench_run *run, uint64_t acked)
{
    uint64_t disk = bench_disk_bytes(run->setup.dir);
    void *session = NULL;
    uint8_t key[BENCH_KEY_BYTES];
    uint8_t *value = malloc(BENCH_READ_CAP);
    size_t size = 0;
    if (value == NULL) {
        return bench_fail(run, "out of memory");
    }
    bench_key_of(&run->keys, acked - 1, key);
    bench_usage_start(run);
    uint64_t began = bench_now_ns();
    int status = bench_open(run);
    if (status == BENCH_OK && (run->engine->session_open(run->db, &session) != BENCH_OK ||
                               run->engine->get(session, NULL, bytes_make(key, sizeof key), value,
                                                BENCH_READ_CAP, &size) == BENCH_FAILED)) {
        status = bench_fail_call(run, "first get");
    }
    uint64_t took = bench_now_ns() - began;
    if (status == BENCH_OK) {
        bench_usage_stop(run);
        run->result->value = (double)took / 1e9;
        run->result->ops = acked;
        bench_set_metric(run, "acknowledged", (double)acked);
        bench_set_metric(run, "disk_bytes_at_kill", (double)disk);
        run->engine->session_close(session);
    }
    free(value);
    return status;
}

int
bench_work_recovery(struct bench_run *run)
{
    uint64_t bytes = (uint64_t)run->workload->arg * run->config->recovery_scale;
    uint64_t target = MAX(bytes / bench_record_bytes(run), 1u);
    bench_keys_init(&run->keys, target * 2, run->config->seed);
    /* A write buffer that holds the log and its index: nothing is flushed where it can be chosen. */
    run->setup.write_buffer_bytes = MAX(bytes * 2, run->setup.write_buffer_bytes);
    run->setup.memory_bytes = MAX(bytes * 8, run->setup.memory_bytes);
    run->setup.data_bytes = bytes * 4;
    struct life_ledger *ledger =
        mmap(NULL, sizeof *ledger, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ledger == MAP_FAILED) {
        return bench_fail(run, "out of memory");
    }
    int status = life_kill_writer(run, ledger, target);
    uint64_t acked = atomic_load_explicit(&ledger->acked, memory_order_acquire);
    (void)munmap(ledger, sizeof *ledger);
    if (status != BENCH_OK || life_recover(run, acked) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return life_check(run, acked) == BENCH_OK ? bench_close(run) : BENCH_FAILED;
}

/* ---- Churn and compaction --------------------------------------------------------------- */

static void
life_churn_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    struct bench_rows rows;
    if (bench_rows_make(run, &rows, (uint32_t)MIN((uint64_t)LIFE_CHURN_BATCH, run->keys.records)) !=
        BENCH_OK) {
        return;
    }
    while (bench_more(worker)) {
        for (uint32_t i = 0; i < rows.count; i++) {
            /* Steps by a prime: each round meets each record about once, in an order of its own. */
            uint64_t index = (worker->ops + i) * LIFE_CHURN_STEP % run->keys.records;
            bench_rows_set(&rows, i, index, worker->ops + 1);
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

static int
life_churn(struct bench_run *run, bool measured)
{
    const struct bench_role role = {.name = "write",
                                    .fn = life_churn_role,
                                    .threads = 1,
                                    .ops_max = run->keys.records * LIFE_CHURN_ROUNDS};
    if (bench_open(run) != BENCH_OK || bench_load(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_team(run, &role, 1, measured);
}

int
bench_work_churn(struct bench_run *run)
{
    if (life_churn(run, true) != BENCH_OK || bench_check_count(run, run->keys.records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close_and_weigh(run, run->result->ops * bench_record_bytes(run),
                                 run->keys.records * bench_record_bytes(run));
}

int
bench_work_compact(struct bench_run *run)
{
    if (life_churn(run, false) != BENCH_OK) {
        return BENCH_FAILED;
    }
    bench_usage_start(run);
    int answer = run->engine->compact(run->db);
    if (answer == BENCH_FAILED) {
        return bench_fail_call(run, "compact");
    }
    if (answer == BENCH_NONE) {
        return bench_skip(run, "has no compaction in place");
    }
    bench_usage_stop(run);
    run->result->value = (double)run->result->wall_ns / 1e9;
    run->result->ops = run->keys.records;
    if (bench_check_count(run, run->keys.records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close_and_weigh(run, 0, run->keys.records * bench_record_bytes(run));
}
