/* SPDX-License-Identifier: MIT */
/*
 * Goal: the benchmark believes no engine: whatever an engine gets wrong ends
 * the cell as WRONG, and an engine that fails or dies ends it as FAILED.
 * Method: an engine of an array in memory, written to a file when it is closed,
 * that is honest or lies in one of several ways; workloads run on it in
 * processes of their own as they do on real ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench_cell.h"
#include "tools/bench_work.h"

enum lie {
    LIE_NONE,
    LIE_LAST_BYTE,    /* a get changes the last byte of some values */
    LIE_OTHER_RECORD, /* a get gives another record's value */
    LIE_SWAPPED,      /* a get of many gives two of them in each other's place */
    LIE_ABSENT,       /* a get does not find some records */
    LIE_PRESENT,      /* a get finds what is not there */
    LIE_LOST_PUT,     /* some puts are dropped */
    LIE_STALE,        /* some puts over present records are dropped */
    LIE_ORDER,        /* an iterator gives two rows the wrong way round */
    LIE_SHORT_WALK,   /* an iterator ends early */
    LIE_ROW,          /* an iterator gives a row with a wrong value */
    LIE_SEEK,         /* a seek lands one row too far */
    LIE_SNAPSHOT,     /* a snapshot sees what came after it */
    LIE_DELETE,       /* deletes do nothing */
    FAULT_GET,        /* a get fails */
    FAULT_DEATH,      /* a get kills the process */
    FAULT_SLOW,       /* one put takes SLOW_NS */
    FAULT_DISTURBED   /* gets take DISTURBED_NS of processor time while there are three sessions */
};

enum { VALUE_BYTES = 100, LIE_STEP = 10, SLOW_NS = 80000000, SLOW_PUT = 300, DISTURBED_NS = 300000 };

enum { PHASE_TIMES_MOST = 100 };

/* Read in the child processes, which inherit it. */
static enum lie current_lie;

struct toy_row {
    uint8_t key[BENCH_KEY_BYTES];
    uint32_t size;
    uint8_t value[VALUE_BYTES];
};

struct toy_table {
    struct toy_row *rows;
    size_t count, cap;
};

struct toy_db {
    pthread_mutex_t lock;
    struct toy_table table;
    char path[BENCH_PATH_MAX];
    uint64_t puts, gets, steps, sessions;
};

struct toy_iter {
    struct toy_db *db;
    struct toy_table copy;
    size_t at;
};

/* ---- The table ----------------------------------------------------------------- */

static bool
toy_find(const struct toy_table *table, struct bytes key, size_t *at_out)
{
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = memcmp(table->rows[middle].key, key.ptr, BENCH_KEY_BYTES);
        if (order == 0) {
            *at_out = middle;
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *at_out = low;
    return false;
}

static void
toy_table_put(struct toy_table *table, struct bytes key, struct bytes value)
{
    size_t at;
    if (!toy_find(table, key, &at)) {
        if (table->count == table->cap) {
            table->cap = table->cap == 0 ? 64 : table->cap * 2;
            table->rows = realloc(table->rows, table->cap * sizeof *table->rows);
            assert_non_null(table->rows);
        }
        memmove(&table->rows[at + 1], &table->rows[at], (table->count - at) * sizeof *table->rows);
        table->count++;
        memcpy(table->rows[at].key, key.ptr, BENCH_KEY_BYTES);
    }
    table->rows[at].size = (uint32_t)MIN(value.len, (size_t)VALUE_BYTES);
    memcpy(table->rows[at].value, value.ptr, table->rows[at].size);
}

static struct toy_table
toy_table_copy(const struct toy_table *table)
{
    struct toy_table copy = {.count = table->count, .cap = table->count};
    copy.rows = malloc((table->count + 1) * sizeof *copy.rows);
    assert_non_null(copy.rows);
    if (table->count > 0) {
        memcpy(copy.rows, table->rows, table->count * sizeof *copy.rows);
    }
    return copy;
}

/* ---- The engine ------------------------------------------------------------------ */

static void
toy_version(char *out, size_t cap)
{
    (void)snprintf(out, cap, "0");
}

static void
toy_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap, "%llu bytes", (unsigned long long)setup->memory_bytes);
}

static int
toy_open(const struct bench_setup *setup, void **db_out)
{
    struct toy_db *db = calloc(1, sizeof *db);
    assert_non_null(db);
    (void)pthread_mutex_init(&db->lock, NULL);
    (void)snprintf(db->path, sizeof db->path, "%s/rows", setup->dir);
    FILE *file = fopen(db->path, "r");
    if (file != NULL) {
        struct toy_row row;
        while (fread(&row, sizeof row, 1, file) == 1) {
            toy_table_put(&db->table, bytes_make(row.key, sizeof row.key), bytes_make(row.value, row.size));
        }
        (void)fclose(file);
    }
    *db_out = db;
    return BENCH_OK;
}

static int
toy_close(void *handle)
{
    struct toy_db *db = handle;
    FILE *file = fopen(db->path, "w");
    assert_non_null(file);
    if (db->table.count > 0) {
        size_t written = fwrite(db->table.rows, sizeof *db->table.rows, db->table.count, file);
        assert_int_equal(written, db->table.count);
    }
    assert_int_equal(fclose(file), 0);
    free(db->table.rows);
    free(db);
    return BENCH_OK;
}

static int
toy_session_open(void *handle, void **session_out)
{
    struct toy_db *db = handle;
    (void)pthread_mutex_lock(&db->lock);
    db->sessions++;
    (void)pthread_mutex_unlock(&db->lock);
    *session_out = db;
    return BENCH_OK;
}

static void
toy_session_close(void *session)
{
    struct toy_db *db = session;
    (void)pthread_mutex_lock(&db->lock);
    db->sessions--;
    (void)pthread_mutex_unlock(&db->lock);
}

static int
toy_put(void *handle, struct bytes key, struct bytes value)
{
    struct toy_db *db = handle;
    (void)pthread_mutex_lock(&db->lock);
    size_t at;
    bool nth = ++db->puts % LIE_STEP == 0;
    bool drop =
        nth && (current_lie == LIE_LOST_PUT || (current_lie == LIE_STALE && toy_find(&db->table, key, &at)));
    if (!drop) {
        toy_table_put(&db->table, key, value);
    }
    if (current_lie == FAULT_SLOW && db->puts == SLOW_PUT) {
        struct timespec pause_for = {.tv_nsec = SLOW_NS};
        (void)nanosleep(&pause_for, NULL);
    }
    (void)pthread_mutex_unlock(&db->lock);
    return BENCH_OK;
}

static int
toy_remove(void *handle, struct bytes key)
{
    struct toy_db *db = handle;
    (void)pthread_mutex_lock(&db->lock);
    size_t at;
    if (current_lie != LIE_DELETE && toy_find(&db->table, key, &at)) {
        db->table.count--;
        memmove(&db->table.rows[at], &db->table.rows[at + 1],
                (db->table.count - at) * sizeof *db->table.rows);
    }
    (void)pthread_mutex_unlock(&db->lock);
    return BENCH_OK;
}

static int
toy_batch(void *handle, const struct bench_write *writes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        (void)(writes[i].remove ? toy_remove(handle, writes[i].key)
                                : toy_put(handle, writes[i].key, writes[i].value));
    }
    return BENCH_OK;
}

static uint64_t
toy_cpu_ns(void)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static int
toy_get_locked(struct toy_db *db, const struct toy_table *table, struct bytes key, uint8_t *buf,
               size_t *size_out)
{
    size_t at;
    bool nth = ++db->gets % LIE_STEP == 0;
    bool found = toy_find(table, key, &at);
    if (nth && current_lie == FAULT_GET) {
        return bench_complain("as planned");
    }
    if (nth && current_lie == FAULT_DEATH) {
        (void)raise(SIGKILL);
    }
    if (current_lie == FAULT_DISTURBED && db->sessions > 2) {
        uint64_t until_ns = toy_cpu_ns() + DISTURBED_NS;
        while (toy_cpu_ns() < until_ns) {
        }
    }
    if (nth && current_lie == LIE_PRESENT) {
        found = true;
        at = 0;
    }
    if (!found || (nth && current_lie == LIE_ABSENT)) {
        return BENCH_NONE;
    }
    if (nth && current_lie == LIE_OTHER_RECORD) {
        at = (at + 1) % table->count;
    }
    memcpy(buf, table->rows[at].value, table->rows[at].size);
    *size_out = table->rows[at].size;
    buf[*size_out - 1] ^= nth && current_lie == LIE_LAST_BYTE ? 1 : 0;
    return BENCH_OK;
}

static int
toy_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    struct toy_db *db = handle;
    assert_true(cap >= VALUE_BYTES);
    (void)pthread_mutex_lock(&db->lock);
    const struct toy_table *table = snapshot != NULL && current_lie != LIE_SNAPSHOT ? snapshot : &db->table;
    int answer = toy_get_locked(db, table, key, buf, size_out);
    (void)pthread_mutex_unlock(&db->lock);
    return answer;
}

static int
toy_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    uint8_t value[VALUE_BYTES];
    size_t size = 0;
    int answer = toy_get(handle, NULL, key, value, sizeof value, &size);
    if (answer == BENCH_OK) {
        *good_out = look(arg, bytes_make(value, size));
    }
    return answer;
}

static int
toy_snapshot_open(void *handle, void **snapshot_out)
{
    struct toy_db *db = handle;
    struct toy_table *copy = malloc(sizeof *copy);
    assert_non_null(copy);
    (void)pthread_mutex_lock(&db->lock);
    *copy = toy_table_copy(&db->table);
    (void)pthread_mutex_unlock(&db->lock);
    *snapshot_out = copy;
    return BENCH_OK;
}

static void
toy_snapshot_close(void *session, void *snapshot)
{
    (void)session;
    free(((struct toy_table *)snapshot)->rows);
    free(snapshot);
}

static int
toy_iter_open(void *handle, void *snapshot, void **iter_out)
{
    struct toy_db *db = handle;
    struct toy_iter *iter = calloc(1, sizeof *iter);
    assert_non_null(iter);
    iter->db = db;
    (void)pthread_mutex_lock(&db->lock);
    iter->copy = toy_table_copy(snapshot != NULL ? snapshot : &db->table);
    (void)pthread_mutex_unlock(&db->lock);
    if (current_lie == LIE_ORDER && iter->copy.count > 4) {
        struct toy_row row = iter->copy.rows[2];
        iter->copy.rows[2] = iter->copy.rows[3];
        iter->copy.rows[3] = row;
    }
    if (current_lie == LIE_ROW && iter->copy.count > 4) {
        iter->copy.rows[iter->copy.count - 1].value[VALUE_BYTES - 1] ^= 1;
    }
    if (current_lie == LIE_SHORT_WALK && iter->copy.count > 0) {
        iter->copy.count--;
    }
    *iter_out = iter;
    return BENCH_OK;
}

static int
toy_iter_step(void *handle, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    struct toy_iter *iter = handle;
    switch (step) {
    case BENCH_FIRST:
        iter->at = 0;
        break;
    case BENCH_LAST:
        iter->at = iter->copy.count - 1;
        break;
    case BENCH_SEEK:
        (void)toy_find(&iter->copy, key, &iter->at);
        iter->at += current_lie == LIE_SEEK ? 1 : 0;
        break;
    case BENCH_NEXT:
        iter->at++;
        break;
    case BENCH_PREV:
        iter->at--;
        break;
    }
    if (iter->at >= iter->copy.count) {
        return BENCH_NONE;
    }
    const struct toy_row *row = &iter->copy.rows[iter->at];
    row_out->key = bytes_make(row->key, BENCH_KEY_BYTES);
    row_out->value = bytes_make(row->value, row->size);
    return BENCH_OK;
}

static void
toy_iter_close(void *handle)
{
    struct toy_iter *iter = handle;
    free(iter->copy.rows);
    free(iter);
}

static int
toy_nothing(void *db)
{
    (void)db;
    return BENCH_OK;
}

static int
toy_get_many(void *handle, const struct bytes *keys, size_t count, bench_each_fn *each, void *arg,
             bool *good_out)
{
    *good_out = true;
    for (size_t i = 0; i < count; i++) {
        uint8_t value[VALUE_BYTES];
        size_t size = 0;
        int answer = toy_get(handle, NULL, keys[i], value, sizeof value, &size);
        if (answer != BENCH_OK) {
            return answer;
        }
        size_t place = current_lie == LIE_SWAPPED ? i ^ 1 : i;
        *good_out = each(arg, place, bytes_make(value, size)) && *good_out;
    }
    return BENCH_OK;
}

static const struct bench_engine toy_engine = {
    .name = "toy",
    .snapshots_max = 100,
    .version = toy_version,
    .settings = toy_settings,
    .open = toy_open,
    .close = toy_close,
    .session_open = toy_session_open,
    .session_close = toy_session_close,
    .put = toy_put,
    .remove = toy_remove,
    .batch = toy_batch,
    .get = toy_get,
    .look = toy_look,
    .get_many = toy_get_many,
    .snapshot_open = toy_snapshot_open,
    .snapshot_close = toy_snapshot_close,
    .iter_open = toy_iter_open,
    .iter_step = toy_iter_step,
    .iter_close = toy_iter_close,
    .flush = toy_nothing,
    .compact = toy_nothing,
    .merges_runs = true,
};

/* ---- The tests -------------------------------------------------------------------- */

static const struct bench_engine *const toy_engines[] = {&toy_engine};

static struct bench_cells *
cells_make(void)
{
    struct bench_cells *cells = calloc(1, sizeof *cells);
    assert_non_null(cells);
    cells->config = (struct bench_config){.records = 300,
                                          .value_bytes = VALUE_BYTES,
                                          .phase_ns = 5000000,
                                          .seed = 7,
                                          .threads = 2,
                                          .cold_percent = 5,
                                          .recovery_scale = 1 << 9,
                                          .snapshot_scale = 1000,
                                          .drop_caches = true};
    cells->engines = toy_engines;
    cells->engine_count = 1;
    assert_int_equal(bench_cells_open(cells, "/tmp"), BENCH_OK);
    return cells;
}

static const struct bench_workload *
workload_named(const char *name)
{
    for (uint32_t i = 0; i < bench_workload_count; i++) {
        if (strcmp(bench_workloads[i].name, name) == 0) {
            return &bench_workloads[i];
        }
    }
    fail_msg("no workload %s", name);
    return NULL;
}

/* Databases are loaded honestly; only the cell itself meets the lie. */
static const struct bench_result *
cell_under(struct bench_cells *cells, enum lie lie, const char *name)
{
    const struct bench_workload *workload = workload_named(name);
    if (workload->base != BENCH_FRESH && cells->base_state[0] == 0) {
        current_lie = LIE_NONE;
        bench_cell_run(cells, 0, workload_named("readrandom"), 0);
        assert_int_equal(cells->result->status, BENCH_CELL_DONE);
    }
    current_lie = lie;
    bench_cell_run(cells, 0, workload, 0);
    current_lie = LIE_NONE;
    return cells->result;
}

/* On a machine that is busy a phase may end before it meets a lie; a longer one has to. */
static const struct bench_result *
cell_until_noticed(struct bench_cells *cells, enum lie lie, const char *name)
{
    const uint64_t short_ns = cells->config.phase_ns;
    const struct bench_result *result = NULL;
    for (uint64_t times = 1; times <= PHASE_TIMES_MOST; times *= 10) {
        cells->config.phase_ns = short_ns * times;
        result = cell_under(cells, lie, name);
        if (result->status == BENCH_CELL_WRONG) {
            break;
        }
    }
    cells->config.phase_ns = short_ns;
    return result;
}

static void
workloads__are_content_with_an_honest_engine(void **state)
{
    (void)state;
    struct bench_cells *cells = cells_make();
    for (uint32_t i = 0; i < bench_workload_count; i++) {
        const char *name = bench_workloads[i].name;
        /* The toy keeps nothing when it is killed, and no value of 64 KiB. */
        if (strncmp(name, "recovery", 8) == 0 || strncmp(name, "large", 5) == 0) {
            continue;
        }
        const struct bench_result *result = cell_under(cells, LIE_NONE, name);
        if (result->status != BENCH_CELL_DONE) {
            fail_msg("%s: status %d, %s", name, result->status, result->reason);
        }
        assert_int_equal(result->wrong, 0);
        assert_true(result->ops > 0);
        assert_true(result->value > 0.0);
    }
    bench_cells_close(cells, false);
    free(cells);
}

static void
workloads__notice_each_kind_of_lie(void **state)
{
    static const struct {
        enum lie lie;
        const char *workload;
    } cases[] = {
        {LIE_LAST_BYTE, "readrandom"},
        {LIE_LAST_BYTE, "readmem"},
        {LIE_LAST_BYTE, "readmem-chase"},
        {LIE_LAST_BYTE, "snapread-1000"},
        {LIE_LAST_BYTE, "mixed-2"},
        {LIE_LAST_BYTE, "ycsb-c"},
        {LIE_LAST_BYTE, "ycsb-f"},
        {LIE_OTHER_RECORD, "readrandom"},
        {LIE_OTHER_RECORD, "readcold"},
        {LIE_SWAPPED, "multiget-cold"},
        {LIE_ABSENT, "readrandom-2"},
        {LIE_ABSENT, "ycsb-d"},
        {LIE_ABSENT, "readmem-2"},
        {LIE_ABSENT, "snapread-1000"},
        {LIE_ABSENT, "snapshots-100000"},
        {LIE_PRESENT, "readmissing"},
        {LIE_PRESENT, "readmem-absent"},
        {LIE_LOST_PUT, "fillmem"},
        {LIE_LOST_PUT, "batchmem-1000"},
        {LIE_LOST_PUT, "fillseq"},
        {LIE_LOST_PUT, "fillrandom-2"},
        {LIE_LOST_PUT, "fillsync-4"},
        {LIE_LOST_PUT, "batch-100-sync"},
        {LIE_STALE, "overwrite"},
        {LIE_ORDER, "scan"},
        {LIE_ORDER, "scanrev"},
        {LIE_ORDER, "fillrandom"},
        {LIE_SHORT_WALK, "scan"},
        {LIE_SHORT_WALK, "churn"},
        {LIE_ROW, "scan"},
        {LIE_ROW, "compact"},
        {LIE_LOST_PUT, "merge-plain"},
        {LIE_LAST_BYTE, "read-merging"},
        {LIE_LOST_PUT, "close-merging"},
        {LIE_SEEK, "seek10"},
        {LIE_SEEK, "ycsb-e"},
        {LIE_SNAPSHOT, "snapshots-100000"},
        {LIE_DELETE, "queue"},
        {LIE_NONE, "recovery-64"}, /* it forgets when it is killed */
        {LIE_NONE, "recovery-256"},
    };

    (void)state;
    struct bench_cells *cells = cells_make();
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        const struct bench_result *result = cell_until_noticed(cells, cases[i].lie, cases[i].workload);
        if (result->status != BENCH_CELL_WRONG || result->wrong == 0) {
            fail_msg("%s did not notice lie %d: status %d, %s", cases[i].workload, (int)cases[i].lie,
                     result->status, result->reason);
        }
    }
    bench_cells_close(cells, false);
    free(cells);
}

static void
cells__tell_failures_from_lies(void **state)
{
    (void)state;
    struct bench_cells *cells = cells_make();
    const struct bench_result *result = cell_under(cells, FAULT_GET, "readrandom");
    assert_int_equal(result->status, BENCH_CELL_FAILED);
    assert_non_null(strstr(result->reason, "as planned"));
    result = cell_under(cells, FAULT_DEATH, "readrandom");
    assert_int_equal(result->status, BENCH_CELL_FAILED);
    assert_non_null(strstr(result->reason, "signal 9"));
    result = cell_under(cells, LIE_NONE, "readrandom");
    assert_int_equal(result->status, BENCH_CELL_DONE);
    bench_cells_close(cells, false);
    assert_int_equal(access(cells->dir, F_OK), -1);
    free(cells);
}

/* One put of 80 ms delays hundreds of others at 10,000/s. A writer that began
 * its clock when it got round to a write would report one slow write. */
static void
paced_writer__charges_a_stall_to_every_write_it_delays(void **state)
{
    (void)state;
    struct bench_cells *cells = cells_make();
    cells->config.phase_ns = 250000000;
    const struct bench_result *result = cell_under(cells, FAULT_SLOW, "mixed-1");
    assert_int_equal(result->status, BENCH_CELL_DONE);
    assert_string_equal(result->series[1].name, "write");
    uint64_t late = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        late += histogram_value(i) > SLOW_NS / 4 ? result->series[1].latency.buckets[i] : 0;
    }
    assert_true(late >= 50);
    bench_cells_close(cells, false);
    free(cells);
}

static double
metric_of(const struct bench_result *result, const char *name)
{
    double value = -1;
    for (uint32_t i = 0; i < result->metric_count; i++) {
        if (strcmp(result->metrics[i].name, name) == 0) {
            assert_true(value < 0); /* said once */
            value = result->metrics[i].value;
        }
    }
    assert_true(value >= 0);
    return value;
}

/* Goal: what readers suffer from a writer shows beside what they take alone in the same cell, and
 * is not lost in the sums. Method: gets of two readers take processor time while there is a third session. */
static void
mixed__tells_what_a_writer_costs_the_readers(void **state)
{
    (void)state;
    static const char *const names[] = {"mixed-2", "mixed-2-free"};
    struct bench_cells *cells = cells_make();
    cells->config.phase_ns = 100000000;
    for (size_t i = 0; i < COUNTOF(names); i++) {
        const struct bench_result *result = cell_under(cells, FAULT_DISTURBED, names[i]);
        assert_int_equal(result->status, BENCH_CELL_DONE);
        assert_true(metric_of(result, "alone_cpu_ns") < DISTURBED_NS);
        assert_true(metric_of(result, "after_cpu_ns") < DISTURBED_NS);
        assert_true(metric_of(result, "beside_cpu_ns") >= DISTURBED_NS);
        assert_true(metric_of(result, "times_alone") > 1.0);
        assert_true(metric_of(result, "times_after") > 1.0);
        assert_true(metric_of(result, "context_switches") >= 0);
        assert_int_equal(result->series_count, 2);
        assert_int_equal(result->series[0].ops, result->series[0].latency.count);
        assert_int_equal(result->ops, result->series[0].ops + result->series[1].ops);
    }
    bench_cells_close(cells, false);
    free(cells);
}

int
main(void)
{
    bench_clock_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workloads__are_content_with_an_honest_engine),
        cmocka_unit_test(workloads__notice_each_kind_of_lie),
        cmocka_unit_test(cells__tell_failures_from_lies),
        cmocka_unit_test(mixed__tells_what_a_writer_costs_the_readers),
        cmocka_unit_test(paced_writer__charges_a_stall_to_every_write_it_delays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
