/* SPDX-License-Identifier: MIT */
/*
 * Goal: failed background work is tried again after growing pauses, and at once
 * when a full disk has room; damage is told as long as it is in the tree, whatever
 * succeeds elsewhere; and writes that only a merge of damaged segments could make
 * room for get an answer instead of waiting for ever.
 * Method: tiny windows on simulated disks, with and without threads; one bit of one
 * segment of level 0 is flipped, and flipped back.
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

enum { RETRY_PUTS_MOST = 20000, RETRY_VALUE_BYTES = 600 };

struct retry_fixture {
    struct sim_disk *disk;
    esker_db *db;
    uint32_t puts;
    bool tiers; /* can be merged with one another */
};

static void
retry_open(struct retry_fixture *f, bool manual)
{
    struct db_tuning tuning = {.tier_bytes = f->tiers ? 0 : 1, /* too little for any two */
                               .window_bytes_first = 4096,
                               .window_bytes_max = 4096,
                               .segment_bytes = 16384};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, manual, &f->db), ESKER_OK);
}

/* Keys that come again, so that all segments overlap. */
static esker_status
retry_put(struct retry_fixture *f)
{
    char key[16];
    uint8_t value[RETRY_VALUE_BYTES];
    snprintf(key, sizeof key, "key%04u", f->puts * 7 % 100);
    memset(value, (int)(f->puts % 251), sizeof value);
    f->puts++;
    return esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL);
}

static const struct level_run *
retry_level0(const struct retry_fixture *f)
{
    return load_acquire(&f->db->current)->levels[0]; /* pairs: CURRENT */
}

/* Three segments in level 0, one fewer than a merge needs; *id_out: the oldest's,
 * or with newest the newest's. */
static void
retry_create(struct retry_fixture *f, bool newest, uint64_t *id_out)
{
    *f = (struct retry_fixture){.disk = sim_disk_create(5)};
    retry_open(f, true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(retry_put(f), ESKER_OK);
        assert_int_equal(retry_put(f), ESKER_OK);
        assert_int_equal(esker_flush(f->db), ESKER_OK);
    }
    assert_int_equal(retry_level0(f)->count, 3);
    *id_out = segment_meta(retry_level0(f)->segments[newest ? 0 : 2])->id;
    assert_int_equal(esker_close(f->db), ESKER_OK);
}

static void
retry_destroy(struct retry_fixture *f)
{
    assert_int_equal(esker_close(f->db), ESKER_OK);
    sim_disk_destroy(f->disk);
}

static void
retry_flip(struct retry_fixture *f, uint64_t id)
{
    char name[40];
    segment_file_name(id, name);
    sim_disk_flip(f->disk, name, 8 * 100 + 3);
}

/* Until writes are refused. */
static esker_status
retry_fill(struct retry_fixture *f)
{
    esker_status status = ESKER_OK;
    for (uint32_t i = 0; status == ESKER_OK && i < RETRY_PUTS_MOST; i++) {
        status = retry_put(f);
    }
    return status;
}

static void
retry_expect_damage(struct retry_fixture *f, esker_status status, uint64_t id)
{
    char name[40];
    segment_file_name(id, name);
    assert_int_equal(status, ESKER_CORRUPT);
    assert_string_equal(status_last()->file, name);
    assert_true(retry_level0(f)->count >= L0_STALL);
    assert_int_equal(f->db->damaged_count, 1);
}

static void
retry_answers_writers(bool manual)
{
    struct retry_fixture f;
    uint64_t id;
    retry_create(&f, false, &id);
    retry_flip(&f, id);
    retry_open(&f, manual);
    retry_expect_damage(&f, retry_fill(&f), id);
    /* What succeeds elsewhere, and calls that ask anew, do not make it forgotten. */
    db_background_ok(f.db, &f.db->compact_jobs[0].job);
    retry_expect_damage(&f, retry_fill(&f), id);
    assert_int_equal(esker_compact(f.db, NULL, NULL), ESKER_CORRUPT);
    retry_expect_damage(&f, retry_fill(&f), id);
    /* It was the disk's mistake, and a merge that reads all gets through: as if nothing had been. */
    retry_flip(&f, id);
    assert_int_equal(esker_compact(f.db, NULL, NULL), ESKER_OK);
    assert_int_equal(f.db->damaged_count, 0);
    assert_int_equal(f.db->damage.status, ESKER_OK);
    for (int i = 0; i < 500; i++) {
        assert_int_equal(retry_put(&f), ESKER_OK);
    }
    retry_destroy(&f);
}

static void
damage__answers_writers_without_threads(void **state)
{
    (void)state;
    retry_answers_writers(true);
}

static void
damage__answers_writers_with_threads(void **state)
{
    (void)state;
    retry_answers_writers(false);
}

/* Level 0 is full, the window too, and no merge will make room: close ends all the same, without a
 * seal, and nothing is lost. stuck: it is known why; else it looks as if merges would get through. */
static void
retry_closes(bool manual, bool stuck)
{
    struct retry_fixture f;
    uint64_t id;
    retry_create(&f, false, &id);
    retry_flip(&f, id);
    retry_open(&f, manual);
    retry_expect_damage(&f, retry_fill(&f), id);
    if (!stuck) {
        mutex_lock(&f.db->mu);
        f.db->level0_stuck = false;
        f.db->merge_failure = (esker_error){0};
        mutex_unlock(&f.db->mu);
    }
    assert_int_equal(esker_close(f.db), ESKER_OK);
    retry_flip(&f, id);
    uint32_t puts = f.puts - 1; /* the last one was refused */
    retry_open(&f, true);
    for (uint32_t i = puts - 100; i < puts; i++) {
        char key[16];
        uint8_t value[RETRY_VALUE_BYTES];
        size_t size = 0;
        snprintf(key, sizeof key, "key%04u", i * 7 % 100);
        assert_int_equal(esker_get_copy(f.db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
        assert_int_equal(value[0], i % 251);
    }
    retry_destroy(&f);
}

static void
close__ends_although_level_0_is_full(void **state)
{
    (void)state;
    retry_closes(true, true);
    retry_closes(true, false);
    retry_closes(false, true);
}

/* What is older than the damage can be merged, and is. */
static void
damage__keeps_only_what_is_newer(void **state)
{
    (void)state;
    struct retry_fixture f;
    uint64_t id;
    retry_create(&f, true, &id);
    retry_flip(&f, id);
    retry_open(&f, true);
    assert_int_equal(retry_put(&f), ESKER_OK);
    assert_int_equal(esker_flush(f.db), ESKER_OK);
    for (int i = 0; i < 100; i++) {
        db_kick_compaction(f.db); /* as a timer does after a failure */
        (void)workers_run_one();
    }
    assert_int_equal(retry_level0(&f)->count, 2);
    assert_int_equal(segment_meta(retry_level0(&f)->segments[1])->id, id);
    assert_int_equal(f.db->damage.status, ESKER_CORRUPT);
    retry_destroy(&f);
}

/* What is newer than the damage stays in level 0, but its tiers are merged: writes go on. */
static void
damage__does_not_keep_tiers_apart(void **state)
{
    (void)state;
    for (int manual = 0; manual < 2; manual++) {
        struct retry_fixture f;
        uint64_t id;
        retry_create(&f, false, &id);
        retry_flip(&f, id);
        f.tiers = true;
        retry_open(&f, manual != 0);
        for (int i = 0; i < 2000; i++) { /* 300 windows: more tiers than there may be */
            assert_int_equal(retry_put(&f), ESKER_OK);
        }
        assert_int_equal(f.db->damaged_count, 1);
        assert_true(retry_level0(&f)->count <= L0_STALL);
        retry_flip(&f, id);
        assert_int_equal(esker_compact(f.db, NULL, NULL), ESKER_OK);
        assert_null(retry_level0(&f));
        retry_destroy(&f);
    }
}

static void
retry__pauses_grow_until_something_succeeds(void **state)
{
    (void)state;
    struct retry_fixture f;
    uint64_t id;
    uint64_t last_ns = 0;
    retry_create(&f, false, &id);
    retry_open(&f, true);
    struct job *job = &f.db->compact_jobs[0].job;
    for (int i = 0; i < 10; i++) {
        IGNORE_STATUS(FAIL(ESKER_IO, "a merge failed"), "it is the story");
        db_background_failed(f.db, job, db_background_begin(f.db));
        uint64_t due_ns = f.db->merge_retry.due_ns;
        uint64_t pause_ns = due_ns - io_monotonic_ns(f.db->io);
        assert_true(i == 0 || i > 6 || pause_ns > last_ns + last_ns / 2);
        last_ns = pause_ns;
        /* Its fellows' failures within the pause are the same one. */
        IGNORE_STATUS(FAIL(ESKER_IO, "a merge failed"), "it is the story");
        db_background_failed(f.db, job, db_background_begin(f.db));
        assert_int_equal(f.db->merge_retry.due_ns, due_ns);
        sim_disk_advance(f.disk, pause_ns);
    }
    assert_in_range(last_ns, 1, 10000000000);
    assert_int_equal(f.db->merge_retry.failures, 10);
    db_background_ok(f.db, job);
    assert_int_equal(f.db->merge_retry.failures, 0);
    assert_int_equal(f.db->merge_failure.status, ESKER_OK);
    retry_destroy(&f);
}

/* The pause is over. Of threads the clock is the timers', which a test does not wait for. */
static void
retry_pass(struct retry_fixture *f, struct db_retry *retry, uint64_t due_ns)
{
    if (f->db->manual) {
        sim_disk_advance(f->disk, due_ns - io_monotonic_ns(f->db->io));
        return;
    }
    mutex_lock(&f->db->mu);
    retry->due_ns = 0;
    mutex_unlock(&f->db->mu);
}

/* Goal: a short want of descriptors is nobody's answer, a lasting one is, and no pause is missed.
 * Method: failures of a merge and of a flush, one per pause, of a database with threads that has
 * nothing to do and of one without. */
static void
retry__short_descriptors_are_told_when_they_stay_short(void **state)
{
    (void)state;
    for (int manual = 0; manual < 2; manual++) {
        struct retry_fixture f;
        uint64_t id;
        uint64_t left_ns = 0;
        retry_create(&f, false, &id);
        retry_open(&f, manual != 0);
        mutex_lock(&f.db->mu);
        f.db->manual_compactions++; /* the background's own merges would end the pauses */
        mutex_unlock(&f.db->mu);
        struct job *jobs[] = {&f.db->compact_jobs[0].job, &f.db->flush_job};
        for (int at = 0; at < 2; at++) {
            esker_error *told = at == 0 ? &f.db->merge_failure : &f.db->background;
            for (int i = 0; i < 5; i++) {
                IGNORE_STATUS(FAIL_OS(i % 2 == 0 ? EMFILE : ENFILE, "x", 0, "no file"), "it is the story");
                db_background_failed(f.db, jobs[at], db_background_begin(f.db));
                mutex_lock(&f.db->mu);
                struct db_retry *retry = at == 0 ? &f.db->merge_retry : &f.db->background_retry;
                assert_int_equal(told->status, manual != 0 || i >= 3 ? ESKER_IO : ESKER_OK);
                uint64_t due_ns = retry->due_ns;
                mutex_unlock(&f.db->mu);
                assert_true(at == 1 || db_merges_pause(f.db, &left_ns) == (manual == 0));
                retry_pass(&f, retry, due_ns);
            }
            db_background_ok(f.db, jobs[at]);
            assert_int_equal(told->status, ESKER_OK);
        }
        mutex_lock(&f.db->mu);
        f.db->manual_compactions--;
        mutex_unlock(&f.db->mu);
        retry_destroy(&f);
    }
}

static void
retry__comes_at_once_when_there_is_room(void **state)
{
    (void)state;
    struct retry_fixture f;
    uint64_t id;
    retry_create(&f, false, &id);
    retry_open(&f, true);
    sim_disk_set_capacity(f.disk, 1);
    IGNORE_STATUS(FAIL(ESKER_NO_SPACE, "a flush failed"), "it is the story");
    db_background_failed(f.db, &f.db->flush_job, db_background_begin(f.db));
    while (workers_run_one()) {
    }
    assert_int_equal(f.db->background_retry.failures, 1);
    db_space_job(&f.db->space_job); /* nothing has changed */
    assert_int_equal(f.db->background_retry.failures, 1);
    assert_true(job_idle(&f.db->flush_job));
    sim_disk_set_capacity(f.disk, 64 << 20);
    db_space_job(&f.db->space_job);
    assert_int_equal(f.db->background_retry.failures, 0);
    assert_false(job_idle(&f.db->flush_job));
    assert_false(job_idle(&f.db->compact_jobs[0].job));
    retry_destroy(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage__answers_writers_without_threads),
        cmocka_unit_test(damage__answers_writers_with_threads),
        cmocka_unit_test(damage__keeps_only_what_is_newer),
        cmocka_unit_test(damage__does_not_keep_tiers_apart),
        cmocka_unit_test(close__ends_although_level_0_is_full),
        cmocka_unit_test(retry__pauses_grow_until_something_succeeds),
        cmocka_unit_test(retry__short_descriptors_are_told_when_they_stay_short),
        cmocka_unit_test(retry__comes_at_once_when_there_is_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
