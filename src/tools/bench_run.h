/* SPDX-License-Identifier: MIT */
/*
 * One cell of the benchmark: one workload on one engine, in a process of its
 * own. The cell's result lies in memory shared with the parent, so that it
 * survives whatever happens to the process.
 *
 * A phase runs a team of threads made of roles (readers, a writer). Each worker
 * has its own session, generator and histogram; workers share nothing but the
 * stop flag. Every answer an engine gives is checked by the worker: an answer
 * that is wrong ends the cell.
 */
#ifndef ESKER_TOOLS_BENCH_RUN_H
#define ESKER_TOOLS_BENCH_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "tools/bench_clock.h"
#include "tools/bench_engine.h"
#include "tools/histogram.h"
#include "tools/bench_keys.h"

enum { BENCH_SERIES_MAX = 3, BENCH_METRICS_MAX = 32, BENCH_SNAPSHOT_MOST = 100000, BENCH_READ_CAP = 65536 };

enum bench_cell_status {
    BENCH_CELL_PENDING, /* the process ended without a word */
    BENCH_CELL_DONE,
    BENCH_CELL_SKIPPED, /* the engine cannot do it */
    BENCH_CELL_FAILED,
    BENCH_CELL_WRONG /* the engine gave a wrong answer */
};

/* What one role of the measured phase did. */
struct bench_series {
    char name[16];
    uint64_t ops;
    uint64_t wall_ns;
    uint64_t cpu_ns;          /* of the role's own threads */
    struct histogram latency; /* ns; empty when single operations were not timed */
};

struct bench_metric {
    char name[32];
    double value;
};

struct bench_result {
    int status;
    char reason[320];
    double value; /* what is compared between engines */
    uint64_t wrong;
    uint64_t ops, wall_ns, cpu_ns; /* of the measured phase; CPU of all threads of the process */
    uint32_t series_count, metric_count;
    struct bench_metric metrics[BENCH_METRICS_MAX];
    struct bench_series series[BENCH_SERIES_MAX];
};

/* Sizes and limits; the same for every cell of a run. */
struct bench_config {
    uint64_t records;
    uint32_t value_bytes;
    uint64_t phase_ns; /* of workloads that run for a time */
    uint64_t ops;      /* 0, or: they run for so many operations instead */
    uint64_t seed;
    uint32_t threads;        /* of ycsb and the -mt workloads */
    uint32_t cold_percent;   /* budget of the cold workloads, of the data */
    uint64_t recovery_scale; /* bytes that "64" in recovery-64 stands for, divided by 64 */
    uint32_t snapshot_scale; /* divides the snapshots of snapshots-N */
    bool drop_caches;        /* before cold workloads */
    bool settle;             /* wait before each cell until the disk has written what came before */
};

enum bench_base {
    BENCH_FRESH,     /* an empty directory */
    BENCH_BASE,      /* the loaded database itself; the workload does not write */
    BENCH_BASE_COPY, /* a copy of it */
};

struct bench_run;

struct bench_workload {
    const char *name;
    const char *what; /* one line for --list and the report */
    const char *unit;
    int (*run)(struct bench_run *run);
    enum bench_base base;
    enum bench_level level;
    uint32_t memory_percent; /* of the data; 0: the cold share */
    uint32_t arg, arg2;
    bool lower_is_better;
    bool once;     /* in the first round only: it takes long */
    uint32_t cost; /* 0: also in --quick; 1: in the full run; 2: only when named */
};

struct bench_run {
    const struct bench_config *config;
    const struct bench_engine *engine;
    const struct bench_workload *workload;
    struct bench_result *result;
    struct bench_setup setup;
    struct bench_keys keys;
    void *db;
    uint64_t open_ns; /* what the last open took */
    uint64_t round;
    uint32_t teams; /* begun so far */
    atomic_bool stop;
    pthread_mutex_t lock; /* of result->status, reason, wrong */

    struct bench_usage_mark {
        uint64_t wall_ns, cpu_ns, write_bytes, read_bytes, calls, faults, switches;
    } mark;
};

struct bench_worker {
    struct bench_run *run;
    const struct bench_role *role;
    uint32_t index; /* within the role */
    void *session;
    struct rng rng;
    uint64_t ops;
    uint64_t deadline; /* ticks */
    uint64_t now;      /* ticks at the end of the last operation */
    uint64_t begun, ended_ns;
    uint64_t cpu_ns; /* of this thread, from start to end */
    struct histogram *latency;
    uint8_t *value; /* of config->value_bytes, and room for BENCH_VALUE_BYTES_MAX */
    uint8_t *read;  /* BENCH_READ_CAP */
    uint8_t key[BENCH_KEY_BYTES];
};

typedef void bench_role_fn(struct bench_worker *worker);

struct bench_role {
    const char *name;
    bench_role_fn *fn;
    uint32_t threads;
    uint64_t ops_max; /* per worker; 0: no limit */
    uint64_t for_ns;  /* 0: no limit */
    bool follows;     /* stops when the roles that do not follow are done */
    void *arg;
};

/* ---- The database of the cell ---- */

/* Opens run->setup, or says why not in the result. */
int bench_open(struct bench_run *run);
int bench_close(struct bench_run *run);
/* Loads records [0, records) in random order by batches, unmeasured. Needs an open database. */
int bench_load(struct bench_run *run);

/* ---- Phases ---- */

/* Runs the roles to their end. measured: fills result->series and usage. */
int bench_team(struct bench_run *run, const struct bench_role *roles, uint32_t count, bool measured);

/* What bench_team does around its measured phase, for phases without a team. */
void bench_usage_start(struct bench_run *run);
void bench_usage_stop(struct bench_run *run);
/* Waits until no thread of the process works any more, and returns when that began; what was caught up
 * with in the meantime counts as part of the measured phase. */
int bench_settle(struct bench_run *run, uint64_t *quiet_since_ns_out);
/* Bytes written since the start, as /proc/self/io counts them: pages made dirty, less those dropped. */
double bench_usage_written(const struct bench_run *run);

void bench_set_metric(struct bench_run *run, const char *name, double value);
/* Each ends the cell; the first one is kept. Returns BENCH_FAILED. */
int bench_fail(struct bench_run *run, const char *format, ...) PRINTF_LIKE(2, 3);
int bench_wrong(struct bench_run *run, const char *format, ...) PRINTF_LIKE(2, 3);
int bench_skip(struct bench_run *run, const char *format, ...) PRINTF_LIKE(2, 3);
/* bench_fail with the engine's sentence. */
int bench_fail_call(struct bench_run *run, const char *call);

static inline bool
bench_more(const struct bench_worker *worker)
{
    return worker->ops < worker->role->ops_max && worker->now < worker->deadline &&
           !atomic_load_explicit(&worker->run->stop, memory_order_relaxed);
}

static inline void
bench_begin(struct bench_worker *worker)
{
    worker->begun = bench_ticks();
}

static inline void
bench_end(struct bench_worker *worker, uint64_t ops)
{
    worker->now = bench_ticks();
    histogram_add(worker->latency, bench_ticks_to_ns(worker->now - worker->begun));
    worker->ops += ops;
}

/* ---- Operations that check, for the workloads ---- */

/* Puts record `index` with `version`, timed. */
bool bench_put_timed(struct bench_worker *worker, uint64_t index, uint64_t version);
/* Gets record `index`, which must be there, timed; the value is checked. */
bool bench_get_timed(struct bench_worker *worker, uint64_t index, uint64_t *version_out);
/* Checks one row of an iterator. */
bool bench_row_good(struct bench_worker *worker, const struct bench_row *row);

/* Writes for one batch, with the bytes they point to. */
struct bench_rows {
    const struct bench_run *run;
    struct bench_write *writes;
    uint8_t *bytes;
    uint32_t count;
};

/* Makes room for count puts, or fails the cell. Zeroed rows may be freed. */
int bench_rows_make(struct bench_run *run, struct bench_rows *rows, uint32_t count);
void bench_rows_free(struct bench_rows *rows);
/* Write `place` becomes a put of record `index` with `version`. */
void bench_rows_set(struct bench_rows *rows, uint32_t place, uint64_t index, uint64_t version);

/* Bytes that the directory's files take on disk. */
uint64_t bench_disk_bytes(const char *dir);

#endif
