/* SPDX-License-Identifier: MIT */
/*
 * Goal: opening a database touches no segment, however many there are, and what it
 * does per segment does not grow with their number. What the manifest lists is what
 * was there, after drops, moves and many merges.
 * Method: segments of one or two rows, so that there are many; counted: calls to the
 * simulated disk and allocations. ESKER_LONG_TESTS makes ten thousand of them in a
 * real directory and says how long opening takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "db/db.h"
#include "io/io_sim.h"

enum { SEGMENTS_VALUE_BYTES = 4000 };

static void
segments_open(struct io *io, esker_db **db)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20, .segment_bytes = 4096};
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 64 << 20;
    options.compression = ESKER_COMPRESS_NONE;
    assert_int_equal(db_open_on(io, &options, &tuning, true, db), ESKER_OK);
}

static void
segments_put(esker_db *db, uint32_t from, uint32_t count)
{
    for (uint32_t i = from; i < from + count; i++) {
        char key[20];
        uint8_t value[SEGMENTS_VALUE_BYTES];
        memset(value, (int)(i % 251), sizeof value);
        snprintf(key, sizeof key, "%016llx", (unsigned long long)hash_mix(i, 3));
        assert_int_equal(esker_put(db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
}

static void
segments_expect(esker_db *db, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += count / 50) {
        char key[20];
        uint8_t value[SEGMENTS_VALUE_BYTES];
        size_t size = 0;
        snprintf(key, sizeof key, "%016llx", (unsigned long long)hash_mix(i, 3));
        assert_int_equal(esker_get_copy(db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
        assert_int_equal(size, SEGMENTS_VALUE_BYTES);
        assert_int_equal(value[size - 1], i % 251);
    }
}

static uint64_t
segments_count(esker_db *db)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    return stats.segments;
}

static struct io *
segments_sim(struct sim_disk *disk)
{
    struct io *io = NULL;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return io;
}

/* Rows in so many portions, each merged: segments come and go. Returns the calls of opening anew. */
static uint64_t
segments_calls_of_open(uint32_t rows, uint32_t portions)
{
    static const enum sim_kind kinds[] = {SIM_OPEN, SIM_READ, SIM_SIZE};
    struct sim_disk *disk = sim_disk_create(rows);
    esker_db *db = NULL;
    segments_open(segments_sim(disk), &db);
    for (uint32_t i = 0; i < portions; i++) {
        segments_put(db, i * (rows / portions), rows / portions);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    uint64_t segments = segments_count(db);
    assert_true(segments >= rows / 2);
    assert_int_equal(esker_close(db), ESKER_OK);
    uint64_t before = 0;
    uint64_t after = 0;
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        before += sim_disk_count(disk, kinds[i]);
    }
    segments_open(segments_sim(disk), &db);
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        after += sim_disk_count(disk, kinds[i]);
    }
    assert_int_equal(segments_count(db), segments);
    segments_expect(db, rows);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
    return after - before;
}

static void
open__touches_no_segment(void **state)
{
    (void)state;
    uint64_t few = segments_calls_of_open(100, 4);
    uint64_t many = segments_calls_of_open(2000, 4);
    assert_in_range(many, few, few + 20); /* the manifest is longer */
}

static void
open__of_ten_thousand_segments(void **state)
{
    (void)state;
    if (getenv("ESKER_LONG_TESTS") == NULL) {
        skip();
    }
    char path[] = "/tmp/esker-segments-XXXXXX";

    enum { ROWS = 10000 };

    esker_db *db = NULL;
    assert_non_null(mkdtemp(path));
    for (int life = 0; life < 3; life++) {
        struct io *io = NULL;
        assert_int_equal(io_open_dir(path, true, ESKER_IO_AUTO, &mem_default, &io), ESKER_OK);
        uint64_t began = io_monotonic_ns(io);
        segments_open(io, &db);
        uint64_t took = io_monotonic_ns(db->io) - began;
        if (life == 0) {
            segments_put(db, 0, ROWS);
            assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
        }
        print_message("%llu segments, opened in %.1f ms\n", (unsigned long long)segments_count(db),
                      (double)took / 1e6);
        assert_int_equal(esker_close(db), ESKER_OK);
    }
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open__touches_no_segment),
        cmocka_unit_test(open__of_ten_thousand_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
