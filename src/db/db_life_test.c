/* SPDX-License-Identifier: MIT */
/*
 * Goal: corners of a database's lives: what one life leaves behind (seals, half
 * full logs, deletes that left no row, crash after crash) the next one reads
 * right, and what goes wrong in between is told in the words of the contract.
 * Method: the simulated disk, single threaded, windows of a few KiB.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "db/db.h"
#include "io/io_sim.h"

static const struct db_tuning life_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384};

static esker_status
life_try_open(struct sim_disk *disk, int durability, esker_db **out)
{
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = durability;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return db_open_on(io, &options, &life_tuning, true, out);
}

static esker_db *
life_open(struct sim_disk *disk)
{
    esker_db *db = NULL;
    assert_int_equal(life_try_open(disk, ESKER_DURABLE_PROCESS, &db), ESKER_OK);
    return db;
}

static void
life_put(esker_db *db, const char *key, size_t size)
{
    static const uint8_t zeros[8192];
    assert_true(size <= sizeof zeros);
    assert_int_equal(esker_put(db, esker_str(key), esker_bytes(zeros, size), NULL), ESKER_OK);
}

static bool
life_has(esker_db *db, const char *key)
{
    size_t size = 0;
    esker_status status = esker_get_copy(db, esker_str(key), NULL, NULL, 0, &size);
    assert_true(status == ESKER_OK || status == ESKER_TRUNCATED || status == ESKER_NOT_FOUND);
    return status != ESKER_NOT_FOUND;
}

/* The process dies, and with it the handle. */
static void
life_crash(struct sim_disk *disk, esker_db *db, enum sim_crash mode)
{
    sim_disk_crash(disk, mode, 1);
    (void)esker_close(db);
}

static void
life_run_jobs(int most)
{
    while (most-- > 0 && workers_run_one()) {
    }
}

static esker_write_options
life_sync(void)
{
    esker_write_options options;
    esker_write_options_init(&options);
    options.durability = ESKER_DURABLE_SYNC;
    return options;
}

/* ---- Seals ------------------------------------------------------------------------ */

static void
seal__is_continued_however_little_room_is_behind_it(void **state)
{
    (void)state;
    for (size_t size = 3700; size < 4096; size += 8) {
        struct sim_disk *disk = sim_disk_create(size);
        esker_db *db = life_open(disk);
        life_put(db, "first", 1300);
        life_put(db, "first", 1300);
        life_put(db, "second", size - 2700);
        assert_int_equal(esker_close(db), ESKER_OK);
        db = life_open(disk);
        life_put(db, "third", 10);
        life_crash(disk, db, SIM_CRASH_KILL);
        db = life_open(disk);
        assert_true(life_has(db, "first") && life_has(db, "second") && life_has(db, "third"));
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* The process dies at the nth change that close makes; the next one goes on
 * writing, and then the power goes. */
static bool
die_in_close_and_lose_power(uint64_t nth, int puts, size_t last_size, int writes, int jobs)
{
    struct sim_disk *disk = sim_disk_create(nth);
    esker_db *db = life_open(disk);
    for (int i = 1; i < puts; i++) {
        life_put(db, "first", 1300);
    }
    life_put(db, "first", last_size);
    sim_disk_crash_at(disk, nth);
    bool died = esker_close(db) != ESKER_OK;
    sim_disk_crash(disk, SIM_CRASH_KILL, nth);
    db = life_open(disk);
    for (int i = 0; i < writes; i++) {
        life_put(db, "second", 1000);
    }
    life_run_jobs(jobs); /* the next log is begun, with what its header proves */
    life_crash(disk, db, SIM_CRASH_POWER_NONE);
    db = life_open(disk);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
    return died;
}

static void
seal__that_never_reached_the_disk_is_not_called_durable(void **state)
{
    (void)state;
    uint64_t nth = 1;
    while (die_in_close_and_lose_power(nth, 1, 100, 2, 20)) {
        nth++;
    }
    assert_in_range(nth, 2, 100);
}

/* Sizes from "room for a REOPEN behind the SEAL" to "no room for the SEAL". */
static void
seal__without_room_behind_it_is_not_called_durable_either(void **state)
{
    (void)state;
    for (size_t size = 1180; size < 1396; size += 8) {
        uint64_t nth = 1;
        while (die_in_close_and_lose_power(nth, 3, size, 6, 0)) {
            nth++;
        }
        assert_in_range(nth, 2, 100);
    }
}

/* ---- History ------------------------------------------------------------------------ */

static void
history__that_left_no_row_is_still_history_after_reopen(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = life_open(disk);
    life_put(db, "key", 10);
    life_put(db, "other", 10);
    esker_lsn with_key = esker_visible_lsn(db);
    assert_int_equal(esker_delete(db, esker_str("key"), NULL), ESKER_OK);
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);

    db = life_open(disk);
    esker_snapshot *snapshot = NULL;
    assert_int_equal(esker_snapshot_create_at(db, with_key, &snapshot), ESKER_NOT_FOUND);
    esker_batch *batch = NULL;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_require(batch, esker_str("key"), with_key), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("key"), esker_str("mine")), ESKER_OK);
    assert_int_equal(esker_write(db, batch, NULL, NULL), ESKER_CONFLICT);
    esker_batch_destroy(batch);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Crash after crash ----------------------------------------------------------------- */

static void
crashes__may_follow_one_another_faster_than_flushes(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    char key[16];
    for (int life = 0; life < 150; life++) {
        esker_db *db = life_open(disk);
        snprintf(key, sizeof key, "%d", life);
        life_put(db, key, 10);
        life_crash(disk, db, SIM_CRASH_KILL);
    }
    esker_db *db = life_open(disk);
    for (int life = 0; life < 150; life++) {
        snprintf(key, sizeof key, "%d", life);
        assert_true(life_has(db, key));
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Words ------------------------------------------------------------------------------- */

static void
flush__of_a_database_that_is_poisoned_meanwhile_ends(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = NULL;
    assert_int_equal(life_try_open(disk, ESKER_DURABLE_INTERVAL, &db), ESKER_OK);
    struct sim_fault log_sync = {.kind = SIM_SYNC, .nth = 1, .err = EIO, .prefix = "log-000001"};
    life_put(db, "key", 100);
    sim_disk_add_fault(disk, &log_sync);
    job_kick(&db->sync_job); /* runs, and fails, when the flush first waits: for a log to go on with */
    assert_true(esker_flush(db) < 0);
    assert_true(esker_close(db) < 0);
    sim_disk_destroy(disk);
}

static void
write__that_is_visible_but_not_durable_is_not_denied(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = life_open(disk);
    life_put(db, "old", 100);
    life_crash(disk, db, SIM_CRASH_KILL);
    db = life_open(disk); /* "old" becomes durable by a flush only */
    struct sim_fault full = {.kind = SIM_WRITE, .nth = 1, .err = ENOSPC, .sticky = true, .prefix = "0"};
    sim_disk_add_fault(disk, &full);
    esker_write_options sync = life_sync();
    esker_status status = esker_put(db, esker_str("new"), esker_str("value"), &sync);
    assert_true(status < 0);
    if (status != ESKER_IO && status != ESKER_POISONED) {
        assert_false(life_has(db, "new"));
    }
    sim_disk_heal(disk);
    assert_int_equal(esker_sync(db), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

static void
wait_durable__takes_any_timeout(void **state)
{
    (void)state;
    static const int64_t timeouts[] = {INT64_MAX, INT64_MAX / 2, 18446744073709, 18446744073710, -1, -2};
    for (size_t i = 0; i < COUNTOF(timeouts); i++) {
        struct sim_disk *disk = sim_disk_create(1);
        esker_db *db = life_open(disk);
        life_put(db, "old", 100);
        life_crash(disk, db, SIM_CRASH_KILL);
        db = life_open(disk);
        assert_int_equal(esker_wait_durable(db, esker_visible_lsn(db), timeouts[i]), ESKER_OK);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* ---- Merges that fail --------------------------------------------------------------------- */

static size_t
life_count_segments(struct sim_disk *disk)
{
    struct sim_file_info files[256];
    size_t count = sim_disk_files(disk, files, COUNTOF(files));
    size_t segments = 0;
    assert_true(count <= COUNTOF(files));
    for (size_t i = 0; i < count; i++) {
        segments += strstr(files[i].name, ".seg") != NULL;
    }
    return segments;
}

static void
merge__that_meets_damage_does_not_stop_writers(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = life_open(disk);
    for (int i = 0; i < 3; i++) {
        life_put(db, "key", 1000);
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    struct sim_file_info files[64];
    size_t count = sim_disk_files(disk, files, COUNTOF(files));
    for (size_t i = 0; i < count; i++) {
        if (strstr(files[i].name, ".seg") != NULL) {
            sim_disk_flip(disk, files[i].name, 8 * 200);
        }
    }
    char key[16];
    for (int i = 0; i < 60; i++) { /* merges become due and fail; level 0 is far from full */
        snprintf(key, sizeof key, "new%d", i);
        esker_status status = esker_put(db, esker_str(key), esker_str("value"), NULL);
        if (status == ESKER_OK && i % 5 == 4) {
            status = esker_flush(db);
        }
        assert_int_equal(status, ESKER_OK);
        life_run_jobs(3);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

static void
flush__that_cannot_be_installed_leaves_no_files_behind(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = life_open(disk);
    life_put(db, "key", 100);
    struct sim_fault broken = {.kind = SIM_WRITE, .nth = 2, .err = EIO, .sticky = true, .prefix = "manifest"};
    sim_disk_add_fault(disk, &broken);
    for (int i = 0; i < 20; i++) {
        (void)!esker_flush(db);
    }
    assert_in_range(life_count_segments(disk), 0, 1);
    sim_disk_heal(disk);
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_true(life_has(db, "key"));
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* Only the sync of the edit failed, and of every manifest that could replace it: the next life may
 * read the edit, so what it names must be there. */
static void
flush__whose_edit_may_be_on_disk_keeps_its_segment(void **state)
{
    (void)state;
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        struct sim_disk *disk = sim_disk_create(nth);
        esker_db *db = life_open(disk);
        life_put(db, "key", 100);
        struct sim_fault broken = {
            .kind = SIM_SYNC, .nth = nth, .err = EIO, .sticky = true, .prefix = "manifest"};
        sim_disk_add_fault(disk, &broken);
        failed = esker_flush(db) < 0;
        assert_true(failed || nth > 1);
        life_crash(disk, db, SIM_CRASH_KILL);
        sim_disk_heal(disk);
        db = life_open(disk);
        assert_true(life_has(db, "key"));
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* ---- Names --------------------------------------------------------------------------------- */

static void
strangers__with_great_numbers_are_left_alone(void **state)
{
    (void)state;
    static const char *const names[] = {
        "fffffffffffffff0.seg",     "ffffffffffffffff.seg",  "0100000000000000.seg",
        "00ffffffffffffff.seg",     "0040000000000000.seg",  "0080000000000000.seg",
        "log-18446744073709551615", "log-72057594037927936", "manifest-ffffffffffffffff"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        struct sim_disk *disk = sim_disk_create(1);
        esker_db *db = life_open(disk);
        life_put(db, "key", 10);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_put(disk, names[i], bytes_make("not esker's", 11));
        for (int life = 0; life < 2; life++) {
            db = life_open(disk);
            life_put(db, "key", 10);
            assert_int_equal(esker_flush(db), ESKER_OK);
            assert_int_equal(esker_close(db), ESKER_OK);
        }
        assert_true(sim_disk_exists(disk, names[i]));
        sim_disk_destroy(disk);
    }
}

/* A power cut takes every trace of what was written after a clean close but the REOPEN frame. */
static void
lsn__of_writes_lost_after_a_clean_close_is_not_given_out_again(void **state)
{
    (void)state;
    static const int levels[] = {ESKER_DURABLE_PROCESS, ESKER_DURABLE_MEMORY};
    for (size_t i = 0; i < COUNTOF(levels); i++) {
        struct sim_disk *disk = sim_disk_create(1);
        esker_db *db = NULL;
        assert_int_equal(life_try_open(disk, levels[i], &db), ESKER_OK);
        life_put(db, "a", 10);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_reboot(disk);
        assert_int_equal(life_try_open(disk, levels[i], &db), ESKER_OK);
        life_put(db, "b", 10);
        esker_lsn seen = esker_visible_lsn(db);
        sim_disk_crash(disk, SIM_CRASH_POWER_NONE, 0);
        (void)!esker_close(db);
        assert_int_equal(life_try_open(disk, levels[i], &db), ESKER_OK);
        assert_false(life_has(db, "b"));
        assert_true(esker_visible_lsn(db) >= seen);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* A log whose header is durable and whose frames are not, larger than the step in which bases go up. */
static void
lsn__of_writes_lost_by_a_power_cut_is_not_given_out_again(void **state)
{
    (void)state;
    for (int puts = 1; puts <= 24; puts++) {
        struct sim_disk *disk = sim_disk_create(1);
        esker_db *db = life_open(disk);
        for (int i = 0; i < puts; i++) {
            life_put(db, "a", 900);
        }
        esker_lsn seen = esker_visible_lsn(db);
        life_crash(disk, db, SIM_CRASH_POWER_NONE);
        db = life_open(disk);
        assert_true(esker_visible_lsn(db) >= seen);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seal__is_continued_however_little_room_is_behind_it),
        cmocka_unit_test(seal__that_never_reached_the_disk_is_not_called_durable),
        cmocka_unit_test(seal__without_room_behind_it_is_not_called_durable_either),
        cmocka_unit_test(history__that_left_no_row_is_still_history_after_reopen),
        cmocka_unit_test(crashes__may_follow_one_another_faster_than_flushes),
        cmocka_unit_test(flush__of_a_database_that_is_poisoned_meanwhile_ends),
        cmocka_unit_test(write__that_is_visible_but_not_durable_is_not_denied),
        cmocka_unit_test(wait_durable__takes_any_timeout),
        cmocka_unit_test(merge__that_meets_damage_does_not_stop_writers),
        cmocka_unit_test(flush__that_cannot_be_installed_leaves_no_files_behind),
        cmocka_unit_test(flush__whose_edit_may_be_on_disk_keeps_its_segment),
        cmocka_unit_test(lsn__of_writes_lost_after_a_clean_close_is_not_given_out_again),
        cmocka_unit_test(lsn__of_writes_lost_by_a_power_cut_is_not_given_out_again),
        cmocka_unit_test(strangers__with_great_numbers_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
