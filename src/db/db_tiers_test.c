/* SPDX-License-Identifier: MIT */
/*
 * Goal: tiers of level 0 are merged with one another and no row that anybody may see
 * is lost by it, deletes that hide something older included, while those that hide
 * nothing go. The policy follows what readers and writers do, at once and without
 * opening anew; a tree that was made under one policy is right under the others.
 * Method: no threads, so that the test says when merges run; few rows, whose number
 * after a merge is known; the clock of the simulated disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "db/db_compact.h"
#include "io/io_sim.h"

enum { TIERS_FLUSHES = 16, TIERS_BELOW = 2000, TIERS_LARGE = 600, TIERS_VALUE = 200 };

static void
tiers_open_with(struct sim_disk *disk, enum merge_policy policy, uint64_t segment_bytes, bool manual,
                esker_db **db)
{
    struct db_tuning tuning = {.merge_policy = policy,
                               .window_bytes_first = 1 << 20,
                               .window_bytes_max = 1 << 20,
                               .segment_bytes = segment_bytes};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 64 << 20;
    options.compression = ESKER_COMPRESS_NONE;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, manual, db), ESKER_OK);
}

static void
tiers_open(struct sim_disk *disk, enum merge_policy policy, esker_db **db)
{
    tiers_open_with(disk, policy, 1 << 20, true, db);
}

/* Values of one byte repeated, which says what was written. */
static void
tiers_put(esker_db *db, const char *kind, uint32_t number, uint8_t byte)
{
    char key[24];
    uint8_t value[TIERS_VALUE];
    memset(value, byte, sizeof value);
    snprintf(key, sizeof key, "%s%05u", kind, number);
    assert_int_equal(esker_put(db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
}

static void
tiers_delete(esker_db *db, const char *kind, uint32_t number)
{
    char key[24];
    snprintf(key, sizeof key, "%s%05u", kind, number);
    assert_int_equal(esker_delete(db, esker_str(key), NULL), ESKER_OK);
}

/* byte 0: the key is absent. */
static void
tiers_expect(esker_db *db, const esker_snapshot *snapshot, const char *kind, uint32_t number, uint8_t byte)
{
    char key[24];
    uint8_t value[TIERS_VALUE] = {0};
    size_t size = 0;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    snprintf(key, sizeof key, "%s%05u", kind, number);
    esker_status status = esker_get_copy(db, esker_str(key), &options, value, sizeof value, &size);
    assert_int_equal(status, byte != 0 ? ESKER_OK : ESKER_NOT_FOUND);
    assert_int_equal(value[TIERS_VALUE - 1], byte);
}

static const struct level_run *
tiers_level(esker_db *db, uint32_t level)
{
    return load_acquire(&db->current)->levels[level]; /* pairs: CURRENT — one thread */
}

static void
tiers_merge(esker_db *db)
{
    while (workers_run_one()) {
    }
    assert_int_equal(db->claimed_count, 0);
}

/* Keys below, all in the last level: more than level 0 will have. */
static void
tiers_fill_below(esker_db *db)
{
    for (uint32_t i = 0; i < TIERS_BELOW; i++) {
        tiers_put(db, "below", i, 1);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_null(tiers_level(db, 0));
}

static void
tiers__of_level_0_are_merged_with_one_another(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(3);
    esker_db *db = NULL;
    esker_snapshot *snapshot = NULL;
    tiers_open(disk, MERGES_LAZY, &db);
    tiers_fill_below(db);
    uint64_t below_id = segment_meta(tiers_level(db, ESKER_LEVELS_MAX - 1)->segments[0])->id;
    for (uint32_t i = 0; i < TIERS_FLUSHES; i++) {
        for (uint32_t k = 0; i == 0 && k < TIERS_LARGE; k++) {
            tiers_put(db, "large", k, 2);
        }
        tiers_put(db, "each", i, (uint8_t)(10 + i));
        tiers_put(db, "below", 5, (uint8_t)(10 + i));
        if (i == 3) {
            tiers_delete(db, "below", 100); /* hides what is in the last level */
            tiers_put(db, "short", 0, 3);
        }
        if (i == 5) {
            tiers_delete(db, "short", 0); /* hides what goes by the same merge */
        }
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    tiers_merge(db);
    const struct level_run *level0 = tiers_level(db, 0);
    assert_int_equal(level0->count, 2); /* the first, which is large, stays */
    uint64_t large_id = segment_meta(level0->segments[1])->id;
    assert_int_equal(segment_meta(level0->segments[1])->row_count, TIERS_LARGE + 2);
    assert_int_equal(segment_meta(level0->segments[0])->row_count, TIERS_FLUSHES - 1 + 2);
    assert_int_equal(segment_meta(level0->segments[0])->tombstone_count, 1);
    for (uint32_t i = 0; i < TIERS_FLUSHES - 1; i++) {
        if (i == 6) { /* after the delete: it may go as far as the snapshot is concerned */
            assert_int_equal(esker_snapshot_create(db, &snapshot), ESKER_OK);
        }
        tiers_put(db, "each", i, (uint8_t)(50 + i));
        if (i == 3) {
            tiers_delete(db, "large", 7); /* hides what is in the older tier */
        }
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    tiers_merge(db);
    level0 = tiers_level(db, 0);
    assert_int_equal(level0->count, 2);
    assert_int_equal(segment_meta(level0->segments[1])->id, large_id);
    assert_int_equal(segment_meta(tiers_level(db, ESKER_LEVELS_MAX - 1)->segments[0])->id, below_id);
    for (int reopened = 0; reopened < 2; reopened++) {
        tiers_expect(db, NULL, "below", 5, 10 + TIERS_FLUSHES - 1);
        tiers_expect(db, NULL, "below", 100, 0);
        tiers_expect(db, NULL, "below", 101, 1);
        tiers_expect(db, NULL, "short", 0, 0);
        tiers_expect(db, NULL, "large", 7, 0);
        tiers_expect(db, NULL, "large", 8, 2);
        tiers_expect(db, NULL, "each", 3, 53);
        tiers_expect(db, NULL, "each", TIERS_FLUSHES - 1, 10 + TIERS_FLUSHES - 1);
        if (reopened == 0) {
            tiers_expect(db, snapshot, "large", 7, 0);
            tiers_expect(db, snapshot, "each", 5, 55);
            tiers_expect(db, snapshot, "each", 6, 16);
            esker_snapshot_release(snapshot);
            assert_int_equal(esker_close(db), ESKER_OK);
            tiers_open(disk, MERGES_LEVELED, &db);
        }
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* A merge of which a part is in hand, by where it writes; NULL: none. */
static struct compact_run *
tiers_in_hand(esker_db *db, bool down)
{
    for (uint32_t i = 0; i < db->compact_job_count; i++) {
        struct compact_part *part = db->compact_jobs[i].part;
        if (part != NULL && part->job != NULL && (part->run->plan->output_level > 0) == down) {
            return part->run;
        }
    }
    return NULL;
}

enum { DOWN_DUE = 12, DOWN_ROWS = 100, DOWN_RUNS_MOST = 10000 };

/* As many tiers as are due, all inputs of a merge that goes down, and as many new ones, whose merge is in
 * hand: the other one is set aside. *active_out, with a reference: the window active when that began. */
static const struct compact_run *
tiers_set_aside(esker_db *db, struct window **active_out)
{
    tiers_fill_below(db);
    db->merge_step_work = 2000;
    for (uint32_t i = 0; i < 2 * DOWN_DUE; i++) {
        for (uint32_t k = 0; k < (i < DOWN_DUE ? DOWN_ROWS : 1); k++) {
            tiers_put(db, "below", i * DOWN_ROWS + k, (uint8_t)(2 + i));
        }
        tiers_put(db, "each", 0, (uint8_t)(2 + i));
        assert_int_equal(esker_flush(db), ESKER_OK);
        for (uint32_t runs = 0; i + 1 == DOWN_DUE && tiers_in_hand(db, true) == NULL; runs++) {
            assert_true(runs < DOWN_RUNS_MOST && workers_run_one());
        }
        if (i + 1 == DOWN_DUE) {
            *active_out = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT — one thread */
            window_ref(*active_out);
        }
    }
    const struct compact_run *down = tiers_in_hand(db, true);
    assert_non_null(down);
    assert_int_equal(down->plan->input_count, DOWN_DUE);
    assert_int_equal(tiers_level(db, 0)->tier_count, 2 * DOWN_DUE);
    for (uint32_t runs = 0; tiers_in_hand(db, false) == NULL; runs++) {
        assert_true(runs < DOWN_RUNS_MOST && workers_run_one());
    }
    assert_true(db->compact_parts != NULL && db->compact_parts->run == down);
    return down;
}

/* New tiers do not wait for the end of a merge that takes long. */
static void
tiers__come_before_the_rest_of_a_merge_that_goes_down(void **state)
{
    (void)state;

    enum { DUE = DOWN_DUE, ROWS = DOWN_ROWS };

    struct sim_disk *disk = sim_disk_create(8);
    esker_db *db = NULL;
    tiers_open(disk, MERGES_LEVELED, &db);
    struct window *active = NULL;
    const struct compact_run *down = tiers_set_aside(db, &active);
    epoch_drain();
    assert_int_equal(load_relaxed(&active->refs),
                     1); /* relaxed: one thread; it was flushed, no merge keeps it */
    window_unref(active);
    while (tiers_level(db, 0)->tier_count > DUE + 1) {
        assert_true(workers_run_one());
    }
    assert_int_equal(tiers_level(db, 0)->tier_count, DUE + 1); /* its inputs are still there */
    assert_int_equal(db->claimed_count, down->drop_count);
    tiers_merge(db);
    assert_int_equal(tiers_level(db, 0)->tier_count, 1);
    for (int reopened = 0; reopened < 2; reopened++) {
        tiers_expect(db, NULL, "each", 0, 1 + 2 * DUE);
        tiers_expect(db, NULL, "below", 0, 2);
        tiers_expect(db, NULL, "below", DUE * ROWS, 2 + DUE);
        tiers_expect(db, NULL, "below", TIERS_BELOW - 1, 1);
        assert_int_equal(esker_close(db), ESKER_OK);
        tiers_open(disk, MERGES_LEVELED, &db);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* What was set aside for a merge that fails goes on, and is not set aside again for another one like it. */
static void
tiers__that_fail_do_not_stop_the_merge_that_was_set_aside(void **state)
{
    (void)state;
    for (int more = 0; more < 2; more++) {
        struct sim_disk *disk = sim_disk_create(8);
        esker_db *db = NULL;
        tiers_open(disk, MERGES_LEVELED, &db);
        struct window *active = NULL;
        const struct compact_run *down = tiers_set_aside(db, &active);
        window_unref(active);
        sim_disk_fail(disk, SIM_WRITE, 1, EIO, true);
        /* relaxed: one thread */
        for (uint32_t runs = 0; load_relaxed(&db->compactions_failed) == 0; runs++) {
            assert_true(runs < DOWN_RUNS_MOST && workers_run_one());
        }
        sim_disk_heal(disk);
        assert_true(db->compact_parts != NULL && db->compact_parts->run == down);
        assert_int_equal(db->claimed_count, down->drop_count);
        uint64_t ended = db->merges_ended;
        store_relaxed(&db->tiers_wait, more == 1); /* relaxed: as a flush in the background says it */
        for (uint32_t runs = 0; more == 1 && db->merges_ended == ended; runs++) {
            assert_null(tiers_in_hand(db, false));
            assert_true(runs < DOWN_RUNS_MOST && workers_run_one());
        }
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK); /* waits for what others claimed */
        assert_null(tiers_level(db, 0));
        tiers_expect(db, NULL, "each", 0, 1 + 2 * DOWN_DUE);
        tiers_expect(db, NULL, "below", 0, 2);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* ---- Tiers of many segments ------------------------------------------------------ */

enum { MANY_KEYS = 1500, MANY_SEGMENT = 16 << 10 };

/* What is written by flush number `flush`, 1 the first: byte 0 means deleted or never put. */
static uint8_t
tiers_many_byte(uint32_t key, uint32_t flushes)
{
    for (uint32_t flush = flushes; flush > 0; flush--) {
        if ((key + flush) % 3 == 0) {
            return key % 7 == flush % 7 ? 0 : (uint8_t)(flush + 1);
        }
    }
    return 1; /* what lies below */
}

static void
tiers_many_flush(esker_db *db, uint32_t flush)
{
    for (uint32_t key = 0; key < MANY_KEYS; key++) {
        if ((key + flush) % 3 != 0) {
            continue;
        }
        if (key % 7 == flush % 7) {
            tiers_delete(db, "many", key);
        } else {
            tiers_put(db, "many", key, (uint8_t)(flush + 1));
        }
    }
    assert_int_equal(esker_flush(db), ESKER_OK);
}

/* Gets, many gets and walks both ways. */
static void
tiers_many_expect(esker_db *db, const esker_snapshot *snapshot, uint32_t flushes)
{
    static char keys[MANY_KEYS][24];
    static esker_slice slices[MANY_KEYS];
    static esker_value values[MANY_KEYS];
    static esker_status statuses[MANY_KEYS];
    esker_read_options options;
    esker_iter *it = NULL;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    for (uint32_t key = 0; key < MANY_KEYS; key++) {
        tiers_expect(db, snapshot, "many", key, tiers_many_byte(key, flushes));
        snprintf(keys[key], sizeof keys[key], "many%05u", key);
        slices[key] = esker_str(keys[key]);
    }
    assert_int_equal(esker_multi_get(db, MANY_KEYS, slices, &options, values, statuses), ESKER_OK);
    options.prefix = esker_str("many");
    assert_int_equal(esker_iter_create(db, &options, &it), ESKER_OK);
    esker_status status = esker_iter_first(it);
    for (uint32_t key = 0; key < MANY_KEYS; key++) {
        uint8_t byte = tiers_many_byte(key, flushes);
        assert_int_equal(statuses[key], byte != 0 ? ESKER_OK : ESKER_NOT_FOUND);
        if (byte == 0) {
            continue;
        }
        assert_int_equal(((const uint8_t *)values[key].data)[0], byte);
        esker_value_release(&values[key]);
        assert_int_equal(status, ESKER_OK);
        assert_memory_equal(esker_iter_key(it).data, keys[key], strlen(keys[key]));
        status = esker_iter_next(it);
    }
    assert_int_equal(status, ESKER_END);
    status = esker_iter_last(it);
    for (uint32_t key = MANY_KEYS; key-- > 0;) {
        if (tiers_many_byte(key, flushes) != 0) {
            assert_int_equal(status, ESKER_OK);
            assert_memory_equal(esker_iter_key(it).data, keys[key], strlen(keys[key]));
            status = esker_iter_prev(it);
        }
    }
    assert_int_equal(status, ESKER_END);
    for (uint32_t key = 0; key < MANY_KEYS; key += 11) {
        uint32_t next = key;
        while (next < MANY_KEYS && tiers_many_byte(next, flushes) == 0) {
            next++;
        }
        assert_int_equal(esker_iter_seek(it, slices[key]), next < MANY_KEYS ? ESKER_OK : ESKER_END);
        if (next < MANY_KEYS) {
            assert_memory_equal(esker_iter_key(it).data, keys[next], strlen(keys[next]));
        }
    }
    esker_iter_destroy(it);
}

static void
tiers__are_of_many_segments(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(9);
    esker_db *db = NULL;
    esker_snapshot *snapshot = NULL;
    tiers_open_with(disk, MERGES_LAZY, MANY_SEGMENT, true, &db);
    for (uint32_t key = 0; key < MANY_KEYS; key++) {
        tiers_put(db, "many", key, 1);
        for (uint32_t k = 0; k < 20; k++) { /* enough that level 0 does not go down */
            tiers_put(db, "other", key * 20 + k, 1);
        }
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    uint32_t flush = 0;
    while (flush < TIERS_FLUSHES) {
        tiers_many_flush(db, ++flush);
        if (flush == 5) {
            assert_int_equal(esker_snapshot_create(db, &snapshot), ESKER_OK);
        }
    }
    tiers_merge(db);
    const struct level_run *level0 = tiers_level(db, 0);
    assert_int_equal(level0->tier_count, 1);
    assert_true(level0->count >= 8);
    for (uint32_t i = 0; i < level0->count; i++) {
        assert_true(segment_meta(level0->segments[i])->size_bytes < 2 * MANY_SEGMENT);
    }
    tiers_many_expect(db, NULL, flush);
    tiers_many_expect(db, snapshot, 5);
    while (flush < 2 * TIERS_FLUSHES - 3) { /* over it, not enough for another merge */
        tiers_many_flush(db, ++flush);
    }
    tiers_merge(db);
    level0 = tiers_level(db, 0);
    assert_int_equal(level0->tier_count, TIERS_FLUSHES - 2);
    assert_true(level0->tier_end[level0->count - 1] - level0->tier_end[level0->tier_count - 2] >= 8);
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    assert_int_equal(stats.level_runs[0], level0->tier_count);
    tiers_many_expect(db, NULL, flush);
    tiers_many_expect(db, snapshot, 5);
    esker_snapshot_release(snapshot);
    for (int life = 0; life < 3; life++) { /* with threads, whose merges are cut into parts */
        assert_int_equal(esker_close(db), ESKER_OK);
        tiers_open_with(disk, MERGES_LAZY, MANY_SEGMENT, life == 0, &db);
        assert_true(life > 0 || tiers_level(db, 0)->tier_count == TIERS_FLUSHES - 2);
        tiers_many_expect(db, NULL, flush);
        for (uint32_t i = 0; i < 5; i++) {
            tiers_many_flush(db, ++flush);
        }
        tiers_many_expect(db, NULL, flush);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_null(tiers_level(db, 0));
    tiers_many_expect(db, NULL, flush);
    assert_int_equal(esker_close(db), ESKER_OK);
    struct io *io = NULL;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_verify_on(io, NULL, NULL), ESKER_OK);
    sim_disk_destroy(disk);
}

static struct picker_config
tiers_config(esker_db *db)
{
    mutex_lock(&db->mu);
    struct picker_config config = db_picker_config(db, load_acquire(&db->current)); /* pairs: CURRENT */
    mutex_unlock(&db->mu);
    return config;
}

/* More than writes at rest, and so many gets and walks; then a look. */
static struct picker_config
tiers_busy(struct sim_disk *disk, esker_db *db, uint32_t rows, uint32_t gets, uint32_t walks)
{
    for (uint32_t i = 0; i < rows; i++) {
        tiers_put(db, "busy", i, 1);
    }
    for (uint32_t i = 0; i < gets; i++) {
        tiers_expect(db, NULL, "busy", 1, 1);
    }
    for (uint32_t i = 0; i < walks; i++) {
        esker_iter *it = NULL;
        assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
        esker_iter_destroy(it);
    }
    sim_disk_advance(disk, DB_LOOK_NS);
    return tiers_config(db);
}

static void
tiers__their_number_follows_what_is_going_on(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(4);
    esker_db *db = NULL;
    tiers_open(disk, MERGES_AS_MEASURED, &db);
    assert_int_equal(tiers_config(db).l0_trigger, L0_TRIGGER);
    for (int round = 0; round < 2; round++) { /* there and back again */
        struct picker_config lazy = tiers_busy(disk, db, 500, 100, 0);
        assert_true(lazy.lazy);
        struct picker_config leveled = tiers_busy(disk, db, 500, 600, 0);
        assert_false(leveled.lazy);
        assert_true(leveled.l0_trigger < lazy.l0_trigger);
        assert_true(leveled.l0_eighths < lazy.l0_eighths);
        assert_false(tiers_busy(disk, db, 500, 0, 100).lazy); /* a walk costs more than a get */
        assert_true(tiers_busy(disk, db, 500, 0, 20).lazy);
        struct picker_config rest = tiers_busy(disk, db, 10, 0, 0);
        assert_int_equal(rest.l0_trigger, L0_TRIGGER);
        assert_true(rest.l0_bytes > 0);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* Merges of large rows cost bytes; a tier more costs a get the same whatever its rows' size. */
static void
tiers__are_more_where_rows_are_large(void **state)
{
    (void)state;

    enum { LARGE_VALUE = 20 << 10, LARGE_ROWS = 40 };

    struct sim_disk *disk = sim_disk_create(6);
    esker_db *db = NULL;
    tiers_open(disk, MERGES_AS_MEASURED, &db);
    uint8_t *value = calloc(1, LARGE_VALUE);
    assert_non_null(value);
    (void)tiers_config(db); /* a look */
    uint32_t lazy = tiers_busy(disk, db, 500, 0, 0).l0_trigger;
    assert_true(lazy > L0_TRIGGER);
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(tiers_busy(disk, db, 500, 0, 0).l0_trigger, lazy); /* of small rows */
    for (uint8_t i = 0; i < LARGE_ROWS; i++) {
        assert_int_equal(esker_put(db, esker_bytes(&i, 1), esker_bytes(value, LARGE_VALUE), NULL), ESKER_OK);
    }
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(tiers_busy(disk, db, 500, 0, 0).l0_trigger, lazy); /* 1,000 small ones count, too */
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);          /* level 0 is empty */
    for (uint8_t i = 0; i < LARGE_ROWS; i++) {
        assert_int_equal(esker_put(db, esker_bytes(&i, 1), esker_bytes(value, LARGE_VALUE), NULL), ESKER_OK);
    }
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_true(tiers_busy(disk, db, 500, 0, 0).l0_trigger > lazy);
    assert_int_equal(tiers_busy(disk, db, 10, 0, 0).l0_trigger, L0_TRIGGER); /* not where writes rest */
    free(value);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* A burst need not wait for the next look to be seen. */
static void
tiers__a_filled_window_is_a_writer(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(7);
    esker_db *db = NULL;
    tiers_open(disk, MERGES_AS_MEASURED, &db);
    (void)tiers_config(db); /* a look */
    mutex_lock(&db->mu);
    db_plan_note_filled_locked(db, 100 * (uint64_t)DB_LOOK_NS);
    mutex_unlock(&db->mu);
    assert_int_equal(tiers_config(db).l0_trigger, L0_TRIGGER);
    for (uint32_t i = 0; i < 7000; i++) { /* more than a window */
        tiers_put(db, "busy", i, 1);
    }
    assert_true(tiers_config(db).l0_trigger > L0_TRIGGER);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

static void
tiers__any_policy_goes_on_with_the_tree_of_another(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(5);
    uint8_t byte = 0;
    for (uint32_t round = 0; round < 9; round++) { /* each after each */
        esker_db *db = NULL;
        tiers_open(disk, (enum merge_policy)(MERGES_AT_REST + (round * (round / 3 + 1)) % 3), &db);
        for (uint32_t i = 0; i < 200 && byte > 0; i++) {
            tiers_expect(db, NULL, "all", i, i % 7 == byte % 7 ? 0 : byte);
        }
        for (uint32_t flush = 0; flush < TIERS_FLUSHES + 2; flush++) {
            byte++;
            for (uint32_t i = 0; i < 200; i++) {
                if (i % 7 == byte % 7) {
                    tiers_delete(db, "all", i);
                } else {
                    tiers_put(db, "all", i, byte);
                }
            }
            assert_int_equal(esker_flush(db), ESKER_OK);
        }
        tiers_merge(db);
        assert_int_equal(esker_close(db), ESKER_OK);
    }
    sim_disk_destroy(disk);
}

/* What has expired goes from around tiers that are being merged: nothing moves past them. */
static void
tiers__may_be_dropped_around_those_that_are_merged(void **state)
{
    (void)state;
    static struct compaction_plan around = {.input_count = 2, .inputs = {0, 2}};
    static struct compaction_plan between = {.input_count = 1, .inputs = {1}};
    struct sim_disk *disk = sim_disk_create(9);
    esker_db *db = NULL;
    tiers_open(disk, MERGES_LEVELED, &db);
    for (uint32_t flush = 0; flush < 3; flush++) {
        tiers_put(db, "key", flush, 1);
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    struct version *version = load_acquire(&db->current); /* pairs: CURRENT — one thread */
    assert_int_equal(tiers_level(db, 0)->count, 3);
    uint64_t ids[3];
    for (uint32_t i = 0; i < 3; i++) {
        ids[i] = segment_meta(tiers_level(db, 0)->segments[i])->id;
    }
    struct compact_run merge = {
        .db = db, .version = version, .plan = &between, .drop_ids = &ids[1], .drop_count = 1};
    struct compact_run drop = {.db = db,
                               .version = version,
                               .plan = &around,
                               .drop_ids = (uint64_t[]){ids[0], ids[2]},
                               .drop_count = 2};
    db->compact_runs = &merge;
    assert_false(compact_is_apart_locked(&drop)); /* merged with one another they would pass it */
    around.drop = true;
    assert_true(compact_is_apart_locked(&drop));
    merge.drop_ids = &ids[2];
    assert_false(compact_is_apart_locked(&drop)); /* one is read by both */
    db->compact_runs = NULL;
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiers__of_level_0_are_merged_with_one_another),
        cmocka_unit_test(tiers__are_of_many_segments),
        cmocka_unit_test(tiers__come_before_the_rest_of_a_merge_that_goes_down),
        cmocka_unit_test(tiers__that_fail_do_not_stop_the_merge_that_was_set_aside),
        cmocka_unit_test(tiers__their_number_follows_what_is_going_on),
        cmocka_unit_test(tiers__are_more_where_rows_are_large),
        cmocka_unit_test(tiers__a_filled_window_is_a_writer),
        cmocka_unit_test(tiers__any_policy_goes_on_with_the_tree_of_another),
        cmocka_unit_test(tiers__may_be_dropped_around_those_that_are_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
