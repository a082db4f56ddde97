/* SPDX-License-Identifier: MIT */
/*
 * Goal: a flush is many short runs of its job, between which others have their turn;
 * the sync of its segment is a run of its own; one that is stopped in between leaves
 * nothing behind and is begun anew.
 * Method: no threads, so that the test says when a job runs; calls to the simulated
 * disk counted run by run; sizes of segments whose values compress well.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "db/db.h"
#include "io/io_sim.h"

enum { FLUSH_RUNS_MOST = 10000, FLUSH_FILES = 64, FLUSH_BATCH = 100, FLUSH_BATCH_BYTES = 400 * FLUSH_BATCH };

static void
flush_open(struct sim_disk *disk, esker_db **db)
{
    static const struct db_tuning tuning = {.window_bytes_first = 64 << 10,
                                            .window_bytes_max = 64 << 10,
                                            .segment_bytes = 1 << 20,
                                            .merge_step_work = 4096};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 16 << 20;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, true, db), ESKER_OK);
}

/* Half of each value compresses to nothing, or all of it. */
static bool flush_half;

static void
flush_put(esker_db *db, uint32_t number)
{
    char key[16];
    char value[400] = {0};
    struct rng rng = {number};
    for (size_t i = 0; flush_half && i < sizeof value / 2; i++) {
        value[i] = (char)rng_below(&rng, 256);
    }
    snprintf(key, sizeof key, "%08u", number);
    assert_int_equal(esker_put(db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
}

/* Until a window waits to be flushed and the flush has begun. */
static uint32_t
flush_fill(esker_db *db)
{
    uint32_t puts = 0;
    while (db->flush.job == NULL) {
        flush_put(db, puts++);
        if (load_acquire(&db->current)->window_count > 1) { /* pairs: CURRENT */
            (void)workers_run_one();
        }
        assert_true(puts < 10000);
    }
    return puts;
}

static void
flush_expect(esker_db *db, uint32_t puts)
{
    for (uint32_t i = 0; i < puts; i++) {
        char key[16];
        char value[400];
        size_t size = 0;
        snprintf(key, sizeof key, "%08u", i);
        assert_int_equal(esker_get_copy(db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
    }
}

static size_t
flush_segment_files(struct sim_disk *disk)
{
    struct sim_file_info files[FLUSH_FILES];
    size_t count = sim_disk_files(disk, files, FLUSH_FILES);
    size_t segments = 0;
    for (size_t i = 0; i < count; i++) {
        segments += strstr(files[i].name, ".seg") != NULL ? 1 : 0;
    }
    return segments;
}

static void
flush__goes_in_steps(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(11);
    esker_db *db = NULL;
    flush_open(disk, &db);
    uint32_t puts = flush_fill(db);
    uint32_t runs = 0;
    uint32_t syncs_alone = 0;
    while (db->flush.job != NULL) {
        uint64_t writes = sim_disk_count(disk, SIM_WRITE);
        uint64_t syncs = sim_disk_count(disk, SIM_SYNC);
        uint64_t flushes = load_relaxed(&db->flushes); /* relaxed: no threads */
        db_flush_job(&db->flush_job);
        bool wrote = sim_disk_count(disk, SIM_WRITE) != writes;
        bool installed = load_relaxed(&db->flushes) != flushes; /* relaxed: no threads */
        if (!installed && sim_disk_count(disk, SIM_SYNC) != syncs) {
            assert_false(wrote);
            syncs_alone++;
        }
        runs++;
        assert_true(runs < FLUSH_RUNS_MOST);
    }
    assert_int_equal(syncs_alone, 1);
    assert_true(runs > 8); /* 64 KiB of log in steps of 4 KiB */
    flush_put(db, puts++);
    flush_expect(db, puts);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

static void
flush__that_is_stopped_leaves_nothing_behind(void **state)
{
    (void)state;
    for (uint32_t stop_after = 1; stop_after <= 20; stop_after++) {
        struct sim_disk *disk = sim_disk_create(stop_after);
        esker_db *db = NULL;
        flush_open(disk, &db);
        uint32_t puts = flush_fill(db);
        for (uint32_t i = 0; i < stop_after && db->flush.job != NULL; i++) {
            db_flush_job(&db->flush_job);
        }
        size_t before = (size_t)load_relaxed(&db->flushes); /* relaxed: no threads */
        db_flush_stop(db);
        assert_null(db->flush.window);
        assert_int_equal(flush_segment_files(disk), before);
        flush_expect(db, puts);
        assert_int_equal(esker_flush(db), ESKER_OK); /* anew */
        flush_expect(db, puts);
        assert_int_equal(esker_close(db), ESKER_OK);
        flush_open(disk, &db);
        flush_expect(db, puts);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* Keys [from, from + FLUSH_BATCH), in order or (stride > 1) not, as a segment: how long it is. */
static uint64_t
flush_batch(esker_db *db, uint32_t from, uint32_t stride)
{
    for (uint32_t i = 0; i < FLUSH_BATCH; i++) {
        flush_put(db, from + i * stride % FLUSH_BATCH);
    }
    assert_int_equal(esker_flush(db), ESKER_OK);
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    assert_int_equal(version->window_count, 1);
    return segment_meta(version->levels[0]->segments[0])->size_bytes;
}

static void
flush__compresses(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(12);
    esker_db *db = NULL;
    flush_open(disk, &db);
    assert_true(flush_batch(db, 1000, 1) < FLUSH_BATCH_BYTES / 2);
    assert_true(flush_batch(db, 1050, 37) < FLUSH_BATCH_BYTES / 2);
    db->options.compression = ESKER_COMPRESS_NONE; /* no threads */
    assert_true(flush_batch(db, 1075, 1) > FLUSH_BATCH_BYTES);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* Of all segments, when the jobs have nothing more to do. */
static uint64_t
flush_bytes_at_rest(esker_db *db)
{
    for (uint32_t runs = 0; runs < FLUSH_RUNS_MOST && workers_run_one(); runs++) {
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    assert_true(stats.level_segments[0] < L0_TRIGGER);
    return stats.segment_bytes;
}

/* Four segments side by side could go down as they are, but one was written plain, when the database
 * was opened with another option. Nobody asks for a merge of all. */
static void
flush__what_was_written_plain_is_compressed_on_its_way_down(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(14);
    esker_db *db = NULL;
    flush_open(disk, &db);
    flush_half = true;            /* or the segments are crumbs, which are not moved in any case */
    db->segment_bytes = 64 << 10; /* the same */
    db->options.compression = ESKER_COMPRESS_NONE; /* no threads */
    assert_true(flush_batch(db, 0, 37) > FLUSH_BATCH_BYTES);
    db->options.compression = ESKER_COMPRESS_AUTO;
    uint64_t each = 0;
    for (uint32_t from = 1000; from < 1000 * L0_TRIGGER; from += 1000) {
        each = flush_batch(db, from, 1);
        assert_in_range(each, (64 << 10) / 4, FLUSH_BATCH_BYTES * 3 / 4);
    }
    assert_true(flush_bytes_at_rest(db) < L0_TRIGGER * each * 11 / 10);
    uint64_t written = load_relaxed(&db->compaction_bytes_written); /* relaxed: no threads */
    assert_in_range(written, 1, L0_TRIGGER * each * 11 / 10);
    assert_true(flush_bytes_at_rest(db) > 0);                               /* once is enough */
    assert_int_equal(load_relaxed(&db->compaction_bytes_written), written); /* relaxed: no threads */
    flush_half = false;
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flush__goes_in_steps),
        cmocka_unit_test(flush__that_is_stopped_leaves_nothing_behind),
        cmocka_unit_test(flush__compresses),
        cmocka_unit_test(flush__what_was_written_plain_is_compressed_on_its_way_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
