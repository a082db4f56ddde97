/* SPDX-License-Identifier: MIT */
/*
 * Workloads in which something meets a writer: readers beside one writer, a
 * writer at 90 % of what the engine keeps up, beside an idle thread, and YCSB A
 * to F (Cooper et al., "Benchmarking cloud serving systems with YCSB", 2010).
 *
 * The paced writer has a plan: write i is due at start + i * interval, and its
 * latency counts from when it was due, not from when the writer got round to
 * it. So a stall is charged to every write that it delays (no "coordinated
 * omission"), and so is a late wake-up of the writer.
 */
#include "tools/bench_work.h"

#include <errno.h>
#include <stdlib.h>

enum {
    MIX_SLEEP_NS_MIN = 2000, /* closer than that, the writer waits in a loop */
    MIX_VERSION_SHIFT = 48   /* versions of different workers differ above */
};

static uint64_t
mix_version(const struct bench_worker *worker)
{
    return ((uint64_t)(worker->index + 1) << MIX_VERSION_SHIFT) | (worker->ops + 1);
}

static void
mix_sleep_until(uint64_t due_ns)
{
    uint64_t now = bench_now_ns();
    while (now < due_ns) {
        if (due_ns - now > MIX_SLEEP_NS_MIN) {
            struct timespec until = {.tv_sec = (time_t)(due_ns / 1000000000ULL),
                                     .tv_nsec = (long)(due_ns % 1000000000ULL)};
            while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
            }
        }
        now = bench_now_ns();
    }
}

/* ---- Readers beside a writer -------------------------------------------------------- */

static void
mix_read_role(struct bench_worker *worker)
{
    uint64_t version;
    while (bench_more(worker)) {
        if (!bench_get_timed(worker, rng_below(&worker->rng, worker->run->keys.records), &version)) {
            return;
        }
    }
}

static void
mix_write_role(struct bench_worker *worker)
{
    while (bench_more(worker)) {
        if (!bench_put_timed(worker, rng_below(&worker->rng, worker->run->keys.records),
                             mix_version(worker))) {
            return;
        }
    }
}

struct mix_pace {
    uint64_t interval_ns;
    uint64_t records; /* there are so many */
};

static void
mix_paced_role(struct bench_worker *worker)
{
    struct bench_run *run = worker->run;
    uint32_t size = run->config->value_bytes;
    const struct mix_pace *pace = worker->role->arg;
    uint64_t interval_ns = pace->interval_ns;
    uint64_t start_ns = bench_now_ns();
    uint64_t due_ns = start_ns;
    for (; bench_more(worker); due_ns += interval_ns) {
        mix_sleep_until(due_ns);
        bench_key_of(&run->keys, rng_below(&worker->rng, pace->records), worker->key);
        bench_value_fill(worker->key, mix_version(worker), worker->value, size);
        int answer = run->engine->put(worker->session, bytes_make(worker->key, BENCH_KEY_BYTES),
                                      bytes_make(worker->value, size));
        histogram_add(worker->latency, bench_now_ns() - due_ns);
        worker->now = bench_ticks();
        worker->ops++;
        if (answer != BENCH_OK) {
            (void)bench_fail_call(run, "put");
            return;
        }
    }
}

/* What readers take alone is measured in the same cell, on the same database, by turns: a machine that is
 * slower a minute later would else be taken for the writer's doing. First the tree at rest; then beside the
 * writer and right after it stops, when the tree is as it left it and background work goes on. A writer with
 * a plan has one long turn: a stall is charged to writes until it ends. */
enum { MIX_TURNS = 3, MIX_ALONE_SHARE = 4 };

enum mix_slice { MIX_ALONE, MIX_BESIDE, MIX_AFTER, MIX_SLICES };

struct mix_sums {
    struct bench_result beside; /* with histograms */
    uint64_t ops[MIX_SLICES], cpu_ns[MIX_SLICES];
};

static void
mix_add_metrics(struct bench_result *sum, const struct bench_result *one)
{
    for (uint32_t i = 0; i < one->metric_count; i++) {
        struct bench_metric *metric = &sum->metrics[i];
        bool most = strcmp(one->metrics[i].name, "rss_max_bytes") == 0;
        double value = one->metrics[i].value;
        if (i >= sum->metric_count) {
            *metric = one->metrics[i];
        } else {
            metric->value = most ? MAX(metric->value, value) : metric->value + value;
        }
    }
    sum->metric_count = one->metric_count;
}

static void
mix_add_beside(struct bench_result *sum, const struct bench_result *one)
{
    sum->ops += one->ops;
    sum->wall_ns += one->wall_ns;
    sum->cpu_ns += one->cpu_ns;
    sum->series_count = one->series_count;
    for (uint32_t i = 0; i < one->series_count; i++) {
        struct bench_series *series = &sum->series[i];
        memcpy(series->name, one->series[i].name, sizeof series->name);
        series->ops += one->series[i].ops;
        series->wall_ns += one->series[i].wall_ns;
        series->cpu_ns += one->series[i].cpu_ns;
        histogram_merge(&series->latency, &one->series[i].latency);
    }
    mix_add_metrics(sum, one);
}

/* Runs the roles, the readers first, and adds what they did to the slice's sums. */
static int
mix_slice(struct bench_run *run, const struct bench_role *roles, uint32_t count, enum mix_slice slice,
          struct mix_sums *sums)
{
    struct bench_result *result = run->result;
    result->metric_count = 0;
    if (bench_team(run, roles, count, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    sums->ops[slice] += result->series[0].ops;
    sums->cpu_ns[slice] += result->series[0].cpu_ns;
    if (slice == MIX_BESIDE) {
        mix_add_beside(&sums->beside, result);
    }
    return BENCH_OK;
}

static void
mix_report(struct bench_run *run, const struct mix_sums *sums)
{
    static const char *const names[MIX_SLICES] = {"alone_cpu_ns", "beside_cpu_ns", "after_cpu_ns"};
    const struct bench_result *beside = &sums->beside;
    double each[MIX_SLICES];
    struct bench_result *result = run->result;
    result->ops = beside->ops;
    result->wall_ns = beside->wall_ns;
    result->cpu_ns = beside->cpu_ns;
    result->series_count = beside->series_count;
    result->metric_count = beside->metric_count;
    memcpy(result->metrics, beside->metrics, sizeof beside->metrics);
    memcpy(result->series, beside->series, sizeof beside->series);
    result->value = (double)beside->series[0].ops * 1e9 / (double)MAX(beside->series[0].wall_ns, 1u);
    for (uint32_t i = 0; i < MIX_SLICES; i++) {
        each[i] = (double)sums->cpu_ns[i] / (double)MAX(sums->ops[i], 1u);
        bench_set_metric(run, names[i], each[i]);
    }
    if (each[MIX_ALONE] > 0 && each[MIX_AFTER] > 0) {
        bench_set_metric(run, "times_alone", each[MIX_BESIDE] / each[MIX_ALONE]);
        bench_set_metric(run, "times_after", each[MIX_BESIDE] / each[MIX_AFTER]);
    }
}

static int
mix_measure(struct bench_run *run, const struct bench_role *read, const struct bench_role *write,
            struct mix_sums *sums)
{
    struct bench_role beside[] = {*read, *write};
    struct bench_role alone = *read;
    uint32_t turns = run->config->ops != 0 || run->workload->arg2 != 0 ? 1 : MIX_TURNS;
    beside[0].for_ns = beside[1].for_ns = read->for_ns / turns;
    alone.for_ns = read->for_ns / MIX_ALONE_SHARE;
    if (mix_slice(run, &alone, 1, MIX_ALONE, sums) != BENCH_OK) {
        return BENCH_FAILED;
    }
    alone.for_ns /= turns;
    for (uint32_t turn = 0; turn < turns; turn++) {
        if (mix_slice(run, beside, COUNTOF(beside), MIX_BESIDE, sums) != BENCH_OK ||
            mix_slice(run, &alone, 1, MIX_AFTER, sums) != BENCH_OK) {
            return BENCH_FAILED;
        }
    }
    mix_report(run, sums);
    return BENCH_OK;
}

int
bench_work_mixed(struct bench_run *run)
{
    bool paced = run->workload->arg2 != 0;
    uint64_t for_ns = run->config->phase_ns;
    struct mix_pace pace = {.records = run->keys.records,
                            .interval_ns = paced ? 1000000000ULL / run->workload->arg2 : 0};
    const struct bench_role read = {
        .name = "read", .fn = mix_read_role, .threads = run->workload->arg, .for_ns = for_ns};
    const struct bench_role write = {.name = "write",
                                     .fn = paced ? mix_paced_role : mix_write_role,
                                     .threads = 1,
                                     .for_ns = for_ns,
                                     .arg = &pace};
    struct mix_sums *sums = calloc(1, sizeof *sums);
    if (sums == NULL) {
        return bench_fail(run, "out of memory");
    }
    int status = bench_open(run) == BENCH_OK && bench_warm(run) == BENCH_OK
                     ? mix_measure(run, &read, &write, sums)
                     : BENCH_FAILED;
    free(sums);
    if (status != BENCH_OK || bench_check_count(run, run->keys.records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}

/* ---- A writer that the engine can keep up with ------------------------------------------ */

enum { MIX_FILL_PERCENT = 90, MIX_FILL_FACTOR = 4, MIX_SPIN_NS = 1000000 };

static void
mix_fill_role(struct bench_worker *worker)
{
    uint64_t *count = worker->role->arg;
    while (bench_more(worker) && bench_put_timed(worker, worker->ops, 0)) {
    }
    *count = worker->ops;
}

/* Does nothing: wakes every millisecond, and says by how much too late. What it
 * suffers, no engine is to blame for. */
static void
mix_idle_role(struct bench_worker *worker)
{
    uint64_t due_ns = bench_now_ns();
    while (bench_more(worker)) {
        due_ns = MAX(due_ns, bench_now_ns()) + MIX_SPIN_NS;
        mix_sleep_until(due_ns);
        histogram_add(worker->latency, bench_now_ns() - due_ns);
        worker->now = bench_ticks();
        worker->ops++;
    }
}

int
bench_work_fill_paced(struct bench_run *run)
{
    struct mix_pace pace = {0};
    const struct bench_role fill = {.name = "fill",
                                    .fn = mix_fill_role,
                                    .threads = 1,
                                    .ops_max = run->keys.records,
                                    .for_ns = run->config->phase_ns * MIX_FILL_FACTOR,
                                    .arg = &pace.records};
    const struct bench_role roles[] = {
        {.name = "write",
         .fn = mix_paced_role,
         .threads = 1,
         .for_ns = run->config->phase_ns * MIX_FILL_FACTOR,
         .arg = &pace},
        {.name = "idle", .fn = mix_idle_role, .threads = 1, .follows = true},
    };
    uint64_t began_ns = bench_now_ns();
    uint64_t quiet_since_ns = 0;
    if (bench_open(run) != BENCH_OK || bench_team(run, &fill, 1, false) != BENCH_OK ||
        bench_settle(run, &quiet_since_ns) != BENCH_OK) {
        return BENCH_FAILED;
    }
    uint64_t took_ns = MAX(quiet_since_ns, began_ns + 1) - began_ns;
    pace.interval_ns = MAX(took_ns / MAX(pace.records, 1u) * 100 / MIX_FILL_PERCENT, 1u);
    bench_set_metric(run, "sustained_per_second", (double)pace.records * 1e9 / (double)took_ns);
    if (bench_team(run, roles, COUNTOF(roles), true) != BENCH_OK ||
        bench_check_count(run, pace.records) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}

/* ---- YCSB ----------------------------------------------------------------------------- */

/* Percent of operations; the rest are reads. */
struct mix_ycsb {
    uint32_t update, insert, scan, modify;
    bool latest;
};

static const struct mix_ycsb mix_ycsb_kinds[] = {
    {.update = 50}, {.update = 5}, {.update = 0}, {.insert = 5, .latest = true}, {.scan = 95, .insert = 5},
    {.modify = 50},
};

enum { MIX_YCSB_SCAN_MAX = 100 };

struct mix_shared {
    const struct mix_ycsb *kind;
    struct bench_zipf zipf;
};

/* Worker j of n inserts the records N + j, N + n + j, ... Only what it has
 * inserted itself and what was loaded is surely there. */
static uint64_t
mix_own_record(const struct bench_worker *worker, uint64_t nth)
{
    return worker->run->keys.records + nth * worker->role->threads + worker->index;
}

static uint64_t
mix_choose(struct bench_worker *worker, const struct mix_shared *shared, uint64_t inserted)
{
    uint64_t place = bench_zipf_next(&shared->zipf, &worker->rng);
    if (!shared->kind->latest) {
        /* Records are numbered in random key order: the hot ones are spread already. */
        return place;
    }
    if (place < inserted) {
        return mix_own_record(worker, inserted - 1 - place);
    }
    return worker->run->keys.records - 1 - MIN(place - inserted, worker->run->keys.records - 1);
}

static bool
mix_range_timed(struct bench_worker *worker, uint64_t index)
{
    struct bench_run *run = worker->run;
    const struct bench_engine *engine = run->engine;
    uint64_t want = 1 + rng_below(&worker->rng, MIX_YCSB_SCAN_MAX);
    bench_key_of(&run->keys, index, worker->key);
    struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
    void *iter = NULL;
    struct bench_row row;
    uint64_t began = bench_ticks();
    if (engine->iter_open(worker->session, NULL, &iter) != BENCH_OK) {
        (void)bench_fail_call(run, "iterator");
        return false;
    }
    int answer = engine->iter_step(iter, BENCH_SEEK, key, &row);
    if (answer != BENCH_OK || !bytes_equal(row.key, key)) {
        (void)bench_wrong(run, "a seek to a present key landed elsewhere");
    }
    for (uint64_t rows = 0; answer == BENCH_OK && rows < want && bench_row_good(worker, &row); rows++) {
        answer = engine->iter_step(iter, BENCH_NEXT, key, &row);
    }
    engine->iter_close(iter);
    worker->begun = began;
    bench_end(worker, 1);
    if (answer == BENCH_FAILED) {
        (void)bench_fail_call(run, "iterator");
    }
    return answer != BENCH_FAILED;
}

/* Read, then write with a new version; timed as one operation, the check comes after it. */
static bool
mix_modify_timed(struct bench_worker *worker, uint64_t index)
{
    struct bench_run *run = worker->run;
    uint32_t size = run->config->value_bytes;
    bench_key_of(&run->keys, index, worker->key);
    struct bytes key = bytes_make(worker->key, BENCH_KEY_BYTES);
    bench_value_fill(worker->key, mix_version(worker), worker->value, size);
    size_t found = 0;
    bench_begin(worker);
    int got = run->engine->get(worker->session, NULL, key, worker->read, BENCH_READ_CAP, &found);
    int put = run->engine->put(worker->session, key, bytes_make(worker->value, size));
    bench_end(worker, 1);
    uint64_t version;
    if (got == BENCH_FAILED || put != BENCH_OK) {
        (void)bench_fail_call(run, "get and put");
        return false;
    }
    if (got == BENCH_NONE || !bench_value_check(key, bytes_make(worker->read, found), size, &version)) {
        (void)bench_wrong(run, "a get gave what was never written");
        return false;
    }
    return true;
}

static void
mix_ycsb_role(struct bench_worker *worker)
{
    const struct mix_shared *shared = worker->role->arg;
    const struct mix_ycsb *kind = shared->kind;
    struct bench_run *run = worker->run;
    uint64_t inserted = 0;
    uint64_t room = (run->keys.capacity - run->keys.records) / worker->role->threads;
    bool good = true;
    while (good && bench_more(worker)) {
        uint32_t dice = (uint32_t)rng_below(&worker->rng, 100);
        uint64_t version;
        if (dice < kind->insert && inserted < room) {
            good = bench_put_timed(worker, mix_own_record(worker, inserted), mix_version(worker));
            inserted++;
            continue;
        }
        uint64_t index = mix_choose(worker, shared, inserted);
        if (dice < kind->insert + kind->update) {
            good = bench_put_timed(worker, index, mix_version(worker));
        } else if (dice < kind->insert + kind->scan) {
            good = mix_range_timed(worker, index);
        } else if (dice < kind->modify) {
            good = mix_modify_timed(worker, index);
        } else {
            good = bench_get_timed(worker, index, &version);
        }
    }
}

int
bench_work_ycsb(struct bench_run *run)
{
    struct mix_shared shared = {.kind = &mix_ycsb_kinds[run->workload->arg]};
    bench_zipf_init(&shared.zipf, run->keys.records, 0.99);
    const struct bench_role role = {.name = "op",
                                    .fn = mix_ycsb_role,
                                    .threads = run->config->threads,
                                    .for_ns = run->config->phase_ns,
                                    .arg = &shared};
    if (bench_open(run) != BENCH_OK || bench_warm(run) != BENCH_OK ||
        bench_team(run, &role, 1, true) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return bench_close(run);
}
