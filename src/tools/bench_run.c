/* SPDX-License-Identifier: MIT */
/* Runs the phases of a cell: teams of threads, what they used, what went wrong. */
#include "tools/bench_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"

/* ---- Verdicts ---------------------------------------------------------------- */

static int
run_verdict(struct bench_run *run, int status, const char *format, va_list args)
{
    (void)pthread_mutex_lock(&run->lock);
    if (status == BENCH_CELL_WRONG) {
        run->result->wrong++;
    }
    if (run->result->status == BENCH_CELL_PENDING || run->result->status == BENCH_CELL_DONE) {
        (void)vsnprintf(run->result->reason, sizeof run->result->reason, format, args);
        run->result->status = status;
    }
    (void)pthread_mutex_unlock(&run->lock);
    atomic_store_explicit(&run->stop, true, memory_order_relaxed);
    return BENCH_FAILED;
}

#define RUN_VERDICT(name, status)                                                                            \
    int name(struct bench_run *run, const char *format, ...)                                                 \
    {                                                                                                        \
        va_list args;                                                                                        \
        va_start(args, format);                                                                              \
        int result = run_verdict(run, status, format, args);                                                 \
        va_end(args);                                                                                        \
        return result;                                                                                       \
    }

RUN_VERDICT(bench_fail, BENCH_CELL_FAILED)
RUN_VERDICT(bench_wrong, BENCH_CELL_WRONG)
RUN_VERDICT(bench_skip, BENCH_CELL_SKIPPED)

int
bench_fail_call(struct bench_run *run, const char *call)
{
    return bench_fail(run, "%s: %s", call, bench_complaint());
}

void
bench_set_metric(struct bench_run *run, const char *name, double value)
{
    struct bench_result *result = run->result;
    if (result->metric_count == BENCH_METRICS_MAX) {
        return;
    }
    struct bench_metric *metric = &result->metrics[result->metric_count++];
    (void)snprintf(metric->name, sizeof metric->name, "%s", name);
    metric->value = value;
}

/* ---- What the process used ----------------------------------------------------- */

/* One number of /proc/self/io; 0 where the kernel does not count. */
static uint64_t
run_io_count(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at == NULL ? 0 : strtoull(at + strlen(name), NULL, 10);
}

static void
run_usage(struct bench_usage_mark *mark)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    mark->cpu_ns = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL +
                   (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ULL;
    mark->faults = (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
    mark->switches = (uint64_t)usage.ru_nvcsw + (uint64_t)usage.ru_nivcsw;
    char text[512] = "";
    int fd = open("/proc/self/io", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t len = read(fd, text, sizeof text - 1);
        text[len > 0 ? len : 0] = 0;
        (void)close(fd);
    }
    mark->write_bytes = run_io_count(text, "\nwrite_bytes: ") - run_io_count(text, "cancelled_write_bytes: ");
    mark->read_bytes = run_io_count(text, "\nread_bytes: ");
    mark->calls = run_io_count(text, "syscr: ") + run_io_count(text, "syscw: ");
    mark->wall_ns = bench_now_ns();
}

void
bench_usage_start(struct bench_run *run)
{
    run_usage(&run->mark);
}

void
bench_usage_stop(struct bench_run *run)
{
    struct bench_usage_mark now;
    run_usage(&now);
    struct bench_result *result = run->result;
    result->wall_ns = now.wall_ns - run->mark.wall_ns;
    result->cpu_ns = now.cpu_ns - run->mark.cpu_ns;
    bench_set_metric(run, "write_bytes", (double)(int64_t)(now.write_bytes - run->mark.write_bytes));
    bench_set_metric(run, "read_bytes", (double)(now.read_bytes - run->mark.read_bytes));
    bench_set_metric(run, "read_write_calls", (double)(now.calls - run->mark.calls));
    bench_set_metric(run, "page_faults", (double)(now.faults - run->mark.faults));
    bench_set_metric(run, "context_switches", (double)(now.switches - run->mark.switches));
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    bench_set_metric(run, "rss_max_bytes", (double)usage.ru_maxrss * 1024.0);
}

double
bench_usage_written(const struct bench_run *run)
{
    struct bench_usage_mark now;
    run_usage(&now);
    return (double)(int64_t)(now.write_bytes - run->mark.write_bytes);
}

enum {
    SETTLE_LOOK_NS = 20000000,
    SETTLE_LOOKS = 40,       /* quiet ones in a row; some engines begin merges by a timer */
    SETTLE_CPU_NS = 1000000, /* less than that in a look is quiet; looking costs some as well */
    SETTLE_CALLS = 16,       /* reading its own counters is some calls, too */
    SETTLE_MOST_LOOKS = 15000
};

int
bench_settle(struct bench_run *run, uint64_t *quiet_since_ns_out)
{
    struct bench_usage_mark before;
    run_usage(&before);
    *quiet_since_ns_out = before.wall_ns;
    for (int look = 0, quiet = 0; quiet < SETTLE_LOOKS; look++) {
        if (look == SETTLE_MOST_LOOKS) {
            return bench_fail(run, "background work does not come to an end");
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = SETTLE_LOOK_NS}, NULL);
        struct bench_usage_mark now;
        run_usage(&now);
        if (now.cpu_ns - before.cpu_ns < SETTLE_CPU_NS && now.calls - before.calls < SETTLE_CALLS) {
            quiet++;
        } else {
            quiet = 0;
            *quiet_since_ns_out = now.wall_ns;
        }
        before = now;
    }
    return BENCH_OK;
}

uint64_t
bench_disk_bytes(const char *dir)
{
    uint64_t total = 0;
    DIR *listing = opendir(dir);
    if (listing == NULL) {
        return 0;
    }
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        struct stat info;
        if (fstatat(dirfd(listing), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(info.st_mode)) {
            total += (uint64_t)info.st_blocks * 512;
        }
    }
    (void)closedir(listing);
    return total;
}

/* ---- The database ---------------------------------------------------------------- */

int
bench_open(struct bench_run *run)
{
    uint64_t began = bench_now_ns();
    int answer = run->engine->open(&run->setup, &run->db);
    run->open_ns = bench_now_ns() - began;
    return answer == BENCH_OK ? BENCH_OK : bench_fail_call(run, "open");
}

int
bench_close(struct bench_run *run)
{
    void *db = run->db;
    run->db = NULL;
    return run->engine->close(db) == BENCH_OK ? BENCH_OK : bench_fail_call(run, "close");
}

/* ---- Teams ------------------------------------------------------------------------ */

enum { RUN_WORKERS_MAX = 64 };

struct run_team {
    struct bench_run *run;
    pthread_barrier_t barrier;
    atomic_uint leaders_left; /* workers of roles that do not follow */
    atomic_bool followers_stop;
    uint64_t started_ns, started_ticks;
    struct bench_worker workers[RUN_WORKERS_MAX];
    struct bench_role roles[BENCH_SERIES_MAX];
    pthread_t threads[RUN_WORKERS_MAX];
    uint32_t count;
};

struct run_start {
    struct run_team *team;
    struct bench_worker *worker;
};

static void
run_worker_fini(struct bench_worker *worker)
{
    if (worker->session != NULL) {
        worker->run->engine->session_close(worker->session);
    }
    free(worker->latency);
    free(worker->value);
    free(worker->read);
}

static int
run_worker_init(struct bench_run *run, struct bench_worker *worker, const struct bench_role *role,
                uint32_t index, uint32_t place)
{
    *worker = (struct bench_worker){.run = run, .role = role, .index = index, .deadline = UINT64_MAX};
    /* No two teams of a cell go the same way through the records. */
    worker->rng.state = hash_mix(hash_mix(run->config->seed, run->round), (uint64_t)run->teams << 32 | place);
    worker->latency = calloc(1, sizeof *worker->latency);
    worker->value = calloc(1, BENCH_VALUE_BYTES_MAX);
    worker->read = calloc(1, BENCH_READ_CAP);
    if (worker->latency == NULL || worker->value == NULL || worker->read == NULL) {
        return bench_fail(run, "out of memory");
    }
    if (run->engine->session_open(run->db, &worker->session) != BENCH_OK) {
        worker->session = NULL;
        return bench_fail_call(run, "session");
    }
    return BENCH_OK;
}

static uint64_t
run_thread_cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static void *
run_worker_main(void *arg)
{
    struct run_start *start = arg;
    struct run_team *team = start->team;
    struct bench_worker *worker = start->worker;
    free(start);
    /* Paced writers sleep to the microsecond, not to the default 50 us. */
    (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    if (pthread_barrier_wait(&team->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
        team->started_ns = bench_now_ns();
        team->started_ticks = bench_ticks();
    }
    (void)pthread_barrier_wait(&team->barrier);
    worker->now = team->started_ticks;
    if (worker->role->for_ns != 0) {
        worker->deadline = team->started_ticks + bench_ns_to_ticks(worker->role->for_ns);
    }
    uint64_t cpu_began = run_thread_cpu_ns();
    worker->role->fn(worker);
    worker->cpu_ns = run_thread_cpu_ns() - cpu_began;
    worker->ended_ns = bench_now_ns();
    if (!worker->role->follows &&
        atomic_fetch_sub_explicit(&team->leaders_left, 1, memory_order_relaxed) == 1) {
        atomic_store_explicit(&team->run->stop, true, memory_order_relaxed);
    }
    return NULL;
}

/* Starts the worker's thread; without one the barrier would never open, so failing is final. */
static void
run_worker_start(struct run_team *team, uint32_t place)
{
    struct run_start *start = malloc(sizeof *start);
    if (start != NULL) {
        *start = (struct run_start){.team = team, .worker = &team->workers[place]};
    }
    if (start == NULL || pthread_create(&team->threads[place], NULL, run_worker_main, start) != 0) {
        (void)bench_fail(team->run, "cannot start a thread");
        _exit(1);
    }
}

static void
run_team_report(struct run_team *team, uint32_t role_count)
{
    struct bench_result *result = team->run->result;
    result->series_count = role_count;
    result->ops = 0;
    for (uint32_t i = 0; i < role_count; i++) {
        struct bench_series *series = &result->series[i];
        memset(series, 0, sizeof *series);
        (void)snprintf(series->name, sizeof series->name, "%s", team->roles[i].name);
    }
    for (uint32_t i = 0; i < team->count; i++) {
        const struct bench_worker *worker = &team->workers[i];
        struct bench_series *series = &result->series[worker->role - team->roles];
        series->ops += worker->ops;
        series->cpu_ns += worker->cpu_ns;
        series->wall_ns = MAX(series->wall_ns, worker->ended_ns - team->started_ns);
        histogram_merge(&series->latency, worker->latency);
        result->ops += worker->ops;
    }
    const struct bench_series *first = &result->series[0];
    result->value = (double)first->ops * 1e9 / (double)MAX(first->wall_ns, 1u);
}

static int
run_team_fill(struct run_team *team, uint32_t role_count, bool measured)
{
    uint64_t ops = team->run->config->ops;
    for (uint32_t i = 0; i < role_count; i++) {
        struct bench_role *role = &team->roles[i];
        if (measured && ops != 0 && role->for_ns != 0) {
            uint64_t each = MAX(ops / role->threads, 1u);
            role->ops_max = role->ops_max == 0 ? each : MIN(role->ops_max, each);
            role->for_ns = 0;
        }
        role->ops_max = role->ops_max == 0 ? UINT64_MAX : role->ops_max;
        for (uint32_t j = 0; j < role->threads; j++) {
            if (team->count == RUN_WORKERS_MAX) {
                return bench_fail(team->run, "more than %d threads", RUN_WORKERS_MAX);
            }
            struct bench_worker *worker = &team->workers[team->count];
            team->count++;
            if (run_worker_init(team->run, worker, role, j, team->count) != BENCH_OK) {
                return BENCH_FAILED;
            }
        }
        team->leaders_left += role->follows ? 0 : role->threads;
    }
    return BENCH_OK;
}

int
bench_team(struct bench_run *run, const struct bench_role *roles, uint32_t count, bool measured)
{
    struct run_team *team = calloc(1, sizeof *team);
    if (team == NULL) {
        return bench_fail(run, "out of memory");
    }
    team->run = run;
    run->teams++;
    memcpy(team->roles, roles, count * sizeof *roles);
    int status = run_team_fill(team, count, measured);
    if (status == BENCH_OK) {
        atomic_store_explicit(&run->stop, false, memory_order_relaxed);
        (void)pthread_barrier_init(&team->barrier, NULL, team->count);
        if (measured) {
            bench_usage_start(run);
        }
        for (uint32_t i = 0; i < team->count; i++) {
            run_worker_start(team, i);
        }
        for (uint32_t i = 0; i < team->count; i++) {
            (void)pthread_join(team->threads[i], NULL);
        }
        if (measured) {
            bench_usage_stop(run);
            run_team_report(team, count);
        }
        (void)pthread_barrier_destroy(&team->barrier);
        status = run->result->status == BENCH_CELL_PENDING ? BENCH_OK : BENCH_FAILED;
    }
    for (uint32_t i = 0; i < team->count; i++) {
        run_worker_fini(&team->workers[i]);
    }
    free(team);
    return status;
}

/* ---- Operations -------------------------------------------------------------------- */

bool
bench_put_timed(struct bench_worker *worker, uint64_t index, uint64_t version)
{
    struct bench_run *run = worker->run;
    uint32_t size = run->config->value_bytes;
    bench_key_of(&run->keys, index, worker->key);
    bench_value_fill(worker->key, version, worker->value, size);
    struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
    bench_begin(worker);
    int answer = run->engine->put(worker->session, key, bytes_make(worker->value, size));
    bench_end(worker, 1);
    if (UNLIKELY(answer != BENCH_OK)) {
        (void)bench_fail_call(run, "put");
        return false;
    }
    return true;
}

bool
bench_get_timed(struct bench_worker *worker, uint64_t index, uint64_t *version_out)
{
    struct bench_run *run = worker->run;
    bench_key_of(&run->keys, index, worker->key);
    struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
    size_t size = 0;
    bench_begin(worker);
    int answer = run->engine->get(worker->session, NULL, key, worker->read, BENCH_READ_CAP, &size);
    bench_end(worker, 1);
    if (UNLIKELY(answer == BENCH_FAILED)) {
        (void)bench_fail_call(run, "get");
        return false;
    }
    if (UNLIKELY(answer == BENCH_NONE)) {
        (void)bench_wrong(run, "get says that record %llu is absent", (unsigned long long)index);
        return false;
    }
    if (UNLIKELY(
            !bench_value_check(key, bytes_make(worker->read, size), run->config->value_bytes, version_out))) {
        (void)bench_wrong(run, "get of record %llu gave %zu bytes that were never written",
                          (unsigned long long)index, size);
        return false;
    }
    return true;
}

bool
bench_row_good(struct bench_worker *worker, const struct bench_row *row)
{
    uint64_t version;
    if (LIKELY(bench_value_check(row->key, row->value, worker->run->config->value_bytes, &version))) {
        return true;
    }
    (void)bench_wrong(worker->run, "an iterator gave a row of %zu + %zu bytes that was never written",
                      row->key.len, row->value.len);
    return false;
}

int
bench_rows_make(struct bench_run *run, struct bench_rows *rows, uint32_t count)
{
    *rows = (struct bench_rows){.run = run, .count = count};
    rows->writes = calloc(count, sizeof *rows->writes);
    rows->bytes = malloc((size_t)count * (BENCH_KEY_BYTES + run->config->value_bytes));
    if (rows->writes == NULL || rows->bytes == NULL) {
        bench_rows_free(rows);
        return bench_fail(run, "out of memory");
    }
    return BENCH_OK;
}

void
bench_rows_free(struct bench_rows *rows)
{
    free(rows->writes);
    free(rows->bytes);
    rows->writes = NULL;
    rows->bytes = NULL;
}

void
bench_rows_set(struct bench_rows *rows, uint32_t place, uint64_t index, uint64_t version)
{
    uint32_t size = rows->run->config->value_bytes;
    uint8_t *key = rows->bytes + (size_t)place * (BENCH_KEY_BYTES + size);
    uint8_t *value = key + BENCH_KEY_BYTES;
    bench_key_of(&rows->run->keys, index, key);
    bench_value_fill(key, version, value, size);
    rows->writes[place] =
        (struct bench_write){.key = bytes_make(key, BENCH_KEY_BYTES), .value = bytes_make(value, size)};
}

static void
run_load_role(struct bench_worker *worker)
{
    enum { LOAD_BATCH = 1000, LOAD_BATCH_LARGE = 16, LOAD_LARGE_BYTES = 4096 };
    struct bench_run *run = worker->run;
    uint32_t most = run->config->value_bytes > LOAD_LARGE_BYTES ? LOAD_BATCH_LARGE : LOAD_BATCH;
    struct bench_rows rows;
    if (bench_rows_make(run, &rows, most) != BENCH_OK) {
        return;
    }
    for (uint64_t next = 0; next < run->keys.records && bench_more(worker);) {
        uint32_t count = (uint32_t)MIN((uint64_t)most, run->keys.records - next);
        for (uint32_t i = 0; i < count; i++) {
            bench_rows_set(&rows, i, next + i, 0);
        }
        if (run->engine->batch(worker->session, rows.writes, count) != BENCH_OK) {
            (void)bench_fail_call(run, "load");
        }
        next += count;
        worker->ops = next;
    }
    bench_rows_free(&rows);
}

int
bench_load(struct bench_run *run)
{
    const struct bench_role role = {.name = "load", .fn = run_load_role, .threads = 1};
    return bench_team(run, &role, 1, false);
}
