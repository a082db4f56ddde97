/* SPDX-License-Identifier: MIT */
/*
 * Goal: readers do not notice flushes and merges: what was in memory before is
 * there afterwards. And what nobody reads does not fill the cache.
 * Method: the simulated disk, one thread; the count of cache misses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "db/db_compact.h"
#include "io/io_sim.h"

enum { WARM_ROWS = 6000, WARM_VALUE_BYTES = 100 };

struct warm {
    struct sim_disk *disk;
    esker_db *db;
};

static void
warm_open(struct warm *warm)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 128 << 10, .window_bytes_max = 128 << 10, .segment_bytes = 128 << 10};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 32 << 20;
    assert_int_equal(io_sim_open(warm->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, true, &warm->db), ESKER_OK);
}

static int
warm_setup(void **state)
{
    static struct warm warm;
    warm.disk = sim_disk_create(1);
    assert_non_null(warm.disk);
    warm_open(&warm);
    *state = &warm;
    return 0;
}

static int
warm_teardown(void **state)
{
    struct warm *warm = *state;
    assert_int_equal(esker_close(warm->db), ESKER_OK);
    sim_disk_destroy(warm->disk);
    return 0;
}

static esker_stats
warm_stats(const struct warm *warm)
{
    esker_stats stats;
    esker_stats_init(&stats);
    epoch_drain();
    assert_int_equal(esker_get_stats(warm->db, &stats), ESKER_OK);
    return stats;
}

static esker_slice
warm_key(int row, char key[16])
{
    return esker_bytes(key, (size_t)snprintf(key, 16, "%08u", (unsigned)row * 2654435761U));
}

static void
warm_value(int row, int version, uint8_t value[WARM_VALUE_BYTES])
{
    memset(value, row & 0xff, WARM_VALUE_BYTES);
    value[0] = (uint8_t)version;
}

static void
warm_put_all(const struct warm *warm, int version)
{
    char key[16];
    uint8_t value[WARM_VALUE_BYTES];
    for (int row = 0; row < WARM_ROWS; row++) {
        warm_value(row, version, value);
        assert_int_equal(esker_put(warm->db, warm_key(row, key), esker_bytes(value, sizeof value), NULL),
                         ESKER_OK);
    }
}

/* Gets every row; returns how many blocks had to be read for it. */
static uint64_t
warm_get_all(const struct warm *warm, int version)
{
    char key[16];
    uint8_t expected[WARM_VALUE_BYTES];
    uint8_t value[WARM_VALUE_BYTES];
    uint64_t before = warm_stats(warm).cache_misses;
    for (int row = 0; row < WARM_ROWS; row++) {
        size_t size = 0;
        assert_int_equal(esker_get_copy(warm->db, warm_key(row, key), NULL, value, sizeof value, &size),
                         ESKER_OK);
        warm_value(row, version, expected);
        assert_int_equal(size, sizeof value);
        assert_memory_equal(value, expected, sizeof value);
    }
    return warm_stats(warm).cache_misses - before;
}

static void
warm__readers_miss_nothing_after_flushes_and_merges(void **state)
{
    const struct warm *warm = *state;
    warm_put_all(warm, 1);
    (void)warm_get_all(warm, 1); /* there are readers */
    for (int version = 2; version < 5; version++) {
        warm_put_all(warm, version);
        assert_int_equal(esker_flush(warm->db), ESKER_OK);
        (void)warm_get_all(warm, version);
        assert_int_equal(esker_compact(warm->db, NULL, NULL), ESKER_OK);
        assert_true(warm_stats(warm).segments > 1);
        assert_int_equal(warm_get_all(warm, version), 0);
    }
    /* Flushes alone: the rows go from memtables into blocks. */
    (void)warm_get_all(warm, 4);
    char key[16];
    uint8_t value[WARM_VALUE_BYTES];
    for (int row = 0; row < WARM_ROWS / 10; row++) {
        warm_value(row, 4, value);
        assert_int_equal(esker_put(warm->db, warm_key(row, key), esker_bytes(value, sizeof value), NULL),
                         ESKER_OK);
    }
    uint64_t flushes = warm_stats(warm).flushes;
    assert_int_equal(esker_flush(warm->db), ESKER_OK);
    assert_true(warm_stats(warm).flushes > flushes);
    assert_int_equal(warm_get_all(warm, 4), 0);
}

static void
warm__what_nobody_reads_is_not_kept(void **state)
{
    const struct warm *warm = *state;
    for (int version = 1; version < 4; version++) {
        warm_put_all(warm, version);
        assert_int_equal(esker_flush(warm->db), ESKER_OK);
        assert_int_equal(esker_compact(warm->db, NULL, NULL), ESKER_OK);
        assert_int_equal(warm_stats(warm).memory_frames_bytes, 0);
    }
    (void)warm_get_all(warm, 3);
    assert_true(warm_stats(warm).memory_frames_bytes > 0);
}

static size_t
warm_segment_files(const struct warm *warm)
{
    static struct sim_file_info files[512];
    size_t count = sim_disk_files(warm->disk, files, COUNTOF(files));
    size_t segments = 0;
    for (size_t i = 0; i < count; i++) {
        segments += strstr(files[i].name, ".seg") != NULL ? 1 : 0;
    }
    return segments;
}

/* A merge whose outputs are being handed to the cache; NULL: none. */
static const struct compact_run *
warm_handing_over(const struct warm *warm)
{
    for (uint32_t i = 0; i < warm->db->compact_job_count; i++) {
        const struct compact_run *run = warm->db->compact_jobs[i].ended;
        if (run != NULL && run->gathered && run->result.adopted < run->result.output_count) {
            return run;
        }
    }
    return NULL;
}

/* Block by block, if steps are that short; and one that is cut there leaves nothing. */
static void
warm__is_handed_over_in_steps(void **state)
{
    struct warm *warm = *state;
    warm->db->merge_step_work = 512;
    warm_put_all(warm, 1);
    (void)warm_get_all(warm, 1); /* there are readers */
    warm_put_all(warm, 2);
    assert_int_equal(esker_flush(warm->db), ESKER_OK);
    esker_stats before = warm_stats(warm);
    assert_true(before.step_count[ESKER_STEP_INSTALL] > before.flushes + 3);
    for (uint32_t runs = 0; warm_handing_over(warm) == NULL; runs++) {
        assert_true(runs < 100000);
        if (!workers_run_one()) { /* nothing is due */
            (void)warm_get_all(warm, 2);
            warm_put_all(warm, 2);
            assert_int_equal(esker_flush(warm->db), ESKER_OK);
        }
    }
    assert_int_equal(esker_close(warm->db), ESKER_OK);
    size_t files = warm_segment_files(warm);
    warm_open(warm);
    assert_int_equal(warm_stats(warm).segments, files);
    (void)warm_get_all(warm, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(warm__readers_miss_nothing_after_flushes_and_merges, warm_setup,
                                        warm_teardown),
        cmocka_unit_test_setup_teardown(warm__what_nobody_reads_is_not_kept, warm_setup, warm_teardown),
        cmocka_unit_test_setup_teardown(warm__is_handed_over_in_steps, warm_setup, warm_teardown),
    };
    return cmocka_run_group_tests_name("db warm", tests, NULL, NULL);
}
