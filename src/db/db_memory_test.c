/* SPDX-License-Identifier: MIT */
/*
 * Goal: data much larger than the memory budget are read right and within the
 * budget: many keys at once answer like single gets, what is counted and what
 * the process takes stay in bounds while everything churns, and a process that
 * may open 64 files reads hundreds of segments.
 * Method: rows whose value follows from key and version; the statistics and the most
 * that was ever resident, by /proc/self/status. ESKER_LONG_TESTS makes the churn last an hour,
 * or as many seconds as it says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMORY_TEST_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_TEST_SANITIZED 1
#endif

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum { VALUE_MAX = 70000, BUDGET = 8 << 20 };

struct rows {
    char path[64];
    esker_options options;
    esker_db *db;
    bool large; /* some values are of 64 KiB */
    uint32_t count;
    uint8_t *versions; /* of each row; 0 = absent */
};

static void
rows_init(struct rows *rows, uint32_t count, int backend)
{
    memset(rows, 0, sizeof *rows);
    snprintf(rows->path, sizeof rows->path, "/tmp/esker-memory-test-XXXXXX");
    assert_non_null(mkdtemp(rows->path));
    esker_options_init(&rows->options);
    rows->options.memory_budget_bytes = BUDGET;
    rows->options.io_backend = backend;
    rows->count = count;
    rows->versions = calloc(count, 1);
    assert_non_null(rows->versions);
}

static void
rows_fini(struct rows *rows)
{
    assert_ok(esker_close(rows->db));
    assert_ok(esker_verify(rows->path, NULL, NULL));
    assert_ok(esker_destroy(rows->path));
    free(rows->versions);
}

static esker_slice
rows_key(uint32_t id, char key[24])
{
    int len = snprintf(key, 24, "key/%08x", id * 2654435761U);
    return esker_bytes(key, (size_t)len);
}

static size_t
rows_value(const struct rows *rows, uint32_t id, uint8_t version, uint8_t *value)
{
    struct rng rng = {(uint64_t)id << 8 | version};
    size_t len = id % 97 == 0 ? 5000 + id % 3000 : 100 + id % 200;
    len = rows->large && id % 1009 == 0 ? 65536 + id % 4000 : len;
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(value + at, &word, 8);
    }
    return len;
}

static void
rows_put(struct rows *rows, uint32_t id)
{
    char key[24];
    uint8_t value[VALUE_MAX];
    uint8_t version = (uint8_t)(rows->versions[id] % 250 + 1);
    size_t len = rows_value(rows, id, version, value);
    assert_ok(esker_put(rows->db, rows_key(id, key), esker_bytes(value, len), NULL));
    rows->versions[id] = version;
}

static void
rows_delete(struct rows *rows, uint32_t id)
{
    char key[24];
    assert_ok(esker_delete(rows->db, rows_key(id, key), NULL));
    rows->versions[id] = 0;
}

static void
rows_check(const struct rows *rows, uint32_t id, esker_status status, const void *data, size_t size)
{
    uint8_t value[VALUE_MAX];
    if (id >= rows->count || rows->versions[id] == 0) {
        assert_int_equal(status, ESKER_NOT_FOUND);
        return;
    }
    size_t len = rows_value(rows, id, rows->versions[id], value);
    assert_ok(status);
    assert_int_equal(size, len);
    assert_memory_equal(data, value, len);
}

static void
rows_get(const struct rows *rows, uint32_t id)
{
    char key[24];
    uint8_t value[VALUE_MAX];
    size_t size = 0;
    esker_status status = esker_get_copy(rows->db, rows_key(id, key), NULL, value, sizeof value, &size);
    rows_check(rows, id, status, value, size);
}

/* ---- Many keys at once --------------------------------------------------------- */

enum { MANY_ROWS = 50000, MANY_MOST = 300 };

/* Absent, deleted, repeated, large and small, some only in memory. */
static void
many_ask(const struct rows *rows, struct rng *rng, const esker_read_options *options)
{
    static char text[MANY_MOST][24];
    static esker_slice keys[MANY_MOST];
    static esker_value values[MANY_MOST];
    static esker_status statuses[MANY_MOST];
    uint32_t ids[MANY_MOST];
    size_t count = 1 + rng_below(rng, MANY_MOST);
    for (size_t i = 0; i < count; i++) {
        ids[i] = i > 0 && rng_below(rng, 8) == 0 ? ids[rng_below(rng, i)]
                                                 : (uint32_t)rng_below(rng, rows->count + rows->count / 10);
        keys[i] = rows_key(ids[i], text[i]);
    }
    assert_ok(esker_multi_get(rows->db, count, keys, options, values, statuses));
    for (size_t i = 0; i < count; i++) {
        rows_check(rows, ids[i], statuses[i], values[i].data, values[i].size);
        if (statuses[i] == ESKER_OK) {
            esker_value_release(&values[i]);
        }
    }
}

/* As many as there are rows: many slices. */
static void
many_ask_all(const struct rows *rows)
{
    uint32_t count = rows->count + 10;
    char(*text)[24] = calloc(count, sizeof *text);
    esker_slice *keys = calloc(count, sizeof *keys);
    esker_value *values = calloc(count, sizeof *values);
    esker_status *statuses = calloc(count, sizeof *statuses);
    assert_true(text != NULL && keys != NULL && values != NULL && statuses != NULL);
    for (uint32_t id = 0; id < count; id++) {
        keys[id] = rows_key(id, text[id]);
        statuses[id] = 77;
    }
    assert_ok(esker_multi_get(rows->db, count, keys, NULL, values, statuses));
    for (uint32_t id = 0; id < count; id++) {
        rows_check(rows, id, statuses[id], values[id].data, values[id].size);
        esker_value_release(&values[id]);
    }
    free(statuses);
    free(values);
    free(keys);
    free(text);
}

static void
many_with(int backend)
{
    struct rows rows;
    struct rng rng = {20};
    rows_init(&rows, MANY_ROWS, backend);
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (uint32_t id = 0; id < rows.count; id++) {
        rows_put(&rows, id);
    }
    assert_ok(esker_compact(rows.db, NULL, NULL));
    for (uint32_t id = 0; id < rows.count; id += 13) {
        rows_delete(&rows, id);
    }
    assert_ok(esker_flush(rows.db));
    for (uint32_t id = 5; id < rows.count; id += 29) {
        rows_put(&rows, id);
    }
    esker_stats before;
    esker_stats_init(&before);
    assert_ok(esker_get_stats(rows.db, &before));
    assert_true(before.segment_bytes > before.cache_capacity_bytes);
    esker_read_options options;
    esker_read_options_init(&options);
    for (int round = 0; round < 60; round++) {
        options.fill_cache = round % 3 != 0;
        many_ask(&rows, &rng, round % 2 == 0 ? &options : NULL);
    }
    esker_stats after;
    esker_stats_init(&after);
    assert_ok(esker_get_stats(rows.db, &after));
    assert_true(after.cache_misses > before.cache_misses + 500);
    many_ask_all(&rows);
    rows_fini(&rows);
}

static void
multi_get__answers_like_single_gets(void **state)
{
    (void)state;
    many_with(ESKER_IO_POSIX);
}

static void
multi_get__answers_the_same_through_a_ring(void **state)
{
    (void)state;
    many_with(ESKER_IO_URING);
}

enum { POINT_KEYS = 3000, POINT_ROUNDS = 100 };

struct point {
    esker_db *db;
    _Atomic uint32_t stop;
    _Atomic uint32_t written;
};

/* Both in one batch, over and over. */
static void *
point_write(void *arg)
{
    struct point *point = arg;
    for (uint32_t round = 1; load_relaxed(&point->stop) == 0; round++) { /* relaxed: only ends the loop */
        esker_batch *batch = NULL;
        esker_slice value = esker_bytes(&round, sizeof round);
        esker_status status = esker_batch_create(&batch);
        ASSERT(status == ESKER_OK);
        status = esker_batch_put(batch, esker_str("first"), value);
        ASSERT(status == ESKER_OK);
        status = esker_batch_put(batch, esker_str("last"), value);
        ASSERT(status == ESKER_OK);
        status = esker_write(point->db, batch, NULL, NULL);
        ASSERT(status == ESKER_OK);
        esker_batch_destroy(batch);
        store_relaxed(&point->written, round); /* relaxed: a count */
    }
    return NULL;
}

/* Goal: one point in time, however many slices lie between two keys. Method: a thread that writes both of
 * them in one batch all the time; they are asked for first and last and must be of the same batch. */
static void
multi_get__is_at_one_point_in_time(void **state)
{
    (void)state;
    static char text[POINT_KEYS][24];
    static esker_slice keys[POINT_KEYS];
    static esker_value values[POINT_KEYS];
    static esker_status statuses[POINT_KEYS];
    struct rows rows;
    rows_init(&rows, POINT_KEYS, ESKER_IO_AUTO);
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (uint32_t id = 0; id < POINT_KEYS; id++) {
        keys[id] = rows_key(id, text[id]);
    }
    keys[0] = esker_str("first");
    keys[POINT_KEYS - 1] = esker_str("last");
    struct point point = {.db = rows.db};
    pthread_t writer;
    assert_int_equal(pthread_create(&writer, NULL, point_write, &point), 0);
    while (load_relaxed(&point.written) == 0) { /* relaxed: the gets find what is visible */
        usleep(100);
    }
    for (int round = 0; round < POINT_ROUNDS; round++) {
        assert_ok(esker_multi_get(rows.db, POINT_KEYS, keys, NULL, values, statuses));
        assert_ok(statuses[0]);
        assert_ok(statuses[POINT_KEYS - 1]);
        assert_int_equal(values[0].size, sizeof(uint32_t));
        assert_memory_equal(values[0].data, values[POINT_KEYS - 1].data, sizeof(uint32_t));
        esker_value_release(&values[0]);
        esker_value_release(&values[POINT_KEYS - 1]);
    }
    store_relaxed(&point.stop, 1); /* relaxed: only ends the loop */
    assert_int_equal(pthread_join(writer, NULL), 0);
    rows_fini(&rows);
}

/* ---- The budget ------------------------------------------------------------------ */

enum { CHURN_STEPS = 20000, CHURN_FIXED_MAX = 4 << 20 };

/* A line of /proc/self/status, in bytes. Under a sanitizer 0: shadow memory counts too. */
static uint64_t
churn_status(const char *name)
{
    uint64_t kib = 0;
#ifndef MEMORY_TEST_SANITIZED
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            kib = strtoull(line + strlen(name), NULL, 10);
        }
    }
    fclose(file);
#else
    (void)name;
#endif
    return kib << 10;
}

/* From here on VmHWM is the most since now. */
static void
churn_forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    assert_non_null(file);
    fputs("5", file);
    fclose(file);
}

static void
churn_scan(const struct rows *rows, struct rng *rng)
{
    char key[24];
    esker_iter *it = NULL;
    assert_ok(esker_iter_create(rows->db, NULL, &it));
    esker_status status = esker_iter_seek(it, rows_key((uint32_t)rng_below(rng, rows->count), key));
    bool forward = rng_below(rng, 2) == 0;
    for (int step = 0; step < 2000 && status == ESKER_OK; step++) {
        status = forward ? esker_iter_next(it) : esker_iter_prev(it);
    }
    assert_true(status == ESKER_OK || status == ESKER_END);
    esker_iter_destroy(it);
}

static void
churn_round(struct rows *rows, struct rng *rng)
{
    for (int step = 0; step < CHURN_STEPS; step++) {
        uint32_t id = (uint32_t)rng_below(rng, rows->count);
        switch (rng_below(rng, 8)) {
        case 0:
        case 1:
        case 2:
            rows_put(rows, id);
            break;
        case 3:
            rows_delete(rows, id);
            break;
        default:
            rows_get(rows, id);
        }
        if (step % 1500 == 0) {
            churn_scan(rows, rng);
            many_ask(rows, rng, NULL);
        }
    }
}

/* What a database that is used a little and closed again leaves in the process: code that
 * was called, stacks, what the C library keeps. Part of no budget. */
static uint64_t
churn_fixed_bytes(void)
{
    struct rows rows;
    struct rng rng = {22};
    uint64_t before = churn_status("VmRSS:");
    rows_init(&rows, 2000, ESKER_IO_AUTO);
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (int life = 0; life < 2; life++) {
        for (uint32_t id = 0; id < rows.count; id++) {
            rows_put(&rows, id);
        }
        assert_ok(esker_flush(rows.db));
    }
    assert_ok(esker_compact(rows.db, NULL, NULL));
    churn_scan(&rows, &rng);
    many_ask(&rows, &rng, NULL);
    rows_fini(&rows);
    uint64_t after = churn_status("VmRSS:");
    return after - MIN(after, before);
}

/* thirds: of the whole, that this part of it takes. */
static time_t
churn_seconds(int thirds)
{
    const char *text = getenv("ESKER_LONG_TESTS");
    long seconds = text != NULL ? strtol(text, NULL, 10) : 0;
    return text == NULL ? 0 : (seconds > 1 ? seconds : 3600) * thirds / 3;
}

static void
churn_with(uint64_t budget, uint32_t count, int rounds, int thirds)
{
    struct rows rows;
    struct rng rng = {21};
    uint64_t fixed = churn_fixed_bytes();
    rows_init(&rows, count, ESKER_IO_AUTO);
    rows.large = true;
    rows.options.memory_budget_bytes = budget;
    uint64_t resident_before = churn_status("VmRSS:");
    churn_forget_peak();
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    uint64_t counted_most = 0;
    time_t end = time(NULL) + churn_seconds(thirds);
    for (int round = 0; round < rounds || time(NULL) < end; round++) {
        churn_round(&rows, &rng);
        esker_stats stats;
        esker_stats_init(&stats);
        assert_ok(esker_get_stats(rows.db, &stats));
        uint64_t counted = stats.memory_windows_bytes + stats.memory_indexes_bytes +
                           stats.memory_frames_bytes + stats.memory_iterators_bytes +
                           stats.memory_merges_bytes + stats.memory_slack_bytes;
        counted_most = MAX(counted_most, counted);
    }
    uint64_t peak = churn_status("VmHWM:");
    uint64_t resident_most = peak - MIN(peak, resident_before);
    print_message("of a budget of %llu KiB %llu KiB were counted and %llu KiB resident at most; "
                  "code, stacks and C library %llu KiB\n",
                  (unsigned long long)budget >> 10, (unsigned long long)counted_most >> 10,
                  (unsigned long long)resident_most >> 10, (unsigned long long)fixed >> 10);
    assert_true(fixed <= CHURN_FIXED_MAX);
    assert_true(counted_most <= budget + budget / 10);
    assert_true(resident_most <= budget + budget / 10 + fixed);
    rows_fini(&rows);
}

static void
budget__holds_while_everything_churns(void **state)
{
    (void)state;
    churn_with(32 << 20, 200000, 9, 2);
}

static void
budget__holds_when_it_is_the_smallest(void **state)
{
    (void)state;
    churn_with(BUDGET, 60000, 4, 1);
}

/* ---- A smaller budget than before ---------------------------------------------------- */

enum { SHRINK_ROWS = 100000, SHRINK_BEFORE = 256 << 20 };

static uint64_t
shrink_windows_bytes(const struct rows *rows)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_ok(esker_get_stats(rows->db, &stats));
    return stats.memory_windows_bytes;
}

/* The log that an earlier life left is as large as that life's windows were. */
static void
budget__is_the_present_one_though_the_log_is_an_earlier_ones(void **state)
{
    (void)state;
    struct rows rows;
    rows_init(&rows, SHRINK_ROWS, ESKER_IO_AUTO);
    rows.options.memory_budget_bytes = SHRINK_BEFORE;
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (uint32_t id = 0; id < rows.count; id++) {
        rows_put(&rows, id);
    }
    assert_ok(esker_flush(rows.db));
    rows_put(&rows, 1);
    assert_true(shrink_windows_bytes(&rows) > BUDGET);
    assert_ok(esker_close(rows.db));
    rows.options.memory_budget_bytes = BUDGET;
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (uint32_t id = 0; id < rows.count; id += 17) {
        rows_get(&rows, id);
    }
    assert_true(shrink_windows_bytes(&rows) < BUDGET / 8);
    rows_put(&rows, 2);
    assert_true(shrink_windows_bytes(&rows) < BUDGET / 2);
    for (uint32_t id = 0; id < rows.count; id += 3) {
        rows_put(&rows, id);
    }
    assert_ok(esker_close(rows.db));
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (uint32_t id = 0; id < rows.count; id++) {
        rows_get(&rows, id);
    }
    rows_fini(&rows);
}

/* ---- Iterators ---------------------------------------------------------------------- */

enum { OPEN_ROWS = 40000, OPEN_ITERATORS = 200, OPEN_BYTES_MAX = 4096 };

static _Atomic uint64_t open_live_bytes;

static void *
open_alloc(void *ctx, size_t size)
{
    void *ptr = malloc(size);
    (void)ctx;
    add_relaxed(&open_live_bytes, ptr == NULL ? 0 : malloc_usable_size(ptr)); /* relaxed: a count */
    return ptr;
}

static void *
open_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    void *ptr = aligned_alloc(alignment, size);
    (void)ctx;
    add_relaxed(&open_live_bytes, ptr == NULL ? 0 : malloc_usable_size(ptr)); /* relaxed: a count */
    return ptr;
}

static void
open_free(void *ctx, void *ptr)
{
    (void)ctx;
    add_relaxed(&open_live_bytes, -(uint64_t)malloc_usable_size(ptr)); /* relaxed: a count */
    free(ptr);
}

static uint64_t
open_charged_bytes(const struct rows *rows)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_ok(esker_get_stats(rows->db, &stats));
    return stats.memory_iterators_bytes;
}

/* Goal: an open iterator costs little, and what it costs is charged. */
static void
iterators__are_small_and_charged(void **state)
{
    (void)state;
    static const esker_allocator allocator = {
        .alloc = open_alloc, .aligned_alloc = open_aligned_alloc, .free = open_free};
    static esker_iter *open[OPEN_ITERATORS];
    struct rows rows;
    rows_init(&rows, OPEN_ROWS, ESKER_IO_AUTO);
    rows.options.allocator = &allocator;
    rows.options.memory_budget_bytes = 64 << 20;
    assert_ok(esker_open(rows.path, &rows.options, &rows.db));
    for (uint32_t id = 0; id < rows.count; id++) {
        rows_put(&rows, id);
    }
    assert_ok(esker_compact(rows.db, NULL, NULL));
    rows_put(&rows, 1);
    churn_scan(&rows, &(struct rng){1});            /* what one has read is in the cache */
    uint64_t live = load_relaxed(&open_live_bytes); /* relaxed: a count */
    uint64_t charged = open_charged_bytes(&rows);
    for (size_t i = 0; i < OPEN_ITERATORS; i++) {
        char key[24];
        assert_ok(esker_iter_create(rows.db, NULL, &open[i]));
        assert_ok(esker_iter_seek(open[i], rows_key(1, key)));
    }
    live = (load_relaxed(&open_live_bytes) - live) / OPEN_ITERATORS; /* relaxed: a count */
    charged = (open_charged_bytes(&rows) - charged) / OPEN_ITERATORS;
    print_message("an open iterator takes %llu bytes, %llu are charged\n", (unsigned long long)live,
                  (unsigned long long)charged);
    assert_true(live <= OPEN_BYTES_MAX);
    assert_true(charged >= live - live / 8 && charged <= 2 * live);
    for (size_t i = 0; i < OPEN_ITERATORS; i++) {
        esker_iter_destroy(open[i]);
    }
    /* One piece waits for the next iterator, charged. */
    assert_true(open_charged_bytes(&rows) <= OPEN_BYTES_MAX);
    db_iterate_drop_spares(rows.db);
    assert_int_equal(open_charged_bytes(&rows), 0);
    rows_fini(&rows);
}

/* ---- Descriptors ------------------------------------------------------------------ */

enum { FILES_ROWS = 12000, FILES_LIMIT = 64 };

static void
descriptors__sixty_four_are_enough_for_hundreds_of_segments(void **state)
{
    (void)state;
    static const struct db_tuning tuning = {
        .window_bytes_first = 128 << 10, .window_bytes_max = 128 << 10, .segment_bytes = 16 << 10};
    struct rows rows;
    struct rng rng = {22};
    struct rlimit before;
    struct io *io = NULL;
    rows_init(&rows, FILES_ROWS, ESKER_IO_AUTO);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit few = {.rlim_cur = FILES_LIMIT, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_ok(io_open_dir(rows.path, true, ESKER_IO_AUTO, &mem_default, &io));
    assert_ok(db_open_on(io, &rows.options, &tuning, false, &rows.db));
    for (uint32_t id = 0; id < rows.count; id++) {
        rows_put(&rows, id);
    }
    assert_ok(esker_compact(rows.db, NULL, NULL));
    esker_stats stats;
    esker_stats_init(&stats);
    for (int round = 0; round < 3; round++) {
        for (uint32_t id = 0; id < rows.count; id++) {
            rows_get(&rows, id);
        }
        many_ask(&rows, &rng, NULL);
        churn_scan(&rows, &rng);
        for (uint32_t id = (uint32_t)round; id < rows.count; id += 7) {
            rows_put(&rows, id);
        }
    }
    assert_ok(esker_get_stats(rows.db, &stats));
    assert_true(stats.segments > 2 * FILES_LIMIT);
    assert_true(stats.segments_open <= DB_FILES_MIN);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    rows_fini(&rows);
}

enum { FILES_FLUSHES = 46, FILES_HELD = 9, FILES_LEAST = 20 };

/* Level 0 is full, and the embedding program holds up to held_most of the FILES_LIMIT descriptors, but
 * leaves free_least. */
static void
files_compact(int held_most, int free_least)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 128 << 10, .window_bytes_max = 128 << 10, .segment_bytes = 64 << 10};
    struct rows rows;
    struct rlimit before;
    struct io *io = NULL;
    int held[FILES_LIMIT];
    int held_count = 0;
    rows_init(&rows, FILES_ROWS, ESKER_IO_AUTO);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit few = {.rlim_cur = FILES_LIMIT, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_ok(io_open_dir(rows.path, true, ESKER_IO_AUTO, &mem_default, &io));
    assert_ok(db_open_on(io, &rows.options, &tuning, false, &rows.db));
    mutex_lock(&rows.db->mu);
    rows.db->manual_compactions++; /* no merge begins */
    rows.db->l0_stall = L0_STALL;  /* as a process with more descriptors may have left it */
    mutex_unlock(&rows.db->mu);
    for (uint32_t flush = 0; flush < FILES_FLUSHES; flush++) {
        for (uint32_t id = flush; id < rows.count; id += FILES_FLUSHES * 4) {
            rows_put(&rows, id);
        }
        assert_ok(esker_flush(rows.db));
    }
    while (held_count < held_most && (held[held_count] = dup(0)) >= 0) {
        held_count++;
    }
    while (held_count > 0 && FILES_LIMIT - held[held_count - 1] - 1 < free_least) {
        (void)close(held[--held_count]);
    }
    mutex_lock(&rows.db->mu);
    rows.db->manual_compactions--;
    mutex_unlock(&rows.db->mu);
    esker_status compacted = esker_compact(rows.db, NULL, NULL);
    rows_put(&rows, 1);
    esker_status flushed = esker_flush(rows.db);
    while (held_count > 0) {
        (void)close(held[--held_count]);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_ok(compacted);
    assert_ok(flushed);
    for (uint32_t id = 0; id < rows.count; id++) {
        rows_get(&rows, id);
    }
    rows_fini(&rows);
}

/* Goal: a full level 0 is merged though its segments cannot all be open together. */
static void
descriptors__a_merge_makes_do_with_those_that_are_left(void **state)
{
    (void)state;
    files_compact(FILES_HELD, 0);
    files_compact(FILES_LIMIT, FILES_LEAST);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budget__holds_while_everything_churns),
        cmocka_unit_test(budget__holds_when_it_is_the_smallest),
        cmocka_unit_test(multi_get__answers_like_single_gets),
        cmocka_unit_test(multi_get__answers_the_same_through_a_ring),
        cmocka_unit_test(multi_get__is_at_one_point_in_time),
        cmocka_unit_test(budget__is_the_present_one_though_the_log_is_an_earlier_ones),
        cmocka_unit_test(iterators__are_small_and_charged),
        cmocka_unit_test(descriptors__sixty_four_are_enough_for_hundreds_of_segments),
        cmocka_unit_test(descriptors__a_merge_makes_do_with_those_that_are_left),
    };
    return cmocka_run_group_tests_name("db memory", tests, NULL, NULL);
}
