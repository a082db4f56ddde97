/* SPDX-License-Identifier: MIT */
/*
 * Goal: a conditional batch may be as large as any other, and is whole or
 * nothing at its own place in the order.
 * Method: batches beyond a quarter of a window, one with a requirement that does
 * not hold; then threads that count up one key with such batches, each from
 * what it read, beside plain writers: no count is lost; and the look that a batch takes at
 * its turn at a key that nobody has, when a flush has ended since its first look.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "db/db.h"

enum { PIECES = 3, PIECE_BYTES = 500 << 10, COUNTERS = 3, COUNTS = 12 };

static esker_db *db;
static const uint8_t piece[PIECE_BYTES];
static _Atomic uint32_t conflicts;

/* The counter set to `count`, and much else beside it, if nobody changed it since. */
static esker_status
write_large(uint64_t count, esker_lsn since, uint32_t who, esker_lsn *lsn_out)
{
    esker_batch *batch = NULL;
    uint8_t number[8];
    le64_store(number, count);
    esker_status status = esker_batch_create(&batch);
    for (uint32_t i = 0; status == ESKER_OK && i < PIECES; i++) {
        char name[24];
        snprintf(name, sizeof name, "piece%u-%u", who, i);
        status = esker_batch_put(batch, esker_str(name), esker_bytes(piece, PIECE_BYTES));
    }
    if (status == ESKER_OK) {
        status = esker_batch_put(batch, esker_str("counter"), esker_bytes(number, sizeof number));
    }
    if (status == ESKER_OK) {
        status = esker_batch_require(batch, esker_str("counter"), since);
    }
    if (status == ESKER_OK) {
        status = esker_write(db, batch, NULL, lsn_out);
    }
    esker_batch_destroy(batch);
    return status;
}

static void
conditional_open(char *path)
{
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    assert_non_null(mkdtemp(path));
    assert_int_equal(esker_open(path, &options, &db), ESKER_OK);
    assert_true(PIECES * PIECE_BYTES > db->window_bytes_max / 4);
}

static bool
conditional_has(const char *key)
{
    esker_value value = {0};
    esker_status status = esker_get(db, esker_str(key), NULL, &value);
    esker_value_release(&value);
    return status == ESKER_OK;
}

static void
large__is_whole_or_nothing(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-conditional-XXXXXX";
    esker_lsn lsn = 0;
    esker_lsn untouched = 77;
    conditional_open(path);
    assert_int_equal(write_large(1, 0, 1, &lsn), ESKER_OK);
    assert_true(conditional_has("piece1-0") && conditional_has("piece1-2"));
    assert_int_equal(write_large(2, lsn - 1, 2, &untouched),
                     ESKER_OK); /* the counter is not the last word of the batch before */
    untouched = 77;
    assert_int_equal(write_large(3, lsn, 3, &untouched), ESKER_CONFLICT);
    assert_true(untouched == 77);
    assert_false(conditional_has("piece3-0") || conditional_has("piece3-2"));
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_open(path, NULL, &db), ESKER_OK);
    assert_true(conditional_has("piece2-2") && !conditional_has("piece3-0"));
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_verify(path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

/* Its window ends with a PAD: where that stays out of sight nobody flushes the window, and those who
 * have to wait for a flush before they can write wait for ever. */
static void
large__leaves_nothing_out_of_sight(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-conditional-XXXXXX";
    conditional_open(path);
    for (uint32_t i = 0; i < 4; i++) {
        esker_lsn lsn = 0;
        assert_int_equal(write_large(i, i == 0 ? 0 : esker_visible_lsn(db), 1, &lsn), ESKER_OK);
        struct version *version = db_current_ref(db, thread_state_get());
        assert_true(lsn < version->windows[0]->end_lsn); /* there is a PAD */
        assert_true(esker_visible_lsn(db) == version->windows[0]->end_lsn);
        version_unref(version);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

/* ---- Keys that nobody has ---------------------------------------------------------- */

/* As a batch's second look: the first one saw no version below `seen`. */
static bool
absent_has_changed(esker_lsn asked, esker_lsn seen)
{
    bool changed = false;
    struct version *version = db_current_ref(db, thread_state_get());
    assert_int_equal(db_changed_since(db, version, bytes_of_slice(esker_str("nobody")), asked, seen,
                                      esker_visible_lsn(db), &changed),
                     ESKER_OK);
    version_unref(version);
    return changed;
}

/* A flush ends between a batch's first look and its turn, and no history is kept since the first. */
static void
absent__stays_absent_beside_a_flush(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-conditional-XXXXXX";
    esker_snapshot *snapshot = NULL;
    conditional_open(path);
    assert_int_equal(esker_put(db, esker_str("a"), esker_str("1"), NULL), ESKER_OK);
    assert_int_equal(esker_snapshot_create(db, &snapshot), ESKER_OK);
    esker_lsn asked = esker_snapshot_lsn(snapshot);
    assert_int_equal(esker_put(db, esker_str("a"), esker_str("2"), NULL), ESKER_OK);
    esker_lsn seen = esker_visible_lsn(db);
    assert_int_equal(esker_put(db, esker_str("a"), esker_str("3"), NULL), ESKER_OK);
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_false(absent_has_changed(0, seen));
    assert_false(absent_has_changed(asked, seen));
    assert_true(absent_has_changed(asked + 1, seen)); /* nobody knows */
    esker_snapshot_release(snapshot);
    assert_true(absent_has_changed(asked, seen));
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

/* ---- Counting ---------------------------------------------------------------------- */

static uint64_t
counter_at(esker_lsn *since)
{
    esker_snapshot *snapshot = NULL;
    esker_read_options read;
    uint8_t number[8] = {0};
    size_t size = 0;
    esker_read_options_init(&read);
    if (esker_snapshot_create(db, &snapshot) != ESKER_OK) {
        abort();
    }
    read.snapshot = snapshot;
    *since = esker_snapshot_lsn(snapshot);
    if (esker_get_copy(db, esker_str("counter"), &read, number, sizeof number, &size) < 0) {
        abort();
    }
    esker_snapshot_release(snapshot);
    return le64_load(number);
}

static void *
count_main(void *arg)
{
    uint32_t who = (uint32_t)(uintptr_t)arg;
    for (uint32_t done = 0; done < COUNTS;) {
        esker_lsn since = 0;
        uint64_t count = counter_at(&since);
        esker_status status = write_large(count + 1, since, who, NULL);
        if (status != ESKER_OK && status != ESKER_CONFLICT) {
            abort();
        }
        done += status == ESKER_OK ? 1 : 0;
        add_relaxed(&conflicts, status == ESKER_OK ? 0U : 1U); /* relaxed: statistic */
        if (esker_put(db, esker_str("plain"), esker_str("value"), NULL) != ESKER_OK) {
            abort();
        }
    }
    return NULL;
}

static void
large__counts_are_not_lost(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-conditional-XXXXXX";
    pthread_t threads[COUNTERS];
    esker_lsn since = 0;
    conditional_open(path);
    for (uintptr_t i = 0; i < COUNTERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_main, (void *)i), 0);
    }
    for (uint32_t i = 0; i < COUNTERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(counter_at(&since) == COUNTERS * COUNTS);
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_verify(path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
    printf("%u conflicts\n", load_relaxed(&conflicts)); /* relaxed: joined */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large__is_whole_or_nothing),
        cmocka_unit_test(large__leaves_nothing_out_of_sight),
        cmocka_unit_test(absent__stays_absent_beside_a_flush),
        cmocka_unit_test(large__counts_are_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
